"""The targets of a check → one of several parts that take about as long."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gradprobe.errors import GradprobeError
from gradprobe.spec.entry import Entry
from gradprobe.spec.network import CodeSpec, NetworkSpec
from gradprobe.spec.options import DEFAULT_BATCH_SIZE, CheckOptions
from gradprobe.spec.sources.stack import STACKS
from gradprobe.spec.sources.yaml import parse_any
from gradprobe.tasks.check.discover import Discovery, OptionsOf
from gradprobe.tasks.check.result import Part
from gradprobe.tasks.check.target import names_network, read

if TYPE_CHECKING:
    from gradprobe.model.plan import Planned

# What a target takes beside its multiplications, in multiplications of the forward pass, about.
_TARGET = 30_000_000
_LAYER = 5_000_000  # its hooks
_CODE = 3_000_000_000  # a process that imports torch and the model


def split(
    discovered: Discovery, options_of: OptionsOf, number: int, count: int
) -> tuple[tuple[str, ...], Part]:
    """The files of the ``number``-th of ``count`` parts, and what marks its result.

    The dearest target goes first, each to the part that has the least to do. What they cost is
    planned and not measured, so that every machine with the same files splits them alike.
    """
    digest = hashlib.sha256()
    costs: dict[str, int] = {}
    for file in discovered.files:
        data, costs[file] = _planned(file, options_of, discovered.entries)
        digest.update(f"{file}\0{costs[file]}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    loads = [0] * count
    own = []
    for file in sorted(costs, key=lambda file: (-costs[file], file)):
        part = loads.index(min(loads))
        loads[part] += costs[file]
        if part == number - 1:
            own.append(file)
    return tuple(sorted(own)), Part(number, count, digest.hexdigest())


def _planned(file: str, options_of: OptionsOf, entries: Mapping[str, Entry]) -> tuple[bytes, int]:
    """The bytes of a spec, of anything else none, and what the target costs."""
    named = names_network(file) and file not in STACKS
    if file in entries or named:
        return b"", _CODE
    if file == "-":  # which can be read only once
        return b"", _TARGET
    options, data = options_of(Path(file).parent), b""
    try:
        target = read(file, options, None, allow_code=True)
        if target.spec is not None:
            return data, _CODE
        data = target.data
        spec = parse_any(data, target.name)
        return data, _CODE if isinstance(spec, CodeSpec) else _cost(spec, options)
    except GradprobeError:  # the part that it falls to says what is wrong
        return data, _TARGET


def _cost(spec: NetworkSpec, options: CheckOptions) -> int:
    """What a spec costs at all seeds, the passes of a second look included."""
    from gradprobe.model.plan import plan

    planned = plan(spec, options.batch_size or spec.input.batch_size or DEFAULT_BATCH_SIZE)
    passes = 3 if options.deep else 1
    return len(options.seeds) * (_TARGET + passes * (_layers(planned) * _LAYER + planned.work))


def _layers(planned: Planned) -> int:
    inside = sum(_layers(layer) for branch in planned.branches for layer in branch)
    return inside or 1
