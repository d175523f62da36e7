"""A subject → whether it learns one batch by heart, the check that practitioners make first.

The loss is the user's own where it has labels. Else each sample's whole output is mapped to ten
logits by a fixed random matrix, and cross entropy compares them with labels drawn at random. The
rates are tried from large to small, each from the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradprobe.measure.checkpoints import keeping_graph
from gradprobe.measure.measurement import LEARNED, NO_BETTER, STEPS, Course, Outcome, Trial
from gradprobe.measure.norms import norms
from gradprobe.measure.objective import Objective, Samples, objective, of_constant, time_first
from gradprobe.measure.optimizers import OPTIMIZERS, gradients_of
from gradprobe.measure.passes import failed, scalar
from gradprobe.measure.progress import Step, tell
from gradprobe.measure.undisturbed import alone, undisturbed
from gradprobe.model.seeds import derive, reseed_all
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import fresh, map_tensors, tensors_in

RATES: Mapping[str, Sequence[float]] = {
    "SGD": (0.1, 0.03, 0.01, 0.003, 0.001),
    "Adam": (1e-2, 1e-3),
}
SAMPLES = 16  # of a batch that is drawn
SOUNDING = 10  # steps after which a rate goes on only if it is on its way
KNOWN = 0.9  # share of the labels that are right, which is as good

# Steps of Adam, where no rate came below what a constant output gets by the user's own loss: a
# codebook of which one code is taken at first needed 70, and a decoder with attention 100.
AT_LENGTH = 4 * STEPS
_PACE = SOUNDING / STEPS  # of the way to the bar, in logarithms, is done after the sounding
_MOVED = 0.99  # of the first loss of drawn labels: above it after the sounding, a rate does nothing
_SECOND_CHANCES = 2  # rates of one optimizer that are taken up again
# Of all rates, each with the look at its outcome.
MOST_STEPS = sum(
    len(rates) * (SOUNDING + 1) + _SECOND_CHANCES * (STEPS + 1) for rates in RATES.values()
)
_SHOT = 5  # steps in which Adam, whose first ones are large whatever the gradient, may overshoot
_DIVERGED = 10.0  # times the first loss
_CONSTANT_DOES = 1e-3  # of the first loss: a constant output with less knows the batch itself
# The least share of a loss that float32 holds well as its change; and of a change, what is none.
_SEEN, _STAYS = 1e-4, 1e-6
_MEMORY = 4  # times the weights: a copy, the gradient and Adam's two averages


def overfit(subject: Subject, seconds: float | None = None) -> Trial:
    """Train on one batch at each rate until one learns it; the subject is left as it was.

    Learned is what has a tenth of its first loss, or nine labels of ten right; by the user's own
    loss, what has a tenth of what the best constant output gets. Each rate gets ten steps; it goes
    on to sixty if it is on its way, and the two best of the others do if none got there, so that
    there are 310 steps at most. Before it fails by the user's own loss, Adam has 240 at each of its
    rates to come below a constant output. Twice the same subject gives twice the same trial, unless
    time cuts it.

    Args:
        seconds: after which no further step is taken; ``None``: there is no bound.

    Raises:
        InputError: the loss is no scalar.
        ModelError: a forward or backward pass raised.
    """
    model = subject.model
    weights = [p for p in model.parameters() if p.requires_grad]
    if _MEMORY * sum(p.numel() * p.element_size() for p in weights) > subject.memory:
        return Trial(reason="a trial would need more memory than --max-memory allows")
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    subject = _cut(subject)
    own = {p: p.data for p in weights}
    with alone(subject), undisturbed(model), _training(own):
        try:
            samples = Samples.of(subject)
            baseline = _baseline(subject, samples) if subject.own_loss else None
            runner = _Runner(
                subject, objective(subject, samples), own, baseline, deadline, count(1)
            )
            courses, cut = _search(runner)
            if baseline is not None and Trial(courses, cut=cut, baseline=baseline).failed:
                courses, cut = _at_length(runner, courses)
        except _NoBarError as error:
            return Trial(reason=str(error))
        except Exception as error:
            raise failed(error) from error
    theirs = subject.own_loss and not subject.drawn
    return Trial(courses, samples.number, own=theirs, cut=cut, baseline=baseline)


class _NoBarError(Exception):
    """A loss of which no share says that the batch is learned."""


@contextmanager
def _training(own: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
    """Copies stand in for the weights meanwhile, so that these are never written."""
    try:
        with keeping_graph():
            for parameter, values in own.items():
                parameter.data = values.clone()
            yield
    finally:
        for parameter, values in own.items():
            parameter.data = values


def _cut(subject: Subject) -> Subject:
    """The first samples of a batch that was drawn, where its tensors agree on their number."""
    tensors = list(tensors_in([subject.args, dict(subject.kwargs)]))
    size = len(tensors[0]) if tensors and tensors[0].dim() else 0
    alike = all(t.dim() and len(t) == size for t in tensors) and not time_first(subject.model)
    if not subject.drawn or not alike or size <= SAMPLES:
        return subject
    args, kwargs = map_tensors(lambda t: t[:SAMPLES], (subject.args, dict(subject.kwargs)))
    return replace(subject, args=args, kwargs=kwargs)


def _baseline(subject: Subject, samples: Samples) -> float | None:
    """What the best constant output gets by the user's own loss, or else what the model does."""
    with undisturbed(subject.model), torch.no_grad():
        reseed_all(derive(subject.seed, "forward"))
        args, kwargs = fresh((subject.args, dict(subject.kwargs)))
        output = subject.model(*args, **kwargs)
        first = scalar(subject.loss(output)).item()
    constant = of_constant(subject, samples, output)
    if constant is not None and constant > _CONSTANT_DOES * first:
        return constant
    return first if math.isfinite(first) else None


