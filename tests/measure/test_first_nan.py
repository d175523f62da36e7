"""The operation that makes the first NaN or infinity, and the line it stands on."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradprobe import probe
from gradprobe.measure.first_nan import first_nan
from gradprobe.model.make import module_subject

Step = Callable[[Tensor], Tensor]


class Between(nn.Module):
    """Two layers with something between them."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.a, self.b, self.step = nn.Linear(6, 8), nn.Linear(8, 1), step

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.step(self.a(x)))
        return out


def batch() -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


def rows_of_zeros(h: Tensor) -> Tensor:
    return h * (torch.arange(len(h)) > 0).to(h)[:, None]


def attend(h: Tensor, masked: int) -> Tensor:
    scores = (h @ h.T).masked_fill(torch.arange(len(h)) < masked, -math.inf)
    return torch.softmax(scores, 1) @ h


CASES: dict[str, tuple[Step, Step, str, str]] = {
    "division": (
        lambda h: rows_of_zeros(h) / rows_of_zeros(h).norm(dim=1, keepdim=True),
        lambda h: rows_of_zeros(h) / (rows_of_zeros(h).norm(dim=1, keepdim=True) + 1e-6),
        "div",
        "a division by zero",
    ),
    "logarithm": (lambda h: h.relu().log(), lambda h: h.relu().log1p(), "log", "a logarithm of 0"),
    "exponential": (
        lambda h: (h.abs() * 1e4).exp(),
        lambda h: (-h.abs() * 1e4).exp(),
        "exp",
        "an exponential that overflows",
    ),
    "mask": (lambda h: attend(h, 8), lambda h: attend(h, 2), "softmax", "softmax over -inf alone"),
    "distance": (
        lambda h: h + (h[:, None] - h).square().sum(2).sqrt(),
        lambda h: h + ((h[:, None] - h).square().sum(2) + 1e-8).sqrt(),
        "Sqrt",
        "a square root or a norm at 0",
    ),
    "angle": (
        lambda h: h + torch.acos(F.cosine_similarity(h, h, eps=0).clamp(-1, 1))[:, None],
        lambda h: h + torch.acos(F.cosine_similarity(h, h).clamp(-0.99, 0.99))[:, None],
        "Acos",
        "an inverse function at the end of its range",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_operation_is_named_with_its_line(case: str) -> None:
    broken, _, operation, words = CASES[case]
    torch.manual_seed(0)
    [finding] = [f for f in probe(Between(broken), batch()).findings if f.rule == "GP301"]
    assert words in finding.message
    assert "at test_first_nan.py:" in finding.message
    torch.manual_seed(0)
    first = first_nan(module_subject(Between(broken), batch()))
    assert first
    assert (first.operation, first.backward) == (operation, operation[0].isupper())


@pytest.mark.parametrize("case", CASES)
def test_the_same_without_the_fault_makes_none(case: str) -> None:
    torch.manual_seed(0)
    model = Between(CASES[case][1])
    assert first_nan(module_subject(model, batch())) is None
    assert "GP301" not in {f.rule for f in probe(model, batch()).findings}


def test_a_loss_that_makes_it() -> None:
    def loss(out: Tensor) -> Tensor:
        return -torch.softmax(out * 1e4, 1).log().mean()

    report = probe(nn.Sequential(nn.Linear(6, 4)), batch(), loss=loss)
    [finding] = [f for f in report.findings if f.rule == "GP301"]
    assert finding.message.startswith("the loss is NaN or infinite")
    assert "a logarithm of 0 or less, at test_first_nan.py:" in finding.message


def test_a_product_that_overflows_is_the_rows_own() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8))
    model[1].weight.data.fill_(3e38)
    [finding] = [f for f in probe(model, batch()).findings if f.rule == "GP301"]
    assert finding.message == "row 1 (Linear) makes the first NaN or infinity"


def test_a_model_that_cannot_be_run_again_has_none() -> None:
    def loss(_: Tensor) -> Tensor:
        raise RuntimeError

    assert first_nan(module_subject(nn.Linear(6, 2), batch(), loss=loss)) is None
