"""A subject → whether it learns one batch by heart, the check that practitioners make first.

The loss is the user's own where it has labels. Else each sample's whole output is mapped to ten
logits by a fixed random matrix, and cross entropy compares them with labels drawn at random. The
rates are tried from large to small, each from the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradprobe.errors import ModelError
from gradprobe.measure.checkpoints import without_reentrant
from gradprobe.measure.eager import eager
from gradprobe.measure.measurement import LEARNED, STEPS, Course, Outcome, Trial
from gradprobe.measure.passes import failed, scalar
from gradprobe.measure.undisturbed import enough_threads, undisturbed
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
CLASSES = 10

_ON_ITS_WAY = LEARNED ** (SOUNDING / STEPS)  # of the first loss: at this pace it gets there
_MOVED = 0.99  # of the first loss: a rate above it after the sounding does nothing
_SECOND_CHANCES = 2  # rates of one optimizer that are taken up again
_DIVERGED = 10.0  # times the first loss
_ENOUGH = 8  # samples, of which nobody gets nine in ten right by chance
_BLOCK = 2**16  # columns of the random matrix, which is used again for longer outputs
_MEMORY = 4  # times the weights: a copy, the gradient and Adam's two averages
_MOMENTUM, _BETAS, _EPS = 0.9, (0.9, 0.999), 1e-8


def overfit(subject: Subject, seconds: float | None = None) -> Trial:
    """Train on one batch at each rate until one learns it; the subject is left as it was.

    Learned is what has a tenth of its first loss, or nine labels of ten right. Each rate gets ten
    steps; it goes on to sixty if it is on its way, and the two best of the others do if none got
    there. Twice the same subject gives twice the same trial, unless time cuts it.

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
    with undisturbed(model), enough_threads(subject), _training(own), eager():
        try:
            samples = _Samples.of(subject)
            runner = _Runner(subject, _objective(subject, samples), own, deadline)
            courses, cut = _search(runner)
        except _NoBarError as error:
            return Trial(reason=str(error))
        except Exception as error:
            raise failed(error) from error
    theirs = subject.own_loss and not subject.drawn
    return Trial(courses=courses, samples=samples.number, own=theirs, cut=cut)


class _NoBarError(Exception):
    """A loss of which no share says that the batch is learned."""