# ---- the rates


def _search(run: _Runner) -> tuple[tuple[Course, ...], bool]:
    """The courses, and whether time cut them short."""
    courses: list[Course] = []
    for optimizer, rates in RATES.items():
        tried: list[Course] = []
        for rate in rates:
            tried.append(run(optimizer, rate))
            if _ends(tried[-1]):
                return (*courses, *tried), tried[-1].outcome is Outcome.CUT
        for course in _promising(tried, 1.0 if run.baseline else _MOVED):
            again = run(optimizer, course.rate, patient=True)
            tried[tried.index(course)] = again
            if _ends(again):
                return (*courses, *tried), again.outcome is Outcome.CUT
        courses += tried
    return tuple(courses), False


def _at_length(run: _Runner, courses: Sequence[Course]) -> tuple[tuple[Course, ...], bool]:
    """The courses, those of Adam once more and longer until one is better than a constant output.

    Some begin with a plateau: of a codebook one code is taken at first, and an attention that looks
    at everything alike has yet to find its place.
    """
    longer = list(courses)
    for place, course in enumerate(courses):
        if course.optimizer == "Adam":
            longer[place] = run("Adam", course.rate, patient=True, most=AT_LENGTH)
            cut = longer[place].outcome is Outcome.CUT
            if cut or not Trial(tuple(longer), baseline=run.baseline).failed:
                return tuple(longer), cut
    return tuple(longer), False


def _ends(course: Course) -> bool:
    return course.outcome in (Outcome.LEARNED, Outcome.CUT)


def _promising(courses: Sequence[Course], moved: float) -> list[Course]:
    """Those that stopped after the sounding and had moved, the furthest first."""
    sounded = [c for c in courses if c.steps == SOUNDING and _falls(c.losses, moved)]
    return sorted(sounded, key=lambda c: c.losses[-1])[:_SECOND_CHANCES]


def _falls(losses: Sequence[float], moved: float) -> bool:
    """Whether the loss is below where it began, or coming down again from far above it."""
    return losses[-1] < moved * losses[0] or losses[-1] < max(losses) / 2


class _Runner(NamedTuple):
    """Runs a rate from the subject's own weights, buffers and random state."""

    subject: Subject
    objective: Objective
    own: Mapping[nn.Parameter, Tensor]
    baseline: float | None  # as the trial's
    deadline: float  # on the monotonic clock
    taken: Iterator[int]  # how many steps with the next one

    @property
    def most(self) -> int:
        """How many steps there may be."""
        longer = 0 if self.baseline is None else len(RATES["Adam"]) * (AT_LENGTH + 1)
        return MOST_STEPS + longer

    def __call__(
        self, optimizer: str, rate: float, patient: bool = False, most: int = STEPS
    ) -> Course:
        for parameter, values in self.own.items():
            parameter.data.copy_(values)
        weights = list(self.own)
        step = OPTIMIZERS[optimizer](weights, rate)
        losses: list[float] = []
        foretold = 0.0  # how much lower the gradient says that the second loss is
        with undisturbed(self.subject.model):
            reseed_all(derive(self.subject.seed, "forward"))
            while True:
                tell(Step(next(self.taken), self.most, unit="step"))
                loss, right = self._pass()
                losses.append(loss.item())
                if len(losses) > SOUNDING and max(losses) - min(losses) < _STAYS * foretold:
                    raise _NoBarError("the loss stays as it is, whatever its gradient does")
                outcome = self._outcome(losses, right, patient, most)
                if outcome is not None:
                    return Course(optimizer, rate, tuple(losses), outcome)
                gradients = gradients_of(loss, weights)
                del loss
                if len(losses) == 1:
                    fall = rate * math.hypot(*norms([g for g in gradients if g is not None])) ** 2
                    foretold = fall if fall > _SEEN * losses[0] else 0.0
                with torch.no_grad():
                    step(gradients)

    def _pass(self) -> tuple[Tensor, float]:
        args, kwargs = fresh((self.subject.args, dict(self.subject.kwargs)))
        return self.objective(self.subject.model(*args, **kwargs))

    def _outcome(
        self, losses: list[float], right: float, patient: bool, most: int
    ) -> Outcome | None:
        """What became of the steps so far; ``None``: they go on."""
        first, last, steps = losses[0], losses[-1], len(losses) - 1
        if first <= 0:
            raise _NoBarError(f"the loss is {first:.3g} at first: no share of it says enough")
        bar = LEARNED * (first if self.baseline is None else self.baseline)
        if steps and (last < bar or right >= KNOWN):
            return Outcome.LEARNED
        shot = most == STEPS and steps >= _SHOT and last >= max(_DIVERGED * first, *losses)
        if shot or not math.isfinite(last):
            return Outcome.DIVERGED
        over = steps == most or (steps > STEPS and last < NO_BETTER * min(first, bar / LEARNED))
        if steps == SOUNDING and not patient:
            over = min(losses[-3:]) > first * (bar / first) ** _PACE
        if over:
            return Outcome.SLOW if last < 2 * first else Outcome.DIVERGED
        return Outcome.CUT if time.monotonic() >= self.deadline else None
