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
from gradprobe.worker.frames import rank_of


def origin_of(objects: Iterable[object], tree: str) -> Origin:
    """The place of the first of ``objects`` whose source lies below ``tree``, and the files there.

    Args:
        objects: what the target names, and the class of the model that it made.
    """
    root = os.path.realpath(tree)
    own = sorted(_imported())
    files = [file for file in own if Path(file).is_relative_to(root)]
    hashed = tuple((os.path.relpath(file, root), digest(file)) for file in files)
    elsewhere = tuple((file, digest(file)) for file in own if file not in files)
    place = next(filter(None, (_place(each, files) for each in objects)), None)
    return Origin(place, hashed, elsewhere)


def digest(file: str | Path) -> str:
    """The SHA-256 of a file's bytes; an empty string where it cannot be read."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return ""


def unchanged(origin: Origin, tree: str) -> bool:
    """Whether the files still have the bytes that they had."""
    hashed = (*origin.files, *origin.elsewhere)  # those of elsewhere are absolute
    return all(digest(os.path.join(tree, file)) == known for file, known in hashed)


def _imported() -> set[str]:
    """The user's own files, wherever they lie."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    own = {os.path.realpath(f) for f in files if isinstance(f, str) and rank_of(f) == 2}
    return {file for file in own if os.path.isfile(file)}  # some libraries' are names alone


def _place(value: object, files: list[str]) -> Place | None:
    try:
        file = os.path.realpath(inspect.getsourcefile(value) or "")  # type: ignore[arg-type]
        line = inspect.getsourcelines(value)[1]  # type: ignore[arg-type]
    except (TypeError, OSError):
        return None
    return Place(file, max(1, line)) if file in files else None
