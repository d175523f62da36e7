"""``timm:NAME``, ``torchvision:NAME``, and the prefixes that other packages add → what they name.

Another package adds one by an entry point of the group ``gradprobe.sources``: its name is the
prefix, and it is a function that takes what ``Source.load`` takes and gives what that gives.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from gradprobe.errors import GradprobeError, InputError, first_line
from gradprobe.spec.network import ArchitectureSpec, CodeSpec, NetworkSpec
from gradprobe.spec.sources import python
from gradprobe.spec.sources.python import CodeOptions

LIBRARIES = ("timm", "torchvision")
GROUP = "gradprobe.sources"
RANDOM = "it is built with random weights, and nothing is downloaded: --weights FILE loads some"
_LOADS = re.compile("pretrained|weights|checkpoint|cache_dir")


def is_model(target: str) -> bool:
    """Whether ``target`` has the prefix of a library of models."""
    return _prefix(target) in LIBRARIES


def load(target: str, options: CodeOptions) -> CodeSpec:
    """The model of a library that ``target`` names.

    Raises:
        InputError: it is no name, or an argument would have the library load weights.
    """
    library, _, name = target.partition(":")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(
            f"{target}: '{name}' is no name of a model", hint=f"like {library}:resnet50"
        )
    for key in options.arguments:
        if _LOADS.match(key):
            raise InputError(f"--arg {key}: no weights come from {library}", hint=RANDOM)
    return python.completed(CodeSpec(target, path="", library=library, source=target), options)


def is_named(target: str) -> bool:
    """Whether ``target`` has the prefix of an installed package, of whichever kind."""
    return is_model(target) or is_added(target)


def is_added(target: str) -> bool:
    """Whether ``target`` has a prefix that an installed package adds."""
    return _entry_point(target) is not None


def load_added(
    target: str, options: Any, code: CodeOptions
) -> NetworkSpec | CodeSpec | ArchitectureSpec:
    """What the package makes of ``target``; of code, with what the command line says about it.

    Raises:
        InputError: the package says so, or fails at it.
    """
    entry = _entry_point(target)
    assert entry is not None
    by = f"the source {entry.name}: ({entry.value})"
    try:
        function: Callable[[str, Any], Any] = entry.load()
        spec = function(target, options)
    except GradprobeError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"{target}: {by} failed: {what}") from error
    if isinstance(spec, CodeSpec):
        return python.completed(replace(spec, path="", library=entry.name, source=target), code)
    if not isinstance(spec, NetworkSpec | ArchitectureSpec):
        raise InputError(f"{target}: {by} gave no spec, but a value of {type(spec).__name__}")
    return spec


def _prefix(target: str) -> str | None:
    prefix, colon, _ = target.partition(":")
    return prefix if colon and prefix.isidentifier() and not os.path.exists(target) else None


def _entry_point(target: str) -> EntryPoint | None:
    prefix = _prefix(target)
    return _added(tuple(sys.path)).get(prefix) if prefix else None


@cache
def _added(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """By prefix, what is installed along ``path``; the first of a name counts."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, entry)
    return found
