"""What one probe of one target leaves behind, as values: all that a verdict needs. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from gradprobe.measure.profile import GradientProfile
from gradprobe.measure.surroundings import Further
from gradprobe.numbers import all_finite
from gradprobe.spec.network import CheckSpec
from gradprobe.theory.moments import Moments

STEPS = 60  # of a trial, at one rate at most


class SecondLook(NamedTuple):
    """What two more passes tell.

    ``coherence`` is 1 - ‖g - g′‖ / (‖g‖ + ‖g′‖), with g a weight's gradient and g′ the same after
    the step: 1 where nothing changed, 0.29 where two gradients of one length are at a right angle,
    0 where one of them is gone. It is that which three weights of four reach, the lower quartile.
    ``None``: no weight has a gradient, or one is not finite. ``highways`` is Σ J_ii y_i² / Σ y_i²,
    by row name, of every row that keeps its input's shape: about 1 with a skip, else 0. It is
    tr(J)/n where all outputs are of one size; what is small behind a ReLU or SiLU counts little.
    Where channels are split, permuted or concatenated, it is over the outputs that inputs land at,
    × the share of inputs that land (see ``highways``).
    ``lost_past`` is how many decades the gradient of a recurrent layer's input loses on its way to
    the sequence's first position: in the call that loses most, 0 without recurrent layers. All
    calls of a recurrent cell are one sequence.
    ``invariant`` is the share of the weights, 0 to 1, that stand in front of a normalisation: their
    gradient is at a right angle to them (Arora, Li and Lyu 2018, arXiv 1812.03981).
    """

    coherence: float | None
    highways: Mapping[str, float]
    lost_past: float
    normalised: int | None  # least values of a channel that a BatchNorm of the batch had
    further: Further = Further()
    invariant: float = 0.0


class NoLook(NamedTuple):
    """Why there was no second look."""

    reason: str
    failed: bool = False  # the look itself: another run may get further


LEARNED = 0.1  # of the first loss, or of a constant output's: the batch is learned by heart
# Of what a constant output gets by the user's own loss: what ends above it has learned nothing.
# Chosen on 35 re-created reports: the repaired networks end below 0.96 of it, at the best rate, and
# of the broken ones those end above 0.975 whose outputs tell nothing of their inputs.
NO_BETTER = 0.97


class Outcome(StrEnum):
    """What became of a trial's steps at one rate."""

    LEARNED = "learned"
    DIVERGED = "diverged"  # or the loss stood above where it began
    SLOW = "slow"
    CUT = "cut"  # time ran out


class Course(NamedTuple):
    """The losses at one rate: ``losses[k]`` after ``k`` steps from the weights as they are."""

    optimizer: str  # SGD, whose momentum is 0.9, or Adam
    rate: float
    losses: tuple[float, ...]
    outcome: Outcome

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return max(0, len(self.losses) - 1)


def rate_of(course: Course) -> str:
    """``SGD 0.03``"""
    return f"{course.optimizer} {course.rate:g}"


class Trial(NamedTuple):
    """Whether a network learns one batch by heart, and at which rate: see ``measure.overfit``.

    The courses are in the order in which the rates were tried, which ends where one has learned.
    ``baseline`` is what the best constant output gets by the user's own loss, or that loss at first
    where no constant can be put into it; ``None``: the labels were drawn.
    """

    courses: tuple[Course, ...] = ()
    samples: int = 0
    own: bool = False  # whether loss and data are the user's
    cut: bool = False  # time ran out before every rate had its say
    reason: str | None = None  # why there are no courses
    raised: bool = False  # the model did: another run may get further
    asked: bool = False  # whether the user wanted it, and not a doubtful prediction
    baseline: float | None = None

    @property
    def learned(self) -> Course | None:
        """The course that got there."""
        return next((c for c in self.courses if c.outcome is Outcome.LEARNED), None)

    @property
    def failed(self) -> bool:
        """Whether every rate was tried, none got there, and none is on its way by the own loss."""
        return (
            bool(self.courses) and not self.cut and not self.learned and self._stuck("SGD", "Adam")
        )

    @property
    def as_constant(self) -> bool:
        """Whether it falls to what a constant output gets, which is all where no more is wanted."""
        if self.best is None or self.baseline is None:
            return False
        first, last = self.best.losses[0], self.best.losses[-1]
        return last < NO_BETTER * first and last * NO_BETTER <= self.baseline

    @property
    def only_adam(self) -> bool:
        """Whether Adam learned, and SGD is not even on its way, nor was before it left it."""
        adams = self.learned is not None and self.learned.optimizer == "Adam"
        return adams and self._stuck("SGD") and not self._was_on_its_way("SGD")

    def _was_on_its_way(self, optimizer: str) -> bool:
        """Whether it came to half of what a constant output gets, by the user's own loss."""
        lowest = (min(c.losses) for c in self.courses if c.optimizer == optimizer and c.losses)
        return self.baseline is not None and min(lowest, default=math.inf) < self.baseline / 2

    def _stuck(self, *optimizers: str) -> bool:
        """Whether none learned; by the user's own loss, whether none is better than a constant."""
        courses = [c for c in self._finite() if c.optimizer in optimizers]
        if self.baseline is None or not courses:
            return True
        lowest = min(c.losses[-1] for c in courses)
        return lowest >= NO_BETTER * min(courses[0].losses[0], self.baseline)

    @property
    def lasting(self) -> bool:
        """Whether another run would end in the same way."""
        return not self.cut and not self.raised

    @property
    def best(self) -> Course | None:
        """The course that learned, or else the one whose loss fell furthest."""
        return self.learned or min(self._finite(), key=lambda c: c.losses[-1], default=None)

    @property
    def largest(self) -> Course | None:
        """The largest rate that did not diverge, of SGD where there is one."""
        stable = (c for c in self.courses if c.outcome is not Outcome.DIVERGED and c.steps)
        return next(stable, None)

    def _finite(self) -> Iterator[Course]:
        return (c for c in self.courses if c.losses and all_finite(c.losses[-1]))


class Cure(NamedTuple):
    """One thing that may mend a network: a kind of ``verdict.advice.CURES``, and where it acts."""

    kind: str
    weights: tuple[str, ...] = ()  # full names of the parameters that it changes, or stands before
    number: float = 1.0  # a factor, a scale or a size, by kind
    of: str = ""  # the kind of layer that it is about


class TriedCure(NamedTuple):
    """What another probe said of a copy with the cure in it."""

    cure: Cure
    verdict: str
    chance: float | None  # of training, under the better of SGD and Adam
    rules: tuple[str, ...]  # the codes of what is still found, notes aside


class Measurement(NamedTuple):
    """One probe of one target, with what is needed to judge it without reading the target again."""

    profile: GradientProfile
    name: str | None  # what the network is called
    check: CheckSpec  # the spec's own section
    config: Mapping[str, bool | int | float | str | None]  # what the probe was told, resolved
    look: SecondLook | None = None  # on request
    no_look: NoLook | None = None  # why there is none, where it was asked for
    moments: Moments | None = None  # of the given batch, where theory was asked for
    trial: Trial | None = None  # on request
    cures: tuple[TriedCure, ...] = ()  # of a Python model with a second look


class Step(NamedTuple):
    """A step of an optimizer in a program that trains."""

    number: int  # of the optimizer's steps, from 1 on
    optimizer: int  # in the order in which they were made, from 0 on
    kind: str  # the optimizer's class
    backwards: int  # backward passes since the step before: micro-batches, of which the last counts
    others: tuple[str, ...] = ()  # classes of what else the optimizer trains
    scale: float | None = None  # of a GradScaler; a measurement is without it
