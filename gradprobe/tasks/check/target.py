"""A name → one target of the check: a spec's bytes, or the code or configuration that it names."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gradprobe.errors import InputError, Place
from gradprobe.files import in_tree_of
from gradprobe.spec.entry import Entry
from gradprobe.spec.network import (
    ArchitectureSpec,
    CodeSpec,
    NetworkSpec,
    Weights,
    is_script,
    is_target,
)
from gradprobe.spec.options import CheckOptions
from gradprobe.spec.sources import huggingface, named, table
from gradprobe.spec.sources.hints import is_no_target, refuse
from gradprobe.spec.sources.huggingface import ArchitectureOptions
from gradprobe.spec.sources.python import CodeOptions
from gradprobe.spec.sources.stack import STACKS
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.spec.sources.yaml import read_bytes
from gradprobe.spec.weights import digest_of
from gradprobe.spec.write import render_target
from gradprobe.tasks.targets import load_target

ALLOW = "--allow-code, or GRADPROBE_ALLOW_CODE=1, runs it in a process of its own"


class Target(NamedTuple):
    """One target: what it is called, and the bytes that, with its options, decide the result."""

    path: str  # of its file, or the name of code
    data: bytes
    options: CheckOptions
    spec: CodeSpec | ArchitectureSpec | None = None  # None: ``data`` is a spec
    tree: str = "."  # the folder whose files code is remembered by
    place: Place | None = None  # where the configuration names code

    @property
    def name(self) -> str:
        """What errors call it."""
        return "<stdin>" if self.path == "-" else self.path


def names_network(name: str) -> bool:
    """Whether a name is that of code or of a built-in stack, and of no file."""
    stack = name in STACKS and not os.path.lexists(name)
    has_prefix = named.is_named(name) or name.startswith(huggingface.PREFIX)
    return stack or is_target(name) or is_script(name) or has_prefix


def read(name: str, options: CheckOptions, entry: Entry | None, allow_code: bool) -> Target:
    """The target of that name; ``entry`` is what the configuration says of it.

    Raises:
        InputError: it cannot be read, or it is code and that is not allowed.
    """
    if entry is None and is_no_target(name):
        refuse(name, TargetOptions())
    if entry is None and not names_network(name) and not _is_json(name):
        return Target(name, read_bytes(name), options)
    if entry is None and name in STACKS:
        return Target(name, render_target(load_target(name)).encode(), options)
    tree = entry.folder if entry else "."
    spec = _of_entry(entry) if entry else load_target(name)
    if isinstance(spec, CodeSpec) and not allow_code and not _is_installed(spec, options.loss):
        raise InputError(f"this target runs code: {spec.target}", hint=ALLOW)
    if isinstance(spec, NetworkSpec):  # of JSON, or of a package that adds a prefix
        data = read_bytes(name) if _is_json(name) else render_target(spec).encode()
        return Target(name, data, options)
    place = entry.place if entry and isinstance(spec, CodeSpec) else None
    return Target(name, _identity(spec, tree), options, spec, tree, place)


def _is_installed(spec: CodeSpec, loss: str | None) -> bool:
    """Whether an installed package has all of the code: no function is named beside it."""
    functions = isinstance(spec.inputs, str) or is_target(loss or spec.loss)
    return spec.library is not None and not spec.path and not functions


def _is_json(name: str) -> bool:
    return name.endswith(".json") and os.path.isfile(name)


def _of_entry(entry: Entry) -> table.Target:
    """The network that an entry of the configuration names, from the configuration's folder.

    Raises:
        InputError: there is none, or a key is not about it.
    """
    file = str(Path(entry.folder, entry.target.removeprefix(huggingface.PREFIX)))
    installed = named.is_named(entry.target)
    is_name = installed or is_target(entry.target)
    code = is_name or is_script(file)
    if code and (entry.layers is not None or entry.settings):
        raise InputError("layers and set are for a config.json", place=entry.place)
    if not code and (entry.path or entry.args or entry.inputs or entry.loss):
        raise InputError("path, args, inputs and loss are for code", place=entry.place)
    root = str(Path(entry.folder, entry.path or "."))
    own = CodeOptions(
        arguments=entry.args,
        path=root if entry.path or (is_name and not installed) else None,
        tensors=entry.inputs if isinstance(entry.inputs, tuple) else (),
        function=entry.inputs if isinstance(entry.inputs, str) else None,
        train=None if entry.mode is None else entry.mode == "train",
        loss=entry.loss,
    )
    about = TargetOptions(code=own, architecture=ArchitectureOptions(entry.layers, entry.settings))
    if not is_name and not in_tree_of(entry.folder, file):
        raise InputError(f"{entry.target} lies outside of the tree", place=entry.place)
    target = entry.target if is_name else file
    if not code and not huggingface.is_config(target):
        hint = "package.module:name, file.py:name, timm:NAME, torchvision:NAME, or a config.json"
        raise InputError(f"{entry.target} is no target", place=entry.place, hint=hint)
    spec = table.load(target, about)
    if isinstance(spec, NetworkSpec) and entry.weights:
        raise InputError("weights are for code and a config.json", place=entry.place)
    return replace(spec, source=entry.target, weights=_checkpoint(entry))


def _checkpoint(entry: Entry) -> Weights | None:
    """The checkpoint that an entry names.

    Raises:
        InputError: it lies outside of the configuration's tree.
    """
    if entry.weights is None:
        return None
    file = str(Path(entry.folder, entry.weights))
    if not in_tree_of(entry.folder, file):
        raise InputError(f"{entry.weights} lies outside of the tree", place=entry.place)
    return Weights(file, entry.weights_prefix, entry.weights)


def _identity(spec: CodeSpec | ArchitectureSpec, tree: str) -> bytes:
    """What decides a result beside the files that code is imported from, as bytes."""
    fields = {key: value for key, value in asdict(spec).items() if key not in ("source", "lines")}
    if isinstance(spec, CodeSpec) and spec.path:
        fields["path"] = os.path.relpath(spec.path, tree)
    if spec.weights:
        fields["weights"] = (digest_of(spec.weights.file), *spec.weights[1:])
    body = json.dumps([fields, sys.version, _installed()], sort_keys=True, default=_plain)
    return b"\0" + body.encode()  # no spec begins so


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


@cache
def _installed() -> list[str]:
    """The packages that can be imported, with their versions, by the names of their folders."""
    names: set[str] = set()
    for folder in sys.path:
        if os.path.isdir(folder):
            listed = os.listdir(folder)
            names |= {name for name in listed if name.endswith((".dist-info", ".egg-info"))}
    return sorted(names)


def shown_place(place: Place) -> Place:
    """The place with its file relative to the working directory where it lies below it."""
    file = os.path.realpath(place.file)
    inside = Path(file).is_relative_to(os.path.realpath("."))
    shown = os.path.relpath(file, os.path.realpath(".")) if inside else place.file
    return replace(place, file=shown.replace(os.sep, "/"))
