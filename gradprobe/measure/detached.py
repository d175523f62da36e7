"""Loops whose steps hand on values and no gradient: a state that is detached at each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from gradprobe.measure.again import output_of
from gradprobe.measure.checkpoints import keeping_graph
from gradprobe.measure.graph import Reads
from gradprobe.measure.passes import RowPass
from gradprobe.measure.recorder import Recorder
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.rows import Row
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import map_tensors, tensors_in

_LOOP = 3  # as many calls of one module may be steps of a loop
_MODULES = 8  # that are looked at
_LARGER = 1.5  # times what each step gives, to see whether the next one reads it


def loose(passes: Sequence[RowPass], read: Mapping[int, Reads]) -> Iterator[str]:
    """The modules of which the last call alone gets a gradient, and no call leads to another.

    Args:
        passes: of each call.
        read: by index, what each call of a row of level 0 reads.
    """
    calls: dict[str, list[int]] = {}
    for index in read:
        calls.setdefault(passes[index].row.name, []).append(index)
    for name, places in calls.items():
        warm = [place for place in places if passes[place].gradient_norm is not None]
        if len(places) < _LOOP or warm != places[-1:]:
            continue
        if not any(_leads(places[0], *pair, read) for pair in pairwise(places)):
            yield name


def _leads(first: int, before: int, place: int, read: Mapping[int, Reads]) -> bool:
    """Whether call ``place`` follows from one of those from ``first`` to ``before``, or may."""
    stack, seen = [place], {place}
    while stack:
        feeders = read[stack.pop()].feeders
        if feeders is None or any(first <= feeder <= before for feeder in feeders):
            return True
        stack += [feeder for feeder in feeders if feeder > before and feeder not in seen]
        seen.update(feeders)
    return False


def detached(subject: Subject, names: Sequence[str]) -> tuple[str, int] | None:
    """That of the modules whose every call reads what the call before gave; with their number.

    Nothing of one that runs without a graph: a warm-up in ``torch.no_grad()``.
    """
    rows = [row for row in subject.rows if row.name in names]
    if not rows:
        return None
    with keeping_graph():
        usual = _read(subject, rows, 1.0)
        for row in rows[:_MODULES]:
            larger = _read(subject, [row], _LARGER)  # alone: one in front would reach its input too
            pairs = list(zip(usual[row.name], larger[row.name], strict=False))[1:]
            if pairs and all(not all(map(_are_equal, a, b)) for a, b in pairs):
                return row.name, len(usual[row.name])
    return None


def _are_equal(a: Tensor, b: Tensor) -> bool:
    """Whether they are, where a value that is missing is like another."""
    return torch.equal(a.nan_to_num(), b.nan_to_num())


def _read(subject: Subject, rows: Sequence[Row], factor: float) -> dict[str, list[list[Tensor]]]:
    """What each call of the rows reads, where they give ``factor`` times what they do."""
    with undisturbed(subject.model), _Larger(rows, factor) as larger:
        output_of(subject)
    return larger.read


class _Larger(Recorder):
    """Notes what each call reads, and makes what it gives with a graph larger."""

    def __init__(self, rows: Sequence[Row], factor: float) -> None:
        super().__init__(rows)
        self.factor = factor
        self.read: dict[str, list[list[Tensor]]] = {row.name: [] for row in rows}

    def before(self, row: Row, args: Any, kwargs: Any) -> tuple[None, None]:
        floats = (t for t in tensors_in([args, kwargs]) if t.is_floating_point())
        self.read[row.name].append([t.detach().clone() for t in floats])
        return None, None

    def after(self, row: Row, note: None, output: Any) -> Any:
        return map_tensors(lambda t: t * self.factor if t.requires_grad else t, output)
