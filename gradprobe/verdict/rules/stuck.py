"""Weights of which exactly nothing of their row's gradient arrives, and whether luck is why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gradprobe.measure.profile import GradientProfile, ParameterProfile, RowProfile
from gradprobe.verdict.rules.rule import underflow

Named = tuple[RowProfile, list[str]]  # a row, and the names of weights in it


def off_everywhere(profile: GradientProfile) -> Iterator[Named]:
    """Stuck weights whose like in other blocks is stuck as well, or which have none."""
    return _stuck(profile, by_chance=False)


def off_in_some(profile: GradientProfile) -> Iterator[Named]:
    """Stuck weights whose like in most other blocks, two at least, is alive.

    A gate of few ReLU units is off in one block by the luck of the draw; the block goes on without.
    """
    return _stuck(profile, by_chance=True)


def of_a_state(parameter: ParameterProfile) -> bool:
    """Whether it is what a recurrent layer's state goes through, which is 0 at the first step."""
    return parameter.name.rpartition(".")[2].startswith("weight_hh")


def _stuck(profile: GradientProfile, by_chance: bool) -> Iterator[Named]:
    by_row = [(row, names) for row in profile.rows if (names := _stuck_in(profile, row))]
    if not by_row:
        return
    asked = {p.name for row in profile.ran for p in row.parameters if p.gradient_norm is not None}
    every = Counter(map(_place_in_block, asked))
    off = Counter(map(_place_in_block, {name for _, names in by_row for name in names}))
    lucky = {at for at in every if at and every[at] - off[at] >= max(2, every[at] / 2)}
    for row, names in by_row:
        chosen = [name for name in names if (_place_in_block(name) in lucky) is by_chance]
        if chosen:
            yield row, chosen


def _stuck_in(profile: GradientProfile, row: RowProfile) -> list[str]:
    if row.level or not row.gradient_norm or row.gradient_norm < underflow(profile):
        return []
    weights = [p for p in row.parameters if p.dimensions > 1 and not of_a_state(p)]
    stuck = [p.name for p in weights if p.gradient_norm == 0]
    if profile.still_zero is not None or any(p.wakes_up for p in row.parameters):
        stuck = [name for name in stuck if name in (profile.still_zero or ())]
    return stuck


def _place_in_block(name: str) -> str:
    """``stages.*.*.gate.fc.weight``; empty for what is in no numbered block.

    The number of the layer itself is its place: ``layers.0.weight`` is no other than the first.
    """
    parts = name.split(".")
    blocks = ["*" if part.isdecimal() else part for part in parts[:-2]]
    return ".".join(blocks + parts[-2:]) if "*" in blocks else ""
