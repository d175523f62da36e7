"""What loses a gradient, in words: where it happens, how a finding says it, and what mends it.

``CAUSES`` has every signal that speaks against a network; the bands of reach use the same words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from gradprobe.measure.measurement import Cure
from gradprobe.measure.obstacles import without_time
from gradprobe.measure.profile import GradientProfile, RowProfile
from gradprobe.numbers import fraction, number
from gradprobe.spec.layers import RECURRENT_CELLS, Trait, kinds
from gradprobe.verdict.advice import at, cures
from gradprobe.verdict.report import Verdict
from gradprobe.verdict.signals import CAPS, Signals

# ---- where


class _Step(NamedTuple):
    """The row across which the gradient changes most, and the factor by which it does."""

    row: RowProfile
    factor: float


def _culprit(profile: GradientProfile) -> _Step | None:
    """The one row across which more than half of the loss or growth (in decades) happens."""
    reach, trunk = profile.unpooled_reach, profile.trunk
    if not reach or reach == 1 or not math.isfinite(reach) or len(trunk) < 3:
        return None
    steps = [
        _Step(after, row.gradient_norm / after.gradient_norm)
        for row, after in pairwise(trunk)
        if row.gradient_norm and after.gradient_norm and not after.is_average
        if after.feeders is None or row.name in after.feeders  # a decoder's embedding reads tokens
    ]
    shares = [math.log(step.factor) / math.log(reach) for step in steps if step.factor > 0]
    if len(shares) < len(steps) or max(shares, default=0.0) <= 0.5:
        return None
    return steps[shares.index(max(shares))]


def row_at_fault(profile: GradientProfile) -> RowProfile:
    """The row to point at: where the gradient is lost or, where that is everywhere, the first."""
    culprit = _culprit(profile)
    return culprit.row if culprit else profile.trunk[0]


def _recurrent_row(profile: GradientProfile) -> RowProfile:
    """The first of the trunk with a recurrent layer or cell."""
    names = kinds(Trait.RECURRENT) | RECURRENT_CELLS
    return next((row for row in profile.trunk if names & set(row.contains)), profile.trunk[0])


def shrinks(profile: GradientProfile) -> str:
    """How a gradient that gets smaller is told: by how much, over what."""
    reach = profile.reach or 0.0
    if reach == 0:
        return "falls below the smallest number of its dtype (float64 shows how far)"
    return f"shrinks to {number(reach)} of itself over {_where(profile)}"


def grows(profile: GradientProfile) -> str:
    """How a gradient that gets larger is told."""
    return f"grows {number(profile.reach)} times over {_where(profile)}"


def _where(profile: GradientProfile) -> str:
    """``50 rows, ×0.577 per row``, or the one row across which most of it happens."""
    unit = profile.unit
    rows = f"{profile.steps} {unit}s" if profile.steps != 1 else f"one {unit}"
    if culprit := _culprit(profile):
        return f"{rows}, most of it across {unit} {culprit.row.name} (×{number(culprit.factor)})"
    decay = profile.decay
    return f"{rows}, ×{number(decay)} per {unit}" if decay and profile.steps > 1 else rows


def _kinds(profile: GradientProfile) -> set[str]:
    """The kinds of layer in the trunk; a recurrent cell is of its layer's."""
    return {kind.removesuffix("Cell") for row in profile.trunk for kind in row.contains}


# ---- what mends it

_SLOPES = {"Sigmoid": 0.25, "Hardsigmoid": 0.17}  # at most
_STEEP = 0.5  # the factor across a row below which its sigmoid is to blame
_BARE = 0.5  # up to here a network counts as one with skips

Advice = tuple[Cure, ...]


def advice_for_small(profile: GradientProfile, bare: float | None = None) -> Advice:
    """What mends a gradient that shrinks, by what was measured of the trunk."""
    inside, rows = _kinds(profile), _rows_at_fault(profile)
    if (smooth := _flattening(profile, rows)) is not None:
        return cures(smooth)
    if "residual" in inside or (bare is not None and bare <= _BARE):
        return cures(_blocks("clean skip", profile), "shallower")
    if "RNN" in inside:
        return cures("gated", _orthogonal(profile))
    if profile.unit == "position" or len(without_time(profile).trunk) < len(profile.trunk) / 2:
        return cures(*_forget(profile), "shorten", "attend")
    if any(kinds(Trait.RECURRENT) & set(row.contains) for row in rows[:1]):
        return cures(*_forget(profile), "every", "shorten")
    if inside & kinds(Trait.HALF_LINEAR):
        return cures(at("init", rows, _to_one(profile)), _blocks("skip", profile), "shallower")
    gain = at("gain", rows, _to_one(profile))
    return cures(gain, at("norm", rows), _blocks("skip", profile), "shallower")


