"""A trial learns what can be learned, says which rates diverge, and leaves its subject alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from helpers.unchanged import everything, unchanged
from torch import Tensor, nn

import gradprobe
from gradprobe.measure import objective
from gradprobe.measure import overfit as overfitting
from gradprobe.measure.measurement import NO_BETTER, Course, Outcome
from gradprobe.measure.optimizers import adam
from gradprobe.measure.overfit import (
    AT_LENGTH,
    LEARNED,
    RATES,
    SAMPLES,
    SOUNDING,
    STEPS,
    overfit,
)
from gradprobe.model.make import make, module_subject
from gradprobe.spec.options import Limits, ProbeOptions
from gradprobe.spec.sources.yaml import parse_any


class Scalar(nn.Module):
    """y = w x, with the loss h / 2 · w²: gradient descent on it is known in closed form."""

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([value], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x


def bowl(curvature: float) -> Callable[[Tensor], Tensor]:
    return lambda output: curvature / 2 * output.square().sum()


X = torch.ones(1, dtype=torch.float64)


def courses(trial: Any) -> dict[tuple[str, float], Course]:
    return {(course.optimizer, course.rate): course for course in trial.courses}


# ---- gradient descent on a parabola


def descent(rate: float, curvature: float, steps: int) -> list[float]:
    """The losses of w ← w - rate · v, v ← 0.9 v + curvature · w from w = 1."""
    w, v, losses = 1.0, 0.0, []
    for _ in range(steps + 1):
        losses.append(curvature / 2 * w * w)
        v = 0.9 * v + curvature * w
        w -= rate * v
    return losses


@pytest.mark.parametrize("curvature", [1.0, 3.0, 20.0])
def test_the_losses_are_those_of_gradient_descent_with_momentum(curvature: float) -> None:
    trial = overfit(module_subject(Scalar(), X, bowl(curvature)))
    assert trial.own
    course = trial.courses[0]
    assert (course.optimizer, course.rate) == ("SGD", 0.1)
    assert course.losses == pytest.approx(descent(0.1, curvature, course.steps), rel=1e-9)
    assert course.outcome is Outcome.LEARNED
    assert course.losses[-1] < LEARNED * course.losses[0] <= min(course.losses[:-1])


def test_adam_is_torchs_adam() -> None:
    model, reference = Scalar(), Scalar()
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-3)
    step = adam(list(model.parameters()), 1e-3)
    for k in range(20):
        for m in (model, reference):
            m.zero_grad()
            bowl(1.0 + k)(m(X)).backward()
        optimizer.step()
        step([p.grad for p in model.parameters()])
        assert torch.allclose(model.w, reference.w, rtol=1e-12, atol=0)


def test_a_rate_beyond_what_the_curvature_allows_diverges_and_the_next_is_tried() -> None:
    """Momentum 0.9 is stable on a curvature h below a rate of 2 · 1.9 / h."""
    trial = overfit(module_subject(Scalar(), X, bowl(100.0)))
    first, second = trial.courses
    assert first.rate > 3.8 / 100 > second.rate
    assert first.outcome is Outcome.DIVERGED
    assert first.steps < SOUNDING
    assert trial.learned is second
    assert trial.largest is second


def test_what_is_too_flat_for_gradient_descent_adam_learns() -> None:
    trial = overfit(module_subject(Scalar(0.1), X, bowl(1e-6)))
    assert trial.learned is not None
    assert (trial.learned.optimizer, trial.learned.rate) == ("Adam", 0.01)
    assert {c.outcome for c in trial.courses if c.optimizer == "SGD"} == {Outcome.SLOW}


def test_a_loss_without_a_bar_is_no_trial() -> None:
    trial = overfit(module_subject(Scalar(), X, lambda output: -output.sum()))
    assert trial.reason
    assert not trial.courses
    assert not trial.failed


@pytest.mark.parametrize("detached", [True, False])
def test_a_loss_that_stays_whatever_its_gradient_does_says_nothing(detached: bool) -> None:
    """As that of a policy, whose old probabilities are those of this pass without a gradient."""
    module, x = Scalar(), torch.ones(4, 1, dtype=torch.float64)

    def ratio(output: Tensor) -> Tensor:
        return (output - (output.detach() if detached else 0) + 1).mean()

    trial = overfit(module_subject(module, (x,), loss=ratio))
    assert ("stays as it is" in (trial.reason or "")) == detached


def test_a_loss_that_no_weight_leads_to_does_not_fall() -> None:
    trial = overfit(module_subject(Scalar(), X, lambda output: output.detach().sum()))
    assert trial.failed


def test_a_loss_that_adam_shoots_up_may_come_down_again() -> None:
    """Its first step is the rate, whatever the gradient: here ten times the weight at least."""
    trial = overfit(module_subject(Scalar(1e-4), X, bowl(1e-3)))
    assert trial.learned
    assert trial.learned.optimizer == "Adam"
    assert trial.learned.steps > SOUNDING
    assert max(trial.learned.losses) > 50 * trial.learned.losses[0]
    assert {c.outcome for c in trial.courses if c.optimizer == "SGD"} == {Outcome.SLOW}


# ---- what a constant output gets by the user's own loss


class Blind(nn.Module):
    """A bias of its own for each output, whatever the input."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.linspace(-1, 1, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand(len(x), 10)