@contextmanager
def _training(own: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
    """Copies stand in for the weights meanwhile, so that these are never written."""
    try:
        with torch.inference_mode(False), torch.enable_grad(), without_reentrant():
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
    alike = all(t.dim() and len(t) == size for t in tensors) and not _time_first(subject.model)
    if not subject.drawn or not alike or size <= SAMPLES:
        return subject
    args, kwargs = map_tensors(lambda t: t[:SAMPLES], (subject.args, dict(subject.kwargs)))
    return replace(subject, args=args, kwargs=kwargs)


def _time_first(model: nn.Module) -> bool:
    return any(getattr(module, "batch_first", True) is False for module in model.modules())


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
        for course in _promising(tried):
            again = run(optimizer, course.rate, patient=True)
            tried[tried.index(course)] = again
            if _ends(again):
                return (*courses, *tried), again.outcome is Outcome.CUT
        courses += tried
    return tuple(courses), False


def _ends(course: Course) -> bool:
    return course.outcome in (Outcome.LEARNED, Outcome.CUT)


def _promising(courses: Sequence[Course]) -> list[Course]:
    """Those that stopped after the sounding and had moved, the furthest first."""
    slow = [c for c in courses if c.outcome is Outcome.SLOW and c.steps < STEPS]
    moved = [c for c in slow if c.losses[-1] < _MOVED * c.losses[0]]
    return sorted(moved, key=lambda c: c.losses[-1])[:_SECOND_CHANCES]


class _Runner(NamedTuple):
    """Runs a rate from the subject's own weights, buffers and random state."""

    subject: Subject
    objective: _Objective
    own: Mapping[nn.Parameter, Tensor]
    deadline: float  # on the monotonic clock

    def __call__(self, optimizer: str, rate: float, patient: bool = False) -> Course:
        for parameter, values in self.own.items():
            parameter.data.copy_(values)
        weights = list(self.own)
        step = _OPTIMIZERS[optimizer](weights, rate)
        losses: list[float] = []
        with undisturbed(self.subject.model):
            reseed_all(derive(self.subject.seed, "forward"))
            while True:
                loss, right = self._pass()
                losses.append(loss.item())
                outcome = self._outcome(losses, right, patient)
                if outcome is not None:
                    return Course(optimizer, rate, tuple(losses), outcome)
                gradients = _gradients(loss, weights)
                del loss
                with torch.no_grad():
                    step(gradients)

    def _pass(self) -> tuple[Tensor, float]:
        args, kwargs = fresh((self.subject.args, dict(self.subject.kwargs)))
        return self.objective(self.subject.model(*args, **kwargs))

    def _outcome(self, losses: list[float], right: float, patient: bool) -> Outcome | None:
        """What became of the steps so far; ``None``: they go on."""
        first, last, steps = losses[0], losses[-1], len(losses) - 1
        if first <= 0:
            raise _NoBarError(f"the loss is {first:.3g} at first: no share of it says enough")
        if steps and (last < LEARNED * first or right >= KNOWN):
            return Outcome.LEARNED
        if not last < _DIVERGED * first:  # neither does a loss that is not finite
            return Outcome.DIVERGED
        over = steps == STEPS
        if steps == SOUNDING and not patient:
            over = min(losses[-3:]) > _ON_ITS_WAY * first
        if over:
            return Outcome.SLOW if last < 2 * first else Outcome.DIVERGED
        return Outcome.CUT if time.monotonic() >= self.deadline else None


# ---- the optimizers, which leave .grad alone


def _gradients(loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor | None]:
    """``None`` for a weight that no path leads to."""
    if not loss.requires_grad:
        return [None] * len(weights)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return [g.to_dense() if g is not None and g.is_sparse else g for g in gradients]


Step = Callable[[Sequence[Tensor | None]], None]


def _sgd(weights: Sequence[Tensor], rate: float) -> Step:
    """Gradient descent with momentum: v ← 0.9 v + g, w ← w - rate · v."""
    speeds: dict[int, Tensor] = {}

    def step(gradients: Sequence[Tensor | None]) -> None:
        present = {i: g for i, g in enumerate(gradients) if g is not None}
        new = {i: torch.zeros_like(g) for i, g in present.items() if i not in speeds}
        speeds.update(new)
        moving = [speeds[i] for i in present]
        if moving:
            torch._foreach_mul_(moving, _MOMENTUM)
            torch._foreach_add_(moving, list(present.values()))
            torch._foreach_add_([weights[i].data for i in present], moving, alpha=-rate)

    return step


def _adam(weights: Sequence[Tensor], rate: float) -> Step:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980) with its usual β of 0.9 and 0.999."""
    averages: dict[int, tuple[Tensor, Tensor]] = {}
    count = 0
    first, second = _BETAS

    def step(gradients: Sequence[Tensor | None]) -> None:
        nonlocal count
        count += 1
        for i, gradient in enumerate(gradients):
            if gradient is None:
                continue
            weight, g = _real(weights[i].data), _real(gradient)
            if i not in averages:
                averages[i] = torch.zeros_like(weight), torch.zeros_like(weight)
            mean, square = averages[i]
            mean.lerp_(g, 1 - first)
            square.mul_(second).addcmul_(g, g, value=1 - second)
            size = (square / (1 - second**count)).sqrt_().add_(_EPS)
            weight.addcdiv_(mean, size, value=-rate / (1 - first**count))

    return step


def _real(values: Tensor) -> Tensor:
    return torch.view_as_real(values) if values.is_complex() else values


_OPTIMIZERS: Mapping[str, Callable[[Sequence[Tensor], float], Step]] = {"SGD": _sgd, "Adam": _adam}


# ---- the loss

# From what the model gives to the loss and the share of the labels that is right.
_Objective = Callable[[Any], tuple[Tensor, float]]


def _objective(subject: Subject, samples: _Samples) -> _Objective:
    """The user's own loss, or that of labels which are drawn for the samples."""
    if subject.own_loss:
        return lambda output: (scalar(subject.loss(output)), 0.0)
    drawn = _DrawnLabels(subject.seed, samples)

    def of(output: Any) -> tuple[Tensor, float]:
        main = subject.main(output)
        if main is None:
            raise ModelError("the model's output holds no floating point tensor")
        if not main.dim():  # a module that gives its loss itself
            return main, 0.0
        return drawn(main)

    return of