def advice_for_large(profile: GradientProfile, bare: float | None = None) -> Advice:
    """What mends a gradient that grows.

    Args:
        bare: how much of the trunk has no skip, 0 to 1, where that was measured.
    """
    inside, rows = _kinds(profile), _rows_at_fault(profile)
    if "residual" in inside or (bare is not None and bare <= _BARE):
        return cures(_branches(profile), "shallower")
    known = bare is not None or profile.idiom.language == "spec"  # whether it has a skip
    if known and any("BatchNorm" in kind for kind in inside):
        return cures(_blocks("skipless norm", profile), "shallower")
    gain = at("gain", rows, _to_one(profile))
    return cures(gain, at("norm inside", rows), "shallower")


def _rows_at_fault(profile: GradientProfile) -> tuple[RowProfile, ...]:
    """The rows whose weights an init would change: one that loses most of it, or the trunk."""
    culprit = _culprit(profile)
    if culprit is None:
        return profile.trunk
    before = profile.trunk[: profile.trunk.index(culprit.row) + 1]
    return next(((row,) for row in reversed(before) if row.parameters), profile.trunk)


def _to_one(profile: GradientProfile) -> float:
    """The factor by which each weight must grow for a reach of 1, were the network linear."""
    if culprit := _culprit(profile):
        return 1 / culprit.factor
    rows, reach = profile.trunk, profile.unpooled_reach
    alive = [row.gradient_norm for row in rows if row.gradient_norm]
    if reach == 0 and alive:  # it underflows on the way, after so many rows
        rows, reach = rows[-len(alive) - 1 :], profile.smallest_gradient / alive[-1]
    return _per_weight(rows, reach)


def _per_weight(rows: Sequence[RowProfile], whole: float | None) -> float:
    """1 / ``whole``, shared among the rows with weights but the first."""
    weighty = max(1, len([row for row in rows if row.parameters]) - 1)
    if not whole or not math.isfinite(whole):
        return 1.0
    return math.exp(min(700.0, -math.log(whole) / weighty))


def _flattening(profile: GradientProfile, rows: Sequence[RowProfile]) -> Cure | None:
    """The sigmoid that shrinks it: the one activation of rows across which much of it is lost.

    One beside another activation is a gate, and multiplies: what passes it takes another way.
    """
    if profile.unit != "row":
        return None
    for kind, slope in _SLOPES.items():
        losing = [row for row in profile.trunk if kind in row.contains]
        others = kinds(Trait.ACTIVATION) - {kind}
        factors = [factor for row in losing if (factor := profile.factors.get(row.name))]
        if factors and not any(others & set(row.contains) for row in losing):
            mean = math.exp(math.fsum(map(math.log, factors)) / len(factors))
            if mean < _STEEP:
                return at("smooth", rows, slope)._replace(of=kind)
    return None


def _recurrent(profile: GradientProfile, name: str) -> tuple[list[str], int]:
    """Parameters of recurrent layers whose names begin like this, and the size of the first."""
    parameters = [p for row in profile.ran for p in row.parameters]
    own = [p for p in parameters if p.name.rpartition(".")[2].startswith(name)]
    return [p.name for p in own], own[0].size if own else 0


