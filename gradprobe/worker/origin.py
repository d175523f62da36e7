"""Where a model's code stands, and what it was imported from: found in its own process."""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from gradprobe.errors import Place
from gradprobe.worker.exchange import Origin

_FOREIGN = frozenset({"site-packages", "dist-packages"})


def origin_of(objects: Iterable[object], tree: str) -> Origin:
    """The place of the first of ``objects`` whose source lies below ``tree``, and the files there.

    Args:
        objects: what the target names, and the class of the model that it made.
    """
    root = os.path.realpath(tree)
    files = sorted(_imported(root))
    hashed = tuple((os.path.relpath(file, root), digest(file)) for file in files)
    return Origin(next(filter(None, (_place(each, files) for each in objects)), None), hashed)


def digest(file: str | Path) -> str:
    """The SHA-256 of a file's bytes; an empty string where it cannot be read."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return ""


def unchanged(origin: Origin, tree: str) -> bool:
    """Whether the files still have the bytes that they had."""
    return all(digest(os.path.join(tree, file)) == known for file, known in origin.files)


def _imported(root: str) -> set[str]:
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    real = {os.path.realpath(file) for file in files if isinstance(file, str)}
    return {
        file
        for file in real
        if Path(file).is_relative_to(root)
        and os.path.isfile(file)  # torch has modules whose files are names alone: _ops.py
        and not _FOREIGN & set(Path(file).parts)
    }


def _place(value: object, files: list[str]) -> Place | None:
    try:
        file = os.path.realpath(inspect.getsourcefile(value) or "")  # type: ignore[arg-type]
        line = inspect.getsourcelines(value)[1]  # type: ignore[arg-type]
    except (TypeError, OSError):
        return None
    return Place(file, max(1, line)) if file in files else None
