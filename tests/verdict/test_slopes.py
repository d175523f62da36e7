"""What cuts a gradient exactly: a function without a slope, and weights that are all frozen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradprobe
from gradprobe.measure.passes import failed
from gradprobe.verdict.report import Verdict

G = torch.Generator().manual_seed(0)
X, IMAGES, SEQUENCE = (torch.randn(16, *shape, generator=G) for shape in ((8,), (1, 6, 6), (5, 8)))
LABELS = torch.arange(16) % 3


class Read(nn.Module):
    """The last state of a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(8, 12, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0][:, -1]


class Around(nn.Module):
    """An encoder, something, a head."""

    def __init__(self, encoder: nn.Module, width: int, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self.between = encoder, between
        self.head = nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(3 * self.encoder(x)))


ENCODERS: dict[str, tuple[Callable[[], nn.Module], int, Tensor]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 12)), 12, X),
    "conv": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten()), 32, IMAGES),
    "recurrent": (Read, 12, SEQUENCE),
}


def ce(output: Tensor) -> Tensor:
    return F.cross_entropy(output, LABELS)


def made(name: str, between: Callable[[Tensor], Tensor] = torch.tanh) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    encoder, width, x = ENCODERS[name]
    return Around(encoder(), width, between), x


@pytest.mark.parametrize("name", ENCODERS)
def test_a_function_without_a_slope_is_named_with_a_way_around_it(name: str) -> None:
    steps = ((torch.round, "h.round()"), (torch.sign, "h.sign()"), (torch.floor, "h.floor()"))
    for step, advice in steps:
        [finding] = [f for f in gradprobe.probe(*made(name, step), loss=ce).findings if f.severity]
        assert finding.rule == "GP201"
        assert "() is zero" in finding.message
        assert advice in finding.advice
    for sound in (torch.tanh, lambda h: h + (h.round() - h).detach()):
        assert gradprobe.probe(*made(name, sound), loss=ce).verdict is Verdict.HEALTHY


@pytest.mark.parametrize("name", ENCODERS)
def test_a_model_that_is_frozen_as_a_whole_trains_nothing(name: str) -> None:
    model, x = made(name)
    model.requires_grad_(False)
    report = gradprobe.probe(model, x, loss=ce, deep=True)
    assert (report.findings[0].rule, report.verdict) == ("GP206", Verdict.DISCONNECTED)
    model.head.requires_grad_(True)
    assert "GP206" not in {f.rule for f in gradprobe.probe(model, x, loss=ce).findings}


def test_what_torch_says_of_a_common_mistake_comes_with_a_way_out() -> None:
    def overwrite(h: Tensor) -> Tensor:
        h = torch.sigmoid(h)
        h *= 2
        return h

    with pytest.raises(gradprobe.ModelError) as error:
        gradprobe.probe(*made("linear", overwrite), loss=ce)
    assert "x = x + y for x += y" in error.value.hint
    norm = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    with pytest.raises(gradprobe.ModelError) as error:
        gradprobe.probe(norm, X[:1])
    assert "batch of two samples" in error.value.hint
    full = RuntimeError(
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 2048 bytes"
    )
    assert "--batch-size" in failed(full).hint
    assert failed(ValueError("another")).hint == ""