TARGETS = 10 + torch.randn(16, 10, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(20) % 10


def far_off(output: Tensor) -> Tensor:
    return F.mse_loss(output, TARGETS)


def test_a_constant_gets_the_variance_of_targets_and_the_entropy_of_labels() -> None:
    variance = TARGETS.var(0, unbiased=False).mean().item()
    trial = overfit(module_subject(Blind(), torch.randn(16, 4), far_off))
    assert trial.baseline == pytest.approx(variance, rel=1e-4)
    entropy = overfit(
        module_subject(Blind(), torch.randn(20, 4), lambda out: F.cross_entropy(out, LABELS))
    )
    assert entropy.baseline == pytest.approx(math.log(10), rel=1e-4)


FEW = torch.arange(20) % 3
UNIT = F.normalize(torch.randn(20, 12, generator=torch.Generator().manual_seed(1)) + 0.5, dim=1)
SHARES = torch.bincount(FEW) / len(FEW)
ENTROPY = -(SHARES * SHARES.log()).sum().item()


@pytest.mark.parametrize(
    ("end", "loss", "least"),
    [
        (F.log_softmax, lambda out: F.nll_loss(out, FEW), ENTROPY),
        (F.softmax, lambda out: -out.gather(1, FEW[:, None]).log().mean(), ENTROPY),
        (
            F.normalize,
            lambda out: (out - UNIT).square().sum(1).mean(),
            2 - 2 * UNIT.mean(0).norm().item(),
        ),
    ],
    ids=["logarithms", "probabilities", "unit vectors"],
)
def test_a_constant_is_one_that_the_model_can_put_out(
    end: Any, loss: Callable[[Tensor], Tensor], least: float
) -> None:
    """Logarithms that add up to no probability would get below any bound."""
    model = Shaped(10, lambda y: end(y, dim=1))
    trial = overfit(module_subject(model, torch.randn(20, 10), loss))
    assert trial.baseline == pytest.approx(least, rel=0.02)


def test_what_comes_to_a_constant_output_has_learned_nothing() -> None:
    """Though its loss falls to a hundredth, where the targets are far from 0."""
    trial = overfit(module_subject(Blind(), torch.randn(16, 4), far_off))
    assert min(c.losses[-1] for c in trial.courses) < 0.02 * trial.courses[0].losses[0]
    assert trial.learned is None
    assert trial.failed


def test_what_is_on_its_way_by_the_own_loss_has_not_failed() -> None:
    trial = overfit(module_subject(Scalar(1.0), X, bowl(1e-6)))
    assert trial.best
    assert 0.1 < trial.best.losses[-1] / trial.best.losses[0] < 0.5
    assert trial.learned is None
    assert not trial.failed
    assert not trial.cut


class Plateau(nn.Module):
    """y = x · Π w, which is flat near 0: Adam moves each w by about its rate at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((12,), 0.15, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w.prod()


def test_a_plateau_at_what_a_constant_output_gets_is_crossed() -> None:
    """Of the first loss all is left after sixty steps of Adam at 0.01, and 5 % after a hundred."""
    x = torch.linspace(-1, 1, 16, dtype=torch.float64)[:, None]
    trial = overfit(module_subject(Plateau(), x, lambda output: F.mse_loss(output, x)))
    assert trial.baseline == pytest.approx(float(x.square().mean()))
    longer = courses(trial)["Adam", 0.01]
    assert STEPS < longer.steps < AT_LENGTH
    assert longer.losses[STEPS] > NO_BETTER * longer.losses[0] > longer.losses[-1]
    assert not trial.failed
    assert not trial.cut


@pytest.mark.parametrize(
    "loss", [lambda out: out["y"].square().mean(), lambda out: out["y"].detach().mean() + 1]
)
def test_a_loss_that_takes_no_constant_is_held_against_itself(loss: Any) -> None:
    """A single sample is any constant, and a mapping of the user's own is handed on as it is."""
    model = Shaped(64, lambda y: MappingProxyType({"y": y}))
    trial = overfit(module_subject(model, torch.randn(16, 64), loss))
    assert trial.baseline == pytest.approx(trial.courses[0].losses[0])


# ---- labels that are drawn


def linear(*shape: int, outputs: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(shape[-1], outputs)


def test_a_linear_model_learns_what_it_has_as_many_weights_for() -> None:
    x = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    trial = overfit(module_subject(linear(64), x))
    assert trial.learned
    assert trial.learned.optimizer == "SGD"
    assert trial.samples == 16
    assert not trial.own
    assert 1.5 < trial.courses[0].losses[0] < 4.5  # ten logits of RMS 1


@pytest.mark.parametrize(("size", "first"), [(1e3, 1.0), (1.0, 1.0), (1e-3, 1e-2), (0.0, 0.0)])
def test_logits_have_an_rms_of_one_but_small_outputs_are_enlarged_tenfold(
    size: float, first: float
) -> None:
    """By more than that no rate would be small enough: the curvature grows with the square."""
    samples = objective.Samples(512, 0, torch.arange(512))
    flat = torch.randn(512, 64, generator=torch.Generator().manual_seed(0))
    matrix, _ = objective._DrawnLabels(0, samples)._draw(size * flat)
    logits = (size * flat) @ matrix
    assert float(logits.square().mean().sqrt()) == pytest.approx(first, rel=0.1)


def test_a_model_with_small_outputs_is_learned_at_the_rates_of_a_large_one() -> None:
    x = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    small = nn.Sequential(linear(64, outputs=64), nn.ReLU(), nn.Linear(64, 10))
    for parameter in small.parameters():
        parameter.data *= 0.03
    learned = overfit(module_subject(small, x)).learned
    assert learned
    assert learned.optimizer == "SGD"
    assert learned.rate >= 0.01


def test_a_dead_model_learns_at_no_rate_and_no_rate_is_taken_up_again() -> None:
    model = nn.Sequential(linear(64), nn.ReLU())
    model[0].bias.data.fill_(-1e3)
    trial = overfit(module_subject(model, torch.randn(16, 64)))
    assert trial.failed
    assert list(courses(trial)) == [(name, rate) for name in RATES for rate in RATES[name]]
    assert {(course.outcome, course.steps) for course in trial.courses} == {
        (Outcome.SLOW, SOUNDING)
    }


def test_a_model_that_gives_the_same_for_every_sample_fails_after_second_chances() -> None:
    """Its best is the logarithm of the number of classes, which a bias finds."""

    trial = overfit(module_subject(Blind(), torch.randn(16, 4)))
    assert trial.failed
    assert min(min(c.losses) for c in trial.courses) > 0.9 * math.log(8)
    assert max(course.steps for course in trial.courses) == STEPS


def test_equal_samples_have_one_label() -> None:
    trial = overfit(module_subject(linear(64), torch.ones(16, 64)))
    assert trial.learned


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_few_outputs_have_few_classes(outputs: int) -> None:
    x = torch.randn(12, 64, generator=torch.Generator().manual_seed(0))
    assert overfit(module_subject(linear(64, outputs=outputs), x)).learned


class Outputs(NamedTuple):
    main: Tensor
    other: Tensor


class Shaped(nn.Module):
    """A linear map whose output is dressed up."""

    def __init__(self, features: int, dress: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear = linear(features, outputs=12)
        self.dress = dress

    def forward(self, x: Tensor) -> Any:
        return self.dress(self.linear(x))


DRESSES: dict[str, Callable[[Tensor], Any]] = {
    "dense": lambda y: y,
    "image": lambda y: y.reshape(-1, 3, 2, 2),
    "tuple": lambda y: (y, y.sum()),
    "behind what no weight makes": lambda y: (y.detach(), y),
    "dict": lambda y: {"logits": y, "aux": y[:, :1]},
    "named": lambda y: Outputs(y, y),
    "list": lambda y: [y.reshape(-1, 4, 3), y],
    "half": lambda y: y.bfloat16(),
    "double": lambda y: y.double(),
}


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
def test_outputs_of_every_shape_can_be_learned(dress: Callable[[Tensor], Any]) -> None:
    x = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    trial = overfit(module_subject(Shaped(64, dress), x))
    assert trial.learned
    assert trial.samples == 16


def test_a_module_that_gives_its_loss_is_trained_on_that() -> None:
    x = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    trial = overfit(module_subject(Shaped(64, lambda y: y.square().mean()), x))
    assert trial.learned
    assert not trial.own


def test_a_sequence_first_layer_has_its_samples_along_the_second_axis() -> None:
    torch.manual_seed(0)
    trial = overfit(module_subject(nn.GRU(8, 32), torch.randn(5, 12, 8)))
    assert trial.samples == 12
    assert trial.learned


def test_a_long_output_takes_no_long_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "_BLOCK", 5)
    x = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    assert overfit(module_subject(Shaped(64, DRESSES["dense"]), x)).learned


# ---- specs

SPEC = """
input: {shape: [64]}
layers:
  - Linear: {out_features: 64}
  - BatchNorm1d
  - ReLU
  - Dropout: {p: 0.1}
  - Linear: {out_features: 10}
"""
TOKENS = """
input: {shape: [12], tokens: 50}
layers:
  - Embedding: {embedding_dim: 16}
  - LSTM: {hidden_size: 16}
"""


@pytest.mark.parametrize("text", [SPEC, TOKENS])
def test_a_drawn_batch_is_cut_and_the_same_spec_gives_the_same_bytes(text: str) -> None:
    spec = parse_any(text.encode(), "a.yaml")
    first, second = (overfit(make(spec, ProbeOptions())) for _ in range(2))
    assert first == second
    assert first.samples == SAMPLES
    assert first.learned
    assert overfit(make(spec, ProbeOptions(seed=1))) != first


def test_a_given_batch_is_taken_whole() -> None:
    spec = parse_any(SPEC.encode(), "a.yaml")
    assert overfit(make(spec, ProbeOptions(), torch.randn(24, 64))).samples == 24


def test_weights_that_memory_does_not_hold_are_not_tried() -> None:
    options = ProbeOptions(limits=Limits(memory=4 * 4 * 650 - 1))
    trial = overfit(module_subject(linear(64), torch.randn(16, 64), options=options))
    assert trial.reason
    assert "--max-memory" in trial.reason
    assert overfit(module_subject(linear(64), torch.randn(16, 64))).reason is None


# ---- what the subject is afterwards


def ticking(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A clock that moves on by so much whenever it is read."""
    times: Iterator[float] = iter(seconds * k for k in range(10**6))
    monkeypatch.setattr(overfitting.time, "monotonic", lambda: next(times))


def test_what_time_does_not_allow_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    ticking(monkeypatch, 1.0)
    trial = overfit(module_subject(Scalar(), X, bowl(1e-9)), seconds=4.5)
    assert trial.cut
    assert not trial.failed
    assert trial.learned is None
    assert [(c.outcome, c.steps) for c in trial.courses] == [(Outcome.CUT, 4)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ending", ["well", "raises", "loss raises", "interrupted", "out of time"])
def test_the_subject_is_left_as_it_was(
    ending: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = everything()
    model.train(training)
    passes = 0

    def at_third(*_: Any) -> None:
        nonlocal passes
        passes += 1
        if passes == 3 and ending == "raises":
            raise RuntimeError("the model raises")
        if passes == 3 and ending == "interrupted":
            raise KeyboardInterrupt

    def loss(output: Any) -> Tensor:
        if passes == 3:
            raise RuntimeError("the loss raises")
        return output.square().mean()

    model.register_forward_hook(at_third)
    if ending == "out of time":
        ticking(monkeypatch, 1.0)
    seconds = 5.0 if ending == "out of time" else None
    subject = module_subject(model, x, loss if ending == "loss raises" else None)
    with unchanged(model, x):
        if ending == "interrupted":
            with pytest.raises(KeyboardInterrupt):
                overfit(subject, seconds)
        elif "raises" in ending:
            with pytest.raises(gradprobe.ModelError, match="raises"):
                overfit(subject, seconds)
        else:
            assert overfit(subject, seconds).cut is (ending == "out of time")
    assert passes > 2
