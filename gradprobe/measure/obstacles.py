"""A profile → why it says nothing about training, if it does not. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gradprobe.measure.profile import GradientProfile, RowProfile, RowStatus
from gradprobe.spec.layers import RECURRENT_CELLS

_LOOP = 3  # as many calls in turn may be steps of a loop

# Why there is nothing to weigh: the first reason that holds is the one given.
OBSTACLES: dict[str, Callable[[GradientProfile], bool]] = {
    "the network has no parameters": lambda p: not p.parameters,
    "the loss, an output or a gradient is not finite": lambda p: not _all_finite(p),
    "fewer than two rows to compare": lambda p: p.steps < 1,
    "an end of the trunk has no gradient": lambda p: is_cut(p),
    "the gradient is zero": lambda p: not p.reach,
    "a batch of one does not tell inputs apart": lambda p: p.trunk[-1].input_dependence is None,
}


def obstacle(profile: GradientProfile) -> str | None:
    """Why the profile has no signals, in words; ``None`` where it has."""
    profile = without_time(profile)
    return next((reason for reason, holds in OBSTACLES.items() if holds(profile)), None)


def is_cut(profile: GradientProfile) -> bool:
    """Whether an end of the trunk has no gradient."""
    return any(row.gradient_norm is None for row in (*profile.trunk[:1], *profile.trunk[-1:]))


def _all_finite(profile: GradientProfile) -> bool:
    dependence = [row.input_dependence for row in profile.trunk[-1:]]
    numbers = (profile.loss, profile.reach, *dependence)
    finite = all(x is None or math.isfinite(x) for x in numbers)
    return finite and not any(row.status is RowStatus.NON_FINITE for row in profile.ran)


def without_time(profile: GradientProfile) -> GradientProfile:
    """The rows of depth alone: the steps of a loop over a recurrent cell are one row each.

    Those are the calls of a cell, and of a row that runs between them, but never twice between two:
    as a layer is one row with all its positions. Such a row's gradient is that of all calls, and
    its activations are the last one's. What is lost from step to step is ``lost_past``.
    """
    return _merged(profile, _in_step(profile.ran))


def without_alternation(profile: GradientProfile) -> GradientProfile:
    """The same for a recurrent cell that somebody wrote: modules that are called in turn.

    Each turn has to get an input of its own, as each step through time does and no repeated layer.
    """
    return _merged(profile, _in_turn(profile.ran))


def _merged(profile: GradientProfile, steps: set[str]) -> GradientProfile:
    """All calls of each module in ``steps`` as one row."""
    if not steps:
        return profile
    names = {row.name: row.module if row.module in steps else row.name for row in profile.rows}
    rows: dict[str, RowProfile] = {}
    for row in profile.rows:
        if row.level and any(row.name.startswith(f"{step} (") for step in steps):
            continue  # a leaf of a later call
        key = names[row.name]
        row = row._replace(feeders=_renamed(row.feeders, names, key))
        rows[key] = _joined(rows[key], row) if key in rows else row
    return replace(profile, rows=tuple(rows.values()))


def _renamed(
    feeders: tuple[str, ...] | None, names: Mapping[str, str], own: str
) -> tuple[str, ...] | None:
    if feeders is None:
        return None
    merged = dict.fromkeys(names.get(name, name) for name in feeders)
    return tuple(name for name in merged if name != own)


def _joined(first: RowProfile, row: RowProfile) -> RowProfile:
    """Two steps of one row, as one."""
    norms = [n for n in (first.gradient_norm, row.gradient_norm) if n is not None]
    broken = RowStatus.NON_FINITE in (first.status, row.status)
    return first._replace(
        size=first.size or row.size,
        parameters=first.parameters or row.parameters,
        gradient_norm=math.hypot(*norms) if norms else None,
        activation_rms=row.activation_rms,
        input_dependence=row.input_dependence,
        status=RowStatus.NON_FINITE if broken else RowStatus.OK if norms else row.status,
        feeders=None
        if first.feeders is None
        else tuple(dict.fromkeys((*first.feeders, *(row.feeders or ())))),
    )


def _in_turn(rows: Sequence[RowProfile]) -> set[str]:
    """The modules of a recurrent cell that somebody wrote: each step calls each of them once."""
    calls: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        calls.setdefault(row.module, []).append(index)
    loops = {module: places for module, places in calls.items() if len(places) >= _LOOP}
    result: set[str] = set()
    for module, places in loops.items():
        together = [
            other
            for other in loops.values()
            if len(other) == len(places) and other[0] <= places[-1] and places[0] <= other[-1]
        ]
        turns = list(zip(*sorted(together), strict=True))
        order = [place for turn in turns for place in turn]
        fed = sum(any(rows[place].new_input for place in turn) for turn in turns)
        if order == sorted(order) and fed >= len(turns) - 1:
            result.add(module)
    return result


def _in_step(rows: Sequence[RowProfile]) -> set[str]:
    """The modules of which each call is one step of a loop over a recurrent cell."""
    cells = {row.module for row in rows if not RECURRENT_CELLS.isdisjoint(row.contains)}
    times = Counter(row.module for row in rows)
    cells = {cell for cell in cells if times[cell] > 1}  # a cell that is called once is no loop
    if not cells:
        return set()
    steps = 0  # calls of those cells so far
    last: dict[str, int] = {}  # by module: how many there had been when it was called last
    within_a_step = set()  # modules that are called twice in one step: those calls are depth
    for row in rows:
        module = row.module
        if module in cells:
            steps += 1
        elif last.get(module) == steps:
            within_a_step.add(module)
        last[module] = steps
    return {module for module in last if times[module] > 1} - within_a_step
