"""Everything measured in one probe, as values: no torch, no tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from gradprobe.measure.blocks.profile import JacobianProfile
from gradprobe.measure.surroundings import NOTHING, UNKNOWN, Further, Surroundings
from gradprobe.measure.towers import towers, trunk_of
from gradprobe.spec.network import A_SPEC, Idiom
from gradprobe.theory.moments import RowPrediction

_SMALL = 0.1  # RMS of an output below which a first row is small: torch's inits stay above it
_ROUNDING = 1e-3  # of a factor, in low precision


class RowStatus(StrEnum):
    """Why a row's numbers are, or are not, there."""

    OK = "ok"
    NO_GRADIENT = "no-gradient"  # it ran, and autograd found no path from the loss to its output
    NO_TENSOR = "no-tensor"  # it ran, and its output held no floating tensor
    NOT_RUN = "not-run"  # the forward pass never called it
    NON_FINITE = "non-finite"  # NaN or infinity in its output or in its gradient
    IDLE = "idle"  # it ran, and the loss has a use for others of its list alone in this batch


_SILENT = (RowStatus.NOT_RUN, RowStatus.IDLE)


class Use(StrEnum):
    """Whether the forward pass called the module that holds a parameter."""

    CALLED = "called"
    UNCALLED = "uncalled"
    IDLE = "idle"  # it did not, and called others of the same class in the same list


class ParameterProfile(NamedTuple):
    """One parameter tensor.

    ``gradient_norm`` is ``None`` where autograd found no path, which is not the same as 0.
    ``before_norm``: a bias whose layer feeds a normalisation that subtracts it again.
    """

    name: str
    size: int
    dimensions: int
    norm: float
    gradient_norm: float | None
    trainable: bool = True
    before_norm: bool = False
    use: Use = Use.CALLED
    low: float | None = None  # its least and its largest element, of a weight that is trained
    high: float | None = None
    unread: str = ""  # the output that it feeds, where it feeds one that the loss leaves out

    @property
    def wakes_up(self) -> bool:
        """Whether it is a weight that is zero now and will not be after one step."""
        return self.norm == 0 and bool(self.gradient_norm) and not self.is_bias

    @property
    def is_bias(self) -> bool:
        """Whether it is called so, by torch's layers and most others."""
        return "bias" in self.name.rpartition(".")[2]


def call_name(module: str, call: int) -> str:
    """The name of the row that stands for one call of a module: ``cell``, ``cell (2)``, …"""
    return module if call == 1 else f"{module} ({call})"


class AttentionProfile(NamedTuple):
    """Of a row with attention: see ``measure.attention``."""

    entropy: float | None  # of a query's weights ÷ that of equal ones: 0 to 1
    similarity: float | None  # cosine of two tokens of a sample that the row puts out


class PrecisionProfile(NamedTuple):
    """Which share of a row's gradient entries, where not 0, lies below a dtype's smallest number.

    ``scale`` is the least power of two to multiply the loss by so that float16 holds all but a
    thousandth of them; ``None``: the largest would overflow.
    """

    float16: float
    bfloat16: float
    float8: float  # e5m2
    scale: float | None
    ceiling: float  # the largest power of two with which none overflows
    entries: int  # that are not 0


class RowProfile(NamedTuple):
    """One row: a top-level layer, an iteration of a repeat, or (``level`` > 0) a leaf inside one.

    Norms are 2-norms over the whole batch, accumulated so that nothing under- or overflows.
    """

    name: str
    kind: str
    level: int
    line: int | None
    status: RowStatus
    size: int = 0  # number of parameters
    gradient_norm: float | None = None  # of the loss with respect to the row's output
    activation_rms: float | None = None
    input_dependence: float | None = None  # variance across the batch / mean square, in [0, 1]
    zero_fraction: float | None = None  # of the output's elements that are exactly 0
    # RMS of the output's elements, each weighted by its squared gradient; of a first row alone.
    weighted_rms: float | None = None
    parameters: tuple[ParameterProfile, ...] = ()
    contains: tuple[str, ...] = ()  # the kinds of layer inside, itself included
    jacobian: JacobianProfile | None = None  # measured on request, where the shape is kept
    attention: AttentionProfile | None = None  # measured on request, where there is attention
    precision: PrecisionProfile | None = None  # measured on request, and in float16
    column: int | None = None  # beside ``line``, both from 1
    theory: RowPrediction | None = None  # predicted on request
    call: int = 1  # which call of its module; the name shows it from the second on
    # The rows whose outputs it reads, "" for the inputs; ``None`` where that is not known.
    feeders: tuple[str, ...] | None = None
    # Whether an argument is new to its module and follows from no earlier call of it.
    new_input: bool = False

    @property
    def module(self) -> str:
        """Path of the module: the name without the number of a further call."""
        return self.name.removesuffix(f" ({self.call})") if self.call > 1 else self.name

    @property
    def is_average(self) -> bool:
        """Whether it is an average pool and nothing else."""
        return not self.parameters and any("AvgPool" in kind for kind in self.contains)

    @property
    def weight_norm(self) -> float | None:
        """2-norm of the row's own parameters, all of them together."""
        return math.hypot(*(p.norm for p in self.parameters)) if self.parameters else None

    @property
    def weight_gradient_norm(self) -> float | None:
        """2-norm of the gradient of the row's own parameters."""
        norms = [p.gradient_norm for p in self.parameters if p.gradient_norm is not None]
        return math.hypot(*norms) if norms else None


