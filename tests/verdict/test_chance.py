"""Zeros by chance and by design raise no alarm; what stays zero for want of luck alone does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradprobe
from gradprobe.measure.chance import mixed
from gradprobe.model.losses import loss_of
from gradprobe.model.subject import subject_of

DEAD, HEALTHY = gradprobe.Verdict.DEAD, gradprobe.Verdict.HEALTHY


class Dropped(nn.Module):
    """A residual layer that is left out for the whole batch, four times of five."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.map = nn.GroupNorm(1, 4), nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.map(torch.tanh(self.norm(x))) * (torch.rand(()) > 0.5).to(x)
        return out


def body(*middle: nn.Module, inside: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    first, last = nn.Conv1d(inside, 4, 1), nn.Conv1d(4, 2, 1)
    return nn.Sequential(first, nn.Tanh(), *middle, last, nn.Flatten())


def test_a_path_that_is_dropped_at_one_draw_is_not_dead() -> None:
    model = body(*[Dropped() for _ in range(3)])
    x = torch.randn(2, 3, 5)
    reports = [gradprobe.probe(model, x, seed=seed) for seed in range(6)]
    assert any(report.profile.still_zero == () for report in reports)  # one was dropped
    assert {report.verdict for report in reports} == {HEALTHY}


class Rounded(nn.Module):
    """Quantised straight through, which is 0 at first, or behind a ReLU that is dead."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.dead = how == "dead"
        nn.init.constant_(self.first.bias, -90.0 * self.dead)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x) * 0.1
        middle = self.middle(h.relu() if self.dead else h + (h.round() - h).detach())
        out: Tensor = self.last(torch.tanh(middle) + 0.1 * h)
        return out


@pytest.mark.parametrize("how", ["straight through", "dead"])
def test_what_is_rounded_to_zero_straight_through_is_not_dead(how: str) -> None:
    report = gradprobe.probe(Rounded(how), torch.randn(8, 4), loss=lambda o: o.square().mean())
    assert ("GP201" in {finding.rule for finding in report.findings}) == (how != "straight through")


class Streams(nn.Module):
    """Two streams attend to each other, and the second's output is thrown away at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(5, 4)
        self.to_q, self.to_kv = nn.Linear(4, 4), nn.Linear(4, 8)
        self.other_q, self.other_kv = nn.Linear(4, 4), nn.Linear(4, 8)
        self.out = nn.Linear(4, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = self.first(a), self.second(b)
        q = torch.cat([self.other_q(b), self.to_q(a)], 1)
        k, v = torch.cat([self.other_kv(b), self.to_kv(a)], 1).chunk(2, -1)
        mixed_ = torch.softmax(torch.einsum("bid,bjd->bij", q, k), -1) @ v
        out: Tensor = self.out(a + mixed_[:, b.shape[1] :])
        return out


def test_a_query_whose_answer_nobody_reads_is_named_and_no_alarm() -> None:
    torch.manual_seed(0)
    report = gradprobe.probe(Streams(), (torch.randn(4, 6, 3), torch.randn(4, 2, 5)))
    assert report.verdict is HEALTHY
    [finding] = [f for f in report.findings if f.severity >= gradprobe.Severity.WARNING]
    assert (finding.rule, "other_q.weight" in finding.message) == ("GP205", True)


def test_a_head_without_an_object_in_this_batch_is_not_dead() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.mid = nn.Linear(4, 8), nn.Linear(8, 8)
            self.boxes, self.classes = nn.Linear(8, 4), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h = torch.tanh(self.mid(torch.tanh(self.body(x))))
            return {"boxes": self.boxes(h), "classes": self.classes(h)}

    def loss(output: dict[str, Tensor]) -> Tensor:
        none = torch.zeros(len(output["boxes"]), 1)
        return (output["boxes"] * none).square().sum() + output["classes"].square().mean()

    torch.manual_seed(0)
    assert gradprobe.probe(Detector(), torch.randn(6, 4), loss=loss).verdict is HEALTHY


def negative(layer: Any) -> Any:
    nn.init.constant_(layer.bias, -100.0)
    return layer


class Rounds(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.round(x * 4)


class Folds(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(-x.abs())


@pytest.mark.parametrize(
    "make",
    [
        lambda: body(negative(nn.Conv1d(4, 4, 1)), nn.ReLU()),
        lambda: body(nn.Conv1d(4, 4, 1), Rounds()),
        lambda: body(nn.Conv1d(4, 4, 1), Folds()),
        lambda: body(nn.Conv1d(4, 4, 1), negative(nn.Conv1d(4, 4, 1)), nn.ReLU(), Dropped()),
    ],
)
def test_what_is_zero_in_every_batch_and_read_is_dead(make: Callable[[], nn.Module]) -> None:
    assert gradprobe.probe(make(), torch.randn(4, 3, 5)).verdict is DEAD


def test_another_batch_keeps_masks_and_tokens_and_the_size_of_what_is_drawn() -> None:
    torch.manual_seed(0)
    x, mask, tokens = torch.randn(500, 4), (torch.rand(500, 4) > 0.5).float(), torch.arange(500)
    subject = subject_of(nn.Linear(4, 4), (x, mask, tokens), loss_of("projection", None, 0))
    given = mixed(subject, 1).args
    assert torch.equal(given[1], mask)
    assert torch.equal(given[2], tokens)
    assert x.amin(0).le(given[0]).all()
    assert x.amax(0).ge(given[0]).all()
    assert not torch.equal(given[0], x)
