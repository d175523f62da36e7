"""A module → the classes behind its rows, and where they stand: what advice on code points at."""

from __future__ import annotations

import linecache
import os
import re
from collections.abc import Iterable
from pathlib import Path
from types import FunctionType

from torch import nn

from gradprobe.model.sharded import class_of


def classes_of(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """By row name ``Block (net.py:12)``: its class, or the nearest around it that is not torch's.

    The file is relative to the working directory where it is below it.
    """
    shown: dict[type, str] = {}
    classes = {}
    for name in names:
        kind = _own_class(model, name)
        if kind is not None:
            shown.setdefault(kind, _shown(kind))
            classes[name] = shown[kind]
    return classes


def _own_class(model: nn.Module, path: str) -> type | None:
    module, kinds = model, [class_of(model)]
    for part in path.split("."):
        child = dict(module.named_children()).get(part)
        if child is None:
            break
        module = child
        kinds.append(class_of(module))
    own = [kind for kind in kinds if not kind.__module__.startswith("torch.")]
    return own[-1] if own else None


def _shown(kind: type) -> str:
    """The class with its file and line, or its name alone where they cannot be read."""
    functions = [value for value in vars(kind).values() if isinstance(value, FunctionType)]
    if not functions:
        return kind.__name__
    code = functions[0].__code__
    lines = linecache.getlines(code.co_filename)[: code.co_firstlineno]
    head = re.compile(rf"\s*class {re.escape(kind.__name__)}\b")
    found = [number for number, line in enumerate(lines, 1) if head.match(line)]
    if not found:
        return kind.__name__
    file, here = Path(os.path.abspath(code.co_filename)), Path.cwd()
    place = os.path.relpath(file) if file.is_relative_to(here) else code.co_filename
    return f"{kind.__name__} ({place}:{found[-1]})"