def _forget(profile: GradientProfile) -> Advice:
    """The bias of the forget gate: the second of an LSTM's four, or of a GRU's three (update)."""
    names, size = _recurrent(profile, "bias_ih")
    gates = {"LSTM": 4, "GRU": 3}
    own = [gates[kind] for kind in gates if kind in _kinds(profile)]
    return (Cure("forget", tuple(names), size // own[0]),) if own else ()


def _orthogonal(profile: GradientProfile) -> Cure:
    return Cure("orthogonal", tuple(_recurrent(profile, "weight_hh")[0]))


def _bare(signals: Signals) -> float | None:
    """How much of the trunk has no skip; a coherence of 1 hides it."""
    return signals.bare if signals.coherence < 1 else None


def _branches(profile: GradientProfile) -> Cure:
    return _blocks("branch", profile, 1 / math.sqrt(max(2, profile.steps)))


def _blocks(kind: str, profile: GradientProfile, number: float = 1.0) -> Cure:
    """A cure of every block, of which the one in the middle shows where its class is."""
    rows = [row for row in profile.trunk if row.parameters]
    return at(kind, rows[len(rows) // 2 :][:1], number)


def _advice_for_activations(profile: GradientProfile, signals: Signals) -> Advice:
    advice = advice_for_large(profile, _bare(signals))
    first, last = (profile.trunk[end].activation_rms for end in (0, -1))
    factor = _per_weight(profile.trunk, (last or 1.0) / (first or 1.0))
    return tuple(c._replace(number=factor) if c.kind == "gain" else c for c in advice)


def _advice_for_shattered(profile: GradientProfile, signals: Signals) -> Advice:
    """The init's gain first, where rows grow what they should hand on."""
    if signals.bare <= _BARE:
        return cures(_branches(profile), "shallower")
    normalised = any("Norm" in kind for kind in _kinds(profile))
    if signals.growth >= 1 and not normalised:
        return cures(at("gain", profile.trunk, _to_one(profile)), _blocks("skip", profile), "fewer")
    # Where the init is at fault, another one shows it: in code it is tried.
    drawn = profile.idiom.language == "code" and not normalised
    draw = [at("draw", profile.trunk)] if drawn else []
    return cures(*draw, _blocks("skip", profile), "fewer")


def _advice_for_forgotten(profile: GradientProfile, signals: Signals) -> Advice:
    if _kinds(profile) & {"LSTM", "GRU"}:
        return cures(*_forget(profile), "every", "shorten")
    return cures("gated", _orthogonal(profile), "every")


def _advice_for_alike(profile: GradientProfile, signals: Signals) -> Advice:
    rows = _rows_at_fault(profile)
    gain = at("gain", rows, max(2.0, _to_one(profile)))
    return cures(at("norm", rows), gain, _blocks("skip", profile), "shallower")


# ---- how a finding says it


def _another_gradient(profile: GradientProfile, signals: Signals) -> str:
    story = f"after a small step the gradient is another (coherence {number(signals.coherence)})"
    return story if signals.bare <= _BARE else f"{story}, and little of it takes a skip"


def _growing_activations(profile: GradientProfile, signals: Signals) -> str:
    more = " or more" if signals.forward_growth >= CAPS.forward_growth else ""
    return f"activations grow {number(10**signals.forward_growth)} times{more}"


def _told_apart(decades: float) -> str:
    return f"{fraction(10**-decades)} of the output tells inputs apart"


def _forgotten_past(profile: GradientProfile, signals: Signals) -> str:
    less = " or less" if signals.lost_past >= CAPS.lost_past else ""
    share = number(10**-signals.lost_past)
    return f"the sequence's first position gets {share}{less} of another's gradient"


def _times(decades: float, cap: float) -> str:
    """``×0.013`` of -1.9 decades; ``×1.0e-8 or less`` at the cap, where the signal ends."""
    beyond = "less" if decades < 0 else "more"
    factor = f"×{number(10**decades)}"
    return factor if abs(decades) < cap * (1 - 1e-9) else f"{factor} or {beyond}"


class Cause(NamedTuple):
    """A signal that speaks against a network: in a few words, in a finding, and as a verdict."""

    short: Callable[[float], str]  # of the signal's value
    story: Callable[[GradientProfile, Signals], str]
    advice: Callable[[GradientProfile, Signals], Advice]
    place: Callable[[GradientProfile], RowProfile] = row_at_fault
    verdict: Verdict = Verdict.SHATTERED  # of a network that fails with this as its main cause


# Every signal of ``Signals`` that speaks against a network: all but ``invariant``.
CAUSES = {
    "decay": Cause(
        lambda value: f"the gradient shrinks {_times(-value, CAPS.decay)}",
        lambda profile, signals: f"the gradient {shrinks(profile)}",
        lambda profile, signals: advice_for_small(profile, _bare(signals)),
        verdict=Verdict.VANISHING,
    ),
    "growth": Cause(
        lambda value: f"the gradient grows, which counts as {_times(value, CAPS.growth)}",
        lambda profile, signals: f"the gradient {grows(profile)}",
        lambda profile, signals: advice_for_large(profile, _bare(signals)),
        verdict=Verdict.EXPLODING,
    ),
    "forward_growth": Cause(
        lambda value: f"activations grow {_times(value, CAPS.forward_growth)}",
        _growing_activations,
        _advice_for_activations,
        verdict=Verdict.EXPLODING,
    ),
    "lost_inputs": Cause(
        _told_apart,
        lambda profile, signals: _told_apart(signals.lost_inputs),
        _advice_for_alike,
    ),
    "lost_past": Cause(
        lambda value: f"the past fades {_times(-value, CAPS.lost_past)}",
        _forgotten_past,
        _advice_for_forgotten,
        _recurrent_row,
        Verdict.VANISHING,
    ),
    "shattering": Cause(
        lambda value: f"shattering {number(value)}", _another_gradient, _advice_for_shattered
    ),
    "coherence": Cause(
        lambda value: f"after a small step another gradient (coherence {number(value)})",
        _another_gradient,
        _advice_for_shattered,
    ),
}


def because(
    cause: str, profile: GradientProfile, signals: Signals
) -> tuple[str, Advice, RowProfile]:
    """What the signal called ``cause`` says, what mends it, and the row to point at."""
    words, profile = CAUSES[cause], without_time(profile)
    return words.story(profile, signals), words.advice(profile, signals), words.place(profile)
