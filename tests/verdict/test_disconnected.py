"""Eight ways to have no gradient, each told apart and each with its own answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import gradprobe
from gradprobe.measure import zeros
from gradprobe.verdict.report import Severity


def lin() -> nn.Linear:
    return nn.Linear(8, 8)


class Block(nn.Module):
    """A residual block with whatever ``mend`` makes of its parts."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(8), lin()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.fc(self.norm(x)))


class Model(nn.Module):
    """Three blocks behind an encoder and in front of a head; ``cut`` acts between the first two."""

    def __init__(
        self,
        block: Callable[[], nn.Module] = Block,
        cut: Callable[[Tensor], Tensor] = lambda h: h,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(lin(), nn.Tanh(), lin())
        self.blocks = nn.ModuleList(block() for _ in range(3))
        self.head, self.cut = lin(), cut

    def forward(self, x: Tensor) -> Tensor:
        x = self.cut(self.encoder(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Experts(Block):
    """Each sample goes to the expert that the router likes best; this router likes the first."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(lin(), nn.GELU(), lin()) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        chosen = [0, 2]
        return x + sum(self.experts[i](self.fc(self.norm(x))) for i in chosen)


class LoRA(Block):
    def __init__(self) -> None:
        super().__init__()
        self.fc.requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.zeros(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return x + torch.tanh(self.fc(h) + h @ self.a.T @ self.b.T)


class DeadReLU(Block):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.fc(self.norm(x)) - 100)


def zero_head(model: nn.Module) -> nn.Module:
    nn.init.zeros_(model.head.weight)
    return model


def frozen(model: nn.Module) -> nn.Module:
    model.encoder.requires_grad_(False)
    model.blocks[:2].requires_grad_(False)
    return model


class Answer(NamedTuple):
    make: Callable[[], nn.Module]
    verdict: str
    told: dict[str, str]  # by code, what the message names
    fails: bool


ANSWERS = {
    "detached encoder": Answer(
        lambda: Model(cut=torch.detach),
        "disconnected",
        {"GP202": "the graph is cut: encoder.0 (weight, bias), encoder.2 (weight, bias)"},
        True,
    ),
    "unused LayerNorm": Answer(
        lambda: Model(lambda: Block(spare=nn.LayerNorm(8))),
        "healthy",
        {"GP205": "never used in the forward pass: blocks.0.spare (weight, bias), blocks.1.spare"},
        False,
    ),
    "LoRA pair": Answer(
        lambda: Model(LoRA),
        "healthy",
        {"GP402": "blocks.0.b, blocks.1.b, blocks.2.b", "GP203": "blocks.0.fc (weight, bias)"},
        False,
    ),
    "zero-initialised head": Answer(
        lambda: zero_head(Model()), "healthy", {"GP402": "head.weight"}, False
    ),
    "idle expert": Answer(
        lambda: Model(Experts),
        "healthy",
        {"GP204": "blocks.0.experts.1.0 (weight, bias), blocks.0.experts.1.2 (weight, bias)"},
        False,
    ),
    "frozen backbone": Answer(
        lambda: frozen(Model()),
        "healthy",
        {"GP203": "encoder.0 (weight, bias), encoder.2 (weight, bias), blocks.0 (4 parameters)"},
        False,
    ),
    "dead ReLUs": Answer(
        lambda: Model(DeadReLU),
        "dead",
        {"GP201": "no gradient passes row blocks.2: its outputs are all zero"},
        True,
    ),
    "a dead ReLU behind a zero head": Answer(
        lambda: zero_head(Model(cut=lambda h: torch.relu(h - 100))),
        "dead",
        {"GP201": "no gradient passes row blocks.0: its slope is zero", "GP402": "head.weight"},
        True,
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_each_has_its_own_answer(name: str) -> None:
    answer = ANSWERS[name]
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    report = gradprobe.probe(answer.make(), x)
    assert {f.rule: f.message for f in report.findings}.keys() == answer.told.keys()
    for finding in report.findings:
        assert answer.told[finding.rule] in finding.message
    assert report.verdict == answer.verdict
    assert report.fails(Severity.ERROR) == answer.fails


def test_a_detached_module_is_not_unused_though_nothing_in_it_has_a_gradient() -> None:
    """The reverse of the unused LayerNorm: the same parameters, called and cut off."""

    class Reads(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.spare(x).detach()

    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    [finding] = gradprobe.probe(Model(lambda: Reads(spare=nn.LayerNorm(8))), x).findings
    assert "the graph is cut: blocks.0.spare (weight, bias)" in finding.message


def test_what_a_head_of_zeros_reads_detached_is_cut() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            result = self.head(self.body(x).detach())
            assert isinstance(result, Tensor)
            return result

    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    report = gradprobe.probe(zero_head(Cut()), x)
    [finding] = [f for f in report.findings if f.rule == "GP202"]
    assert "the graph is cut: body.0 (weight, bias), body.1 (weight, bias)" in finding.message
    assert report.verdict == "disconnected"


def test_what_a_step_wakes_up_is_measured_on_a_copy() -> None:
    model = Model(LoRA)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    report = gradprobe.probe(model, x)
    assert report.profile.still_zero == ()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert gradprobe.probe(Model(), x).profile.still_zero is None


class Once(Model):
    """It can neither be copied nor run once more."""

    ran = False

    def __deepcopy__(self, memo: object) -> Model:
        raise KeyError("copy")

    def forward(self, x: Tensor) -> Tensor:
        if self.ran:
            raise KeyError("again")
        self.ran = True
        return super().forward(x)


def test_what_a_step_wakes_up_is_not_known_of_a_model_that_runs_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the model's own code raises; what gradprobe's own does is not hidden."""
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    assert gradprobe.probe(Once(LoRA), x).profile.still_zero is None

    def wrong(*arguments: object) -> None:
        raise KeyError("a mistake of gradprobe's")

    monkeypatch.setattr(zeros, "_move", wrong)
    with pytest.raises(KeyError, match="a mistake"):
        gradprobe.probe(Model(LoRA), x)


def test_a_sparse_gradient_takes_a_step_too() -> None:
    model = nn.Sequential(nn.Embedding(9, 8, sparse=True), Model(LoRA))
    report = gradprobe.probe(model, torch.randint(9, (16,)))
    assert report.profile.still_zero == ()