@dataclass(frozen=True)
class GradientProfile:
    """Everything measured in one probe: immutable, no tensors."""

    rows: tuple[RowProfile, ...]
    parameters: int  # of the whole model, shared ones counted once
    loss: float
    smallest_gradient: float  # the smallest positive number of the dtype that gradients flow in
    orphans: tuple[ParameterProfile, ...] = ()  # parameters that belong to no row
    input_finite: bool = True  # no NaN and no infinity in what went in
    # Rows and weights whose gradient is exactly zero, also in other batches, at other draws and
    # after a small step; ``None`` where none is zero, or the model cannot be run again.
    still_zero: tuple[str, ...] | None = None
    not_read: tuple[str, ...] = ()  # those that the loss does not depend on, whatever their weights
    redrawn: tuple[str, ...] = ()  # weights at or near zero, set anew to see behind them
    near_zero: tuple[str, ...] = ()  # those of them that were not zero
    around: Surroundings = UNKNOWN
    further: Further = NOTHING  # of a second look
    cut_checkpoint: bool = False  # a reentrant checkpoint got no input that requires a gradient
    idiom: Idiom = A_SPEC
    unit: str = "row"  # what one row stands for: a layer, or a position of a sequence

    @property
    def is_half(self) -> bool:
        """Whether gradients flow in float16: its smallest normal number is 6e-5, others' 1e-38."""
        return 1e-6 < self.smallest_gradient < 1e-3

    @cached_property
    def ran(self) -> tuple[RowProfile, ...]:
        """The rows of level 0 that the forward pass called and that are not idle."""
        return tuple(r for r in self.rows if r.level == 0 and r.status not in _SILENT)

    @cached_property
    def trunk(self) -> tuple[RowProfile, ...]:
        """From the first row that holds weights to the one that feeds the last that holds weights.

        Of the largest tower; with fewer than three weight-bearing rows: all of its rows that ran.
        """
        return trunk_of(self._towers[0]) if self._towers else ()

    @cached_property
    def _towers(self) -> list[tuple[RowProfile, ...]]:
        return towers(_in_training(self.ran))

    @cached_property
    def parts(self) -> tuple[GradientProfile, ...]:
        """The towers that can have a reach, as profiles of their own rows; itself, of one."""
        several = [rows for rows in self._towers if sum(bool(row.parameters) for row in rows) > 1]
        if len(several) < 2:
            return (self,)
        return tuple(replace(self, rows=rows) for rows in several)

    @property
    def reach(self) -> float | None:
        """Gradient norm of the trunk's first row / that of its last; ``None`` where undefined."""
        return self.reach_of(self.trunk[0]) if self.trunk else None

    @property
    def growth(self) -> float | None:
        """The reach, without what a first row of small numbers adds to it.

        A normalisation N has N(c·x) = N(x), so that its gradient at c·x is that at x ÷ c: an
        embedding of ±1e-4 has 1e4 times what arrives behind the norm, and takes steps of the same
        share of its size. What no scale changes is ‖g ⊙ x‖, the gradient g times the output x,
        element by element: ‖g‖ times the RMS of x where g is (a class token of zeros has all of
        the gradient, and few of the elements). Above an RMS of 0.1 nothing is taken off, so that
        activations that grow on their way up are not excused.
        """
        if self.reach is None:
            return None
        first = self.trunk[0]
        rms = first.activation_rms if first.weighted_rms is None else first.weighted_rms
        return self.reach * (1.0 if rms is None else min(1.0, rms / _SMALL))

    @cached_property
    def pooled(self) -> float:
        """The part of the reach that is average pools' own: 1/√(h·w) of each, and no loss.

        The same gradient is spread over h·w positions, and their weights see the sum of it.
        """
        return math.prod(
            factor
            for row in self.trunk[1:]
            if row.is_average and (factor := self.factors.get(row.name)) and factor < 1
        )

    @property
    def unpooled_reach(self) -> float | None:
        """The reach without what average pools spread out."""
        return None if self.reach is None else self.reach / self.pooled

    def reach_of(self, row: RowProfile) -> float | None:
        """Gradient norm of ``row`` / gradient norm of the last row of its tower's trunk."""
        own = [rows for rows in self._towers[1:] if row in rows] if len(self.parts) > 1 else []
        trunk = trunk_of(own[0]) if own else self.trunk
        return _ratio(row.gradient_norm, trunk[-1].gradient_norm) if trunk else None

    @property
    def steps(self) -> int:
        """Rows that the gradient crosses between the two ends of the trunk."""
        return max(0, len(self.trunk) - 1)

    @property
    def decay(self) -> float | None:
        """reach ** (1 / steps): the factor per row, going back."""
        reach, steps = self.reach, self.steps
        if reach is None or not math.isfinite(reach) or steps == 0:
            return None
        return float(reach ** (1 / steps))

    @cached_property
    def factors(self) -> Mapping[str, float | None]:
        """By row: ‖∂L/∂(input)‖ / ‖∂L/∂(output)‖, the factor across it. The first row has none."""
        return {
            row.name: _ratio(before.gradient_norm, row.gradient_norm)
            for before, row in pairwise(self.ran)
        }

    @property
    def predicted_reach(self) -> float | None:
        """The reach by mean-field theory; ``None`` where a row of the trunk has no prediction."""
        factors = self._predicted
        return None if factors is None else math.prod(factors)

    @property
    def predicted_decay(self) -> float | None:
        """predicted_reach ** (1 / steps), by logarithms: over many rows the product underflows."""
        factors = self._predicted
        if not factors or not min(factors):
            return 0.0 if factors else None
        return math.exp(math.fsum(map(math.log, factors)) / len(factors))

    @property
    def _predicted(self) -> list[float] | None:
        factors = [row.theory.factor if row.theory else None for row in self.trunk[1:]]
        present = [factor for factor in factors if factor is not None]
        return present if self.trunk and len(present) == len(factors) else None

    @property
    def predicted_deviation(self) -> float:
        """Standard deviation of ln(reach) around theory's: that of the rows, which add up."""
        return math.hypot(*(row.theory.deviation for row in self.trunk[1:] if row.theory))

    def disagreement(self, row: RowProfile | None = None) -> tuple[float, float] | None:
        """How far measurement and theory are apart, where finite width does not explain it.

        Of one row's factor, or of the reach. Returns the factor between the two and the largest
        that finite width allows, both above 1: three standard deviations s of the logarithm (four
        for one row, of which there are many), and s² by which a logarithm's mean lies below the
        logarithm of the mean. ``None`` where they agree or cannot be compared.
        """
        if row is None:
            measured, predicted = self.reach, self.predicted_reach
            deviation, times = self.predicted_deviation, 3
        else:
            measured, predicted = self.factors.get(row.name), row.theory and row.theory.factor
            deviation, times = row.theory.deviation if row.theory else 0.0, 4
        if not measured or not predicted or not math.isfinite(measured):
            return None
        apart = abs(math.log(measured) - math.log(predicted))
        allowed = times * deviation + deviation**2 + _ROUNDING
        return (math.exp(min(apart, 700)), math.exp(min(allowed, 700))) if apart > allowed else None

    @property
    def half_life(self) -> float | None:
        """Rows over which the gradient halves (positive) or doubles (negative)."""
        decay = self.decay
        if not decay or decay == 1 or self.steps < 2:
            return None
        return -math.log(2) / math.log(decay)


def _in_training(rows: Sequence[RowProfile]) -> Sequence[RowProfile]:
    """The rows without a frozen backbone in front of what is trained, and without a frozen judge.

    No gradient is needed there, nor at a call whose result is only a value, as of a first pass in
    ``no_grad``, where the module has another call that gets one. Where no row is trained, but
    perhaps a prompt in front of them, the rows that get one are left.
    """
    kept, trains = [], False
    reached = {row.module for row in rows if row.status is not RowStatus.NO_GRADIENT}
    for row in rows:
        trainable = any(p.trainable for p in row.parameters)
        lost = row.status is RowStatus.NO_GRADIENT
        if lost and row.module in reached:
            continue
        trains |= trainable
        if trainable or not (lost or row.parameters) or (trains and not (lost and row.parameters)):
            kept.append(row)
    return kept if trains else [row for row in rows if row.module in reached] or rows


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return None if numerator is None or not denominator else numerator / denominator