class _Samples(NamedTuple):
    """How many samples there are, along which axis, and which of them are the same."""

    number: int
    axis: int
    kinds: Tensor  # of each sample, from 0 on: samples of one kind are equal

    @classmethod
    def of(cls, subject: Subject) -> _Samples:
        tensors = [t for t in tensors_in([subject.args, dict(subject.kwargs)]) if t.dim()]
        axis = 1 if tensors and tensors[0].dim() > 1 and _time_first(subject.model) else 0
        number = tensors[0].shape[axis] if tensors else 1
        of_samples = [t for t in tensors if t.shape[axis : axis + 1] == (number,)]
        flat = [t.detach().movedim(axis, 0).reshape(number, -1) for t in of_samples if t.numel()]
        if not flat:
            return cls(number, axis, torch.zeros(number, dtype=torch.long))
        rows = torch.cat([_real(t.cpu()).flatten(1).double() for t in flat], 1)
        return cls(number, axis, torch.unique(rows, dim=0, return_inverse=True)[1])

    def flat(self, output: Tensor) -> Tensor:
        """What belongs to each sample, as one row: (samples, numbers)."""
        output = output[:, None] if output.dim() == 1 else output
        axes = [axis for axis in (self.axis, 0, 1) if output.shape[axis] == self.number]
        return output.movedim(axes[0] if axes else 0, 0).flatten(1)


class _DrawnLabels:
    """Cross entropy of ten logits against labels drawn at random; equal samples get one label.

    The logits are a random linear map of a sample's whole output, so scaled that their RMS is about
    1 at first. Of fewer than ten numbers there are as many logits as numbers, but two at least.
    """

    def __init__(self, seed: int, samples: _Samples) -> None:
        self.generator = torch.Generator().manual_seed(derive(seed, "overfit"))
        self.samples = samples
        self.drawn: tuple[Tensor, Tensor] | None = None

    def __call__(self, output: Tensor) -> tuple[Tensor, float]:
        flat = self.samples.flat(output)
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        if self.drawn is None:
            self.drawn = self._draw(flat.detach())
        matrix, labels = self.drawn
        logits = flat.new_zeros(len(flat), matrix.shape[1])
        for block in torch.split(flat, _BLOCK, 1):
            logits = logits + block @ matrix[: block.shape[1]]
        right = float((logits.argmax(1) == labels).double().mean())
        return F.cross_entropy(logits, labels), right if len(labels) >= _ENOUGH else 0.0

    def _draw(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        count, size = flat.shape
        classes = max(2, min(CLASSES, size))
        kinds = self.samples.kinds if count == self.samples.number else torch.arange(count)
        order = torch.randperm(int(kinds.max()) + 1, generator=self.generator)
        matrix = torch.randn(min(size, _BLOCK), classes, generator=self.generator)
        matrix -= matrix.mean(1, keepdim=True)
        matrix /= matrix.square().mean(1, keepdim=True).sqrt()
        rms = float(flat.square().mean().sqrt())
        scale = math.sqrt(size) * (rms if rms and math.isfinite(rms) else 1.0)
        return matrix.to(flat) / scale, (order[kinds] % classes).to(flat.device)
