"""What published models do, and what was once taken for a fault in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradprobe
from gradprobe.verdict.report import Report, Verdict


def batch(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def named(report: Report, rule: str) -> str:
    return "; ".join(f.message for f in report.findings if f.rule == rule)


def stack() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4)
    )


# ---- detectors: what goes in beside the images


class Boxes(nn.Module):
    """Hands the targets on beside the data, as a detector's transform does."""

    def forward(self, x: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        return x * 1.0, boxes * 1.0


class Detector(nn.Module):
    """The root of 0 has an infinite slope, and reaches the boxes alone."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.transform, self.body = Boxes(), body

    def forward(self, x: Tensor, boxes: Tensor) -> Tensor:
        x, boxes = self.transform(x, boxes)
        out: Tensor = (self.body(x).square() * (boxes * 0).sqrt().add(1)).mean()
        return out


def test_a_nan_that_reaches_no_weight_is_none() -> None:
    report = gradprobe.probe(Detector(stack()), (batch(16, 8), batch(16, 4)), deep=True)
    assert report.verdict is Verdict.HEALTHY
    assert report.reach
    assert report.training
    assert report.training.probability
    nothing = Detector(stack().requires_grad_(False))
    trained = gradprobe.probe(nothing, (batch(16, 8), batch(16, 4)))
    assert named(trained, "GP301")


class Weighted(nn.Module):
    """The loss, weighted by what goes in beside the data, which may not require a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.body = stack()

    def forward(self, x: Tensor, share: Tensor) -> Tensor:
        logits = self.body(x)
        return F.binary_cross_entropy_with_logits(logits, logits.detach().sigmoid() / 2, share)


def test_a_loss_may_refuse_targets_that_require_a_gradient() -> None:
    report = gradprobe.probe(Weighted(), (batch(16, 8), batch(16, 4).abs()), deep=True)
    assert report.verdict is Verdict.HEALTHY


class Asking(nn.Module):
    """Asks for the gradient of what it reads, as wav2vec 2's first layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8) / 8**0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None]
        x.requires_grad = True
        return x[:, 0] @ self.weight


def test_a_model_that_asks_for_a_gradient_itself_gets_a_second_look() -> None:
    torch.manual_seed(0)
    report = gradprobe.probe(nn.Sequential(Asking(), nn.Tanh(), stack()), batch(16, 8), deep=True)
    assert report.training
    assert report.training.probability


# ---- a loss beside the signal


class Quantised(nn.Module):
    """Hands on what it gets, and a loss of its own beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.fc(x)
        return x, x.square().mean()


class WithQuantiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.quantise, self.last = nn.Linear(8, 16), Quantised(), stack()

    def forward(self, x: Tensor) -> Tensor:
        x, loss = self.quantise(self.first(x))
        return self.last(x[:, :8]).mean() * 1e-3 + loss


def test_a_loss_that_a_row_gives_is_no_part_of_its_gradient() -> None:
    torch.manual_seed(0)
    report = gradprobe.probe(WithQuantiser(), batch(16, 8), loss=lambda loss: loss)
    [row] = [row for row in report.profile.rows if row.name == "quantise"]
    assert row.gradient_norm
    assert row.gradient_norm < 0.5


# ---- what nothing reads


class TwoStreams(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.h, self.x = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return h + self.h(x).tanh(), x + self.x(h).tanh()


class Equivariant(nn.Module):
    """A graph network's last layer makes positions as well, which an energy leaves out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.head = nn.ModuleList(TwoStreams() for _ in range(4)), nn.Linear(8, 1)

    def forward(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            h, x = layer(h, x)
        return self.head(h), x


def test_the_end_of_a_stack_may_feed_an_output_that_the_loss_leaves_out() -> None:
    inputs = batch(16, 8), batch(16, 8)
    report = gradprobe.probe(Equivariant(), inputs, loss=lambda out: out[0].square().mean())
    assert report.verdict is Verdict.HEALTHY
    assert "layers.3.x (weight, bias)" in named(report, "GP205")


class Pooled(nn.Module):
    """A backbone that pools, in front of a head that does not read that."""

    def __init__(self, read: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.body = nn.Embedding(9, 8), stack()
        self.pooler, self.head, self.read = nn.Linear(4, 4), nn.Linear(4, 2), read

    def forward(self, x: Tensor) -> Tensor:
        states = self.body(self.embedding(x).mean(1))
        out: Tensor = self.head(self.read(states, self.pooler(states)))
        return out


@pytest.mark.parametrize(
    ("read", "rule"),
    [(lambda h, pooled: h, "GP205"), (lambda h, pooled: h + pooled.detach(), "GP202")],
    ids=["nothing reads it", "cut"],
)
def test_a_pooler_that_nothing_reads_is_not_cut_off(
    read: Callable[[Tensor, Tensor], Tensor], rule: str
) -> None:
    report = gradprobe.probe(Pooled(read), torch.arange(64).view(16, 4) % 9)
    found = [f.rule for f in report.findings if "pooler" in f.message]
    assert found == [rule]


class OwnLoss(nn.Module):
    """Gives its loss and, beside it, what that leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.other = stack(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> dict[str, Any]:
        states = self.body(x)
        return {"loss": states.square().mean(), "other": self.other(states)}


def test_what_a_models_own_loss_leaves_out_is_left_out_on_purpose() -> None:
    report = gradprobe.probe(OwnLoss(), batch(16, 8), loss=lambda out: out["loss"])
    assert report.verdict is Verdict.HEALTHY
    assert "other" in named(report, "GP205")
    own = gradprobe.probe(OwnLoss(), batch(16, 8), loss=lambda out: -out["loss"].exp())
    assert own.verdict is Verdict.DISCONNECTED


class Empty(nn.Module):
    """As many register tokens as it was told: none."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.fc = nn.Parameter(torch.empty(1, 0, 8)), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.tokens.expand(len(x), -1, -1), x], 1)
        out: Tensor = self.fc(x)
        return out


def test_a_parameter_without_elements_is_none() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Empty(), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    report = gradprobe.probe(model, batch(16, 3, 8))
    assert report.verdict is Verdict.HEALTHY
    assert not report.findings


class Rounded(nn.Module):
    """What one layer puts out is taken off again, as a softmax's weights are of equal values."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.query, self.body = nn.Linear(8, 8), nn.Linear(8, 8), stack()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).tanh()
        query = self.query(x)
        out: Tensor = self.body(x + query - query)
        return out


def test_what_only_rounding_depends_on_is_not_read() -> None:
    report = gradprobe.probe(Rounded(), batch(16, 8))
    assert report.verdict is Verdict.HEALTHY
    assert "query" in named(report, "GP205")


# ---- a backward pass inside a backward pass


class Reverse(torch.autograd.Function):
    """Keeps no activation, and runs the layer again when its gradient is wanted."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Module) -> Tensor:
        ctx.layer, ctx.x = layer, x.detach()
        with torch.no_grad():
            out: Tensor = layer(x)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        x = ctx.x.requires_grad_()
        with torch.enable_grad():
            torch.autograd.backward(ctx.layer(x), gradient)
        return x.grad, None


class Reversible(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 4)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = Reverse.apply(x, layer).tanh()
        out: Tensor = self.head(x)
        return out


@pytest.mark.parametrize("deep", [False, True])
def test_weights_of_a_reversible_layer_have_a_gradient(deep: bool) -> None:
    model, x = Reversible(), batch(16, 8)
    report = gradprobe.probe(model, x, deep=deep, loss=lambda out: out.square().mean())
    assert report.verdict is Verdict.HEALTHY
    assert not named(report, "GP202")
    assert all(p.grad is None for p in model.parameters())
    model(x).square().mean().backward()
    own = {p.name: p.gradient_norm for row in report.profile.rows for p in row.parameters}
    for name, p in model.named_parameters():
        assert p.grad is not None
        assert own[name] == pytest.approx(float(p.grad.norm()), rel=1e-4)


class Encoded(nn.Module):
    """A decoder of few layers reads an encoder, through a small gate, and tokens of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.embedding = stack(), nn.Embedding(9, 4)
        self.joined, self.decoder = nn.Linear(4, 8), stack()

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        x = self.encoder(x)
        out: Tensor = self.decoder(self.joined(1e-3 * x + self.embedding(tokens)))
        return out


def test_no_gradient_is_lost_across_a_row_that_does_not_read_the_one_before() -> None:
    report = gradprobe.probe(Encoded(), (batch(16, 8), torch.arange(16) % 9))
    assert report.verdict is not Verdict.HEALTHY
    assert "across row embedding" not in named(report, "GP103") + named(report, "GP101")


class Typed(nn.Module):
    """All tokens are of the first type, which stands for padding as well."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.types, self.body = nn.Embedding(2, 8, padding_idx=0), stack()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x + self.types(torch.zeros(len(x), dtype=torch.int64)))
        return out


def test_an_embedding_that_only_padding_was_looked_up_in_is_not_dead() -> None:
    report = gradprobe.probe(Typed(), batch(16, 8))
    assert report.verdict is Verdict.HEALTHY
