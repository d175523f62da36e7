"""docs/faults.md: each row's network has the symptom's rule found, and not with the row's cure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from helpers.places import ROOT
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradprobe
from gradprobe.verdict.rules.table import RULES

PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([^|]+?) \| (GP\d{3}) [\w-]+ \|", PAGE, re.MULTILINE))

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
SEQUENCE = torch.randn(32, 60, 8, generator=torch.Generator().manual_seed(1))
LABELS, TARGETS = torch.arange(64) % 4, X[:, :4].tanh()


class Network(NamedTuple):
    """A model, its inputs and its loss."""

    model: nn.Module
    x: object = X
    loss: Callable[[Tensor], Tensor] | None = None
    options: Mapping[str, Any] = {}


def ce(output: Tensor) -> Tensor:
    return F.cross_entropy(output, LABELS[: len(output)])


def mse(output: Tensor, target: Tensor = TARGETS) -> Tensor:
    return F.mse_loss(output, target)


def mlp(
    depth: int = 2,
    act: Callable[[], nn.Module] = nn.Tanh,
    *last: nn.Module,
    change: Callable[[Tensor], object] = lambda weight: weight,
    out: int = 4,
) -> nn.Sequential:
    torch.manual_seed(0)
    body = [layer for _ in range(depth) for layer in (nn.Linear(8, 8), act())]
    model = nn.Sequential(*body, nn.Linear(8, out), *last)
    for layer in model:
        if isinstance(layer, nn.Linear):
            change(layer.weight.data)
    return model


class Own(nn.Module):
    """Linear layers around a function of the user's."""

    def __init__(self, of: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.of = of

    def forward(self, *x: Tensor) -> Tensor:
        return self.of(self, *x)


class Reader(nn.Module):
    def __init__(self, every: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.every = nn.LSTM(8, 8, batch_first=True), every
        self.fc, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        states = self.rnn(x)[0]
        return self.head(self.fc(states.mean(1) if self.every else states[:, -1]).tanh())


class Looped(Reader):
    """The same, called for each step."""

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for now in x.split(1, 1):
            states, after = self.rnn(now, state)
            state = after if self.every else None
        return self.head(self.fc(states[:, -1]).tanh())


def listed(faulty: bool) -> nn.Module:
    model = Own(lambda self, x: self.c(self.hidden[0](x).relu()))
    hidden = [nn.Linear(8, 8)]
    model.hidden = hidden if faulty else nn.ModuleList(hidden)
    return model


def lora(faulty: bool) -> nn.Module:
    def forward(self: Own, x: Tensor) -> Tensor:
        h = checkpoint(lambda h: h + self.b(h).tanh(), self.a(x), use_reentrant=faulty)
        return self.c(h)

    model = Own(forward)
    model.a.requires_grad_(False)
    return model


def attention(self: Own, x: Tensor, mask: Tensor) -> Tensor:
    scores = (self.a(x) @ x.mT).masked_fill(mask[:, None], float("-inf"))
    return self.c(self.b(scores.softmax(-1) @ x).mean(1))


def cell(faulty: bool) -> nn.Module:
    def forward(self: Own, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 8)
        for now in x.unbind(1):
            state = self.a(now) + self.b(state)
            state = state.relu() if faulty else state.tanh()
        return self.c(state)

    model = Own(forward)
    model.b.weight.data.copy_(1.5 * torch.eye(8))
    return model


def distance(least: float) -> Callable[[Own, Tensor], Tensor]:
    """Of each sample to itself, and so the root of 0."""

    def forward(self: Own, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(self.b(h).tanh() + ((h - h.clone()).square().sum(1) + least).sqrt()[:, None])

    return forward


def masked(faulty: bool) -> tuple[Tensor, Tensor]:
    mask = torch.zeros(32, 60, dtype=torch.bool)
    mask[3] = faulty
    return SEQUENCE, mask


def residual(self: Own, x: Tensor) -> Tensor:
    return self.c(x + self.b(x + self.a(x).tanh()).tanh())


def relu(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


def biased(model: nn.Sequential, value: float) -> nn.Sequential:
    nn.init.constant_(model[2].bias, value)
    return model


def silent(model: nn.Sequential) -> nn.Sequential:
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    return model


def half(scale: float) -> Network:
    return Network(mlp().half(), X.half(), lambda o: ce(o.float()) * scale)


def clamped(output: Tensor, faulty: bool) -> Tensor:
    return output.clamp(1e-4, 1).log() if faulty else F.log_softmax(output, 1)


def overlap(center: Tensor, faulty: bool) -> Tensor:
    """Of intervals of length 1, one of which lies far off; a GIoU takes the gap from it."""
    apart = 1 - (center - TARGETS[:, 0] - 9).abs()
    both = apart.clamp(min=0)
    return both / (2 - both) - (0 if faulty else (-apart).clamp(min=0) / (2 - apart))


def pointed(faulty: bool) -> Callable[[Own, Tensor], Tensor]:
    """Reads a picture at points, in pixels or from -1 to 1."""

    def of(self: Own, x: Tensor) -> Tensor:
        points = torch.tanh(self.b(torch.tanh(self.a(x)))).view(-1, 2, 2, 2)
        points = 4 + 2 * points if faulty else points
        pictures = F.grid_sample(x.view(-1, 2, 2, 2), points, align_corners=False)
        return self.c(F.relu(pictures.flatten(1)))

    return of


def held(output: Tensor, faulty: bool) -> Tensor:
    return output[:, :1].detach() if faulty else output[:, :1]


def last(faulty: bool, module: nn.Module) -> list[nn.Module]:
    return [module] if faulty else []


def normed(groups: int) -> nn.Sequential:
    model = mlp()
    return nn.Sequential(*model[:2], nn.GroupNorm(groups, 8), *model[2:])


def batchnormed(train: bool) -> nn.Module:
    model = mlp()
    return nn.Sequential(*model[:2], nn.BatchNorm1d(8), *model[2:]).train(train)


def tokens(scale: float) -> Callable[[Own, Tensor], Tensor]:
    def forward(self: Own, x: Tensor) -> Tensor:
        scores = self.a(x) @ self.b(x).mT * scale
        return self.c(scores.softmax(-1) @ x).mean(1)

    return forward


def lowered() -> nn.Sequential:
    """Three of four outputs begin below 0."""
    model = mlp()
    nn.init.constant_(model[-1].bias, -1.0)
    return model


def scaled_head(scale: float) -> nn.Sequential:
    model = mlp()
    model[-1].weight.data.mul_(scale)
    return model


def drawn(output: Tensor) -> Tensor:
    """With labels that are shuffled apart from their inputs."""
    return F.cross_entropy(output, torch.randint(4, (len(output),)))


def curved(act: Callable[[], nn.Module]) -> Callable[[Own, Tensor], Tensor]:
    """The trace of the second derivatives, as in a heat equation."""

    def forward(self: Own, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        u = self.c(act()(self.b(act()(self.a(x)))))
        [slope] = torch.autograd.grad(u.sum(), x, create_graph=True)
        [bend] = torch.autograd.grad(slope.sum(), x, create_graph=True)
        return u + bend[:, :4]

    return forward


def penalised(graph: bool) -> Callable[[Own, Tensor], Any]:
    def forward(self: Own, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        y = self.c(self.b(self.a(x).tanh()).tanh())
        return y, torch.autograd.grad(y.sum(), x, retain_graph=True, create_graph=graph)[0]

    return forward


def stepwise(faulty: bool) -> Callable[[Own, Tensor], Tensor]:
    def forward(self: Own, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 8)
        for now in x.unbind(1):
            state = (self.a(now) + self.b(state.detach() if faulty else state)).tanh()
        return self.c(state)

    return forward


def encoded(faulty: bool) -> Callable[[Own, Tensor], Any]:
    def forward(self: Own, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.b(self.a(x).tanh())
        latent = torch.distributions.Normal(mean, 0.1)
        return self.c(latent.sample() if faulty else latent.rsample()), mean

    return forward


# By symptom: the network that has it, and with the cure.
NETWORKS: dict[str, Callable[[bool], Network]] = {
    "the loss does not move": lambda bad: Network(
        mlp(12, nn.ReLU, change=(lambda w: w) if bad else relu)
    ),
    "the loss is huge, or jumps": lambda bad: Network(
        mlp(30, nn.Identity, change=lambda w: w.mul_(8 if bad else 1.6))
    ),
    "the LSTM forgets how the sequence began": lambda bad: Network(Reader(not bad), SEQUENCE),
    "the deeper, the worse, at any learning rate": lambda bad: Network(
        mlp(12, change=lambda w: w.mul_(8)) if bad else Own(residual)
    ),
    "same output for every input": lambda bad: Network(biased(mlp(3, nn.ReLU), -50.0 * bad)),
    "`grad` is None": lambda bad: Network(
        Own(lambda self, x: self.c(self.b(self.a(x).detach() if bad else self.a(x))))
    ),
    "`grad` is None with checkpointing and LoRA": lambda bad: Network(lora(bad)),
    "NaN after one step": lambda bad: Network(Own(distance(0.0 if bad else 1e-8))),
    "the loss is NaN from the start": lambda bad: Network(
        mlp(), X, (lambda o: -o.log().mean()) if bad else ce
    ),
    "NaN with padding in attention": lambda bad: Network(Own(attention), masked(bad)),
    "all gradients are exactly 0": lambda bad: Network(
        silent(mlp(3, nn.ReLU, change=nn.init.zeros_ if bad else relu)), X, ce
    ),
    "every input is 0": lambda bad: Network(mlp(), X * (not bad), ce),
    "it predicts one thing for the whole batch": lambda bad: Network(
        mlp(), X[:1].expand(64, 8) if bad else X, ce
    ),
    "sigmoids and tanh are stuck at their ends": lambda bad: Network(
        mlp(), X * (255 if bad else 1), ce
    ),
    "the loss starts at thousands and diverges": lambda bad: Network(
        mlp(), X, lambda o: mse(o, TARGETS * (100 if bad else 1))
    ),
    "in float16 it does not learn, in float32 it does": lambda bad: half(1e-5 if bad else 1.0),
    "the prediction depends on the rest of the batch": lambda bad: Network(
        mlp(2, nn.Tanh, nn.Softmax(0 if bad else 1)), X, mse
    ),
    "one output, and the loss is constant": lambda bad: Network(
        mlp(2, nn.Tanh, nn.Softmax(1) if bad else nn.Sigmoid(), out=1),
        X,
        lambda o: F.binary_cross_entropy(o[:, 0], (LABELS % 2).float()),
    ),
    "the loss stays near ln(classes)": lambda bad: Network(
        mlp(2, nn.Tanh, *last(bad, nn.Softmax(1))), X, ce
    ),
    "the KL divergence is negative": lambda bad: Network(
        mlp(2, nn.Tanh, nn.Softmax(1) if bad else nn.LogSoftmax(1)),
        X,
        lambda o: F.kl_div(o, F.one_hot(LABELS, 4) * 0.8 + 0.05, reduction="batchmean"),
    ),
    "with dropout it learns nothing": lambda bad: Network(
        mlp(2, lambda: nn.Sequential(nn.Tanh(), nn.Dropout(0.9 if bad else 0.1))), X, ce
    ),
    "no class gets a probability above 1/2": lambda bad: Network(
        mlp(2, nn.Tanh, *last(bad, nn.LogSoftmax(1))),
        X,
        lambda o: F.binary_cross_entropy_with_logits(o, F.one_hot(LABELS, 4).float()),
    ),
    "the loss of CTC falls below 0": lambda bad: Network(
        mlp(2, nn.Tanh, *last(not bad, nn.LogSoftmax(1))),
        X,
        lambda o: F.ctc_loss(
            o.expand(5, 64, 4), LABELS[:, None] % 3 + 1, torch.full((64,), 5), torch.full((64,), 1)
        ),
    ),
    "the accuracy is fine, and the loss does not come down": lambda bad: Network(
        mlp(2, nn.Tanh, *last(bad, nn.Tanh())), X, ce
    ),
    "the training loss is noisy and stays far above that of eval mode": lambda bad: Network(
        mlp(2, nn.Tanh, *last(bad, nn.Dropout(0.5))), X, ce
    ),
    "a VAE puts out the mean image, whatever goes in": lambda bad: Network(
        mlp(2, nn.Tanh),
        X,
        lambda o: (
            F.mse_loss(o, TARGETS) + (o.exp() - 1 - o).sum(1).sum() / (1 if bad else o.numel())
        ),
    ),
    "a VAE's reconstructions do not improve, the KL divergence goes to 0": lambda bad: Network(
        Own(encoded(bad)), X, lambda o: mse(o[0]) + o[1].square().mean()
    ),
    "some classes are never predicted": lambda bad: Network(
        mlp(2, nn.Tanh, *last(bad, nn.ReLU())), X, ce
    ),
    "every probability is 1/2 or more": lambda bad: Network(
        mlp(2, nn.Tanh, *last(bad, nn.ReLU()), nn.Sigmoid()),
        X,
        lambda o: F.binary_cross_entropy(o, (TARGETS > 0).float()),
    ),
    "the loss stays where a clamp keeps it": lambda bad: Network(
        mlp(), X, lambda o: -clamped(o, bad)[torch.arange(64), LABELS].mean()
    ),
    "the loss is tiny and the network learns nothing of it": lambda bad: Network(
        mlp(), X, lambda o: mse(o, TARGETS * (1e-4 if bad else 1))
    ),
    "the boxes never move, the IoU stays 0": lambda bad: Network(
        mlp(out=1), X, lambda o: 1 - overlap(o[:, 0], bad).mean()
    ),
    "`grid_sample` gives zeros": lambda bad: Network(Own(pointed(bad)), X, ce),
    "the regression never leaves 0 to 1": lambda bad: Network(
        mlp(2, nn.Tanh, *last(bad, nn.Sigmoid())), X, mse
    ),
    "the regression predicts the mean for everything": lambda bad: Network(
        mlp(out=1), X, lambda o: ((o if bad else o[:, 0]) - TARGETS[:, 0]).square().mean()
    ),
    "all units of a layer learn the same": lambda bad: Network(
        mlp(change=(lambda w: w.fill_(0.05)) if bad else relu), X, ce
    ),
    "the optimizer leaves some layers as they are": lambda bad: Network(listed(bad), X, ce),
    "a physics-informed network does not fit its equation": lambda bad: Network(
        Own(curved(nn.ReLU if bad else nn.Tanh)), X, mse
    ),
    "the gradient penalty changes nothing": lambda bad: Network(
        Own(penalised(not bad)), X, lambda o: mse(o[0]) + (o[1].norm(dim=1) - 1).square().mean()
    ),
    "the RNN remembers nothing but the last step": lambda bad: Network(
        Own(stepwise(bad)), SEQUENCE[:, :6], ce
    ),
    "the LSTM in a loop sees nothing but its last input": lambda bad: Network(
        Looped(not bad), SEQUENCE[:, :6], ce
    ),
    "the state of a hand-written RNN blows up": lambda bad: Network(
        cell(bad), SEQUENCE[:, :30], ce
    ),
    '"element 0 of tensors does not require grad"': lambda bad: Network(
        mlp().requires_grad_(not bad), X, ce
    ),
    'DistributedDataParallel: "expected to have finished reduction"': lambda bad: Network(
        Own(lambda self, x: self.c((self.a(x) if bad else self.b(self.a(x))).tanh())), X, ce
    ),
    "the outputs are large and nearly alike for all inputs": lambda bad: Network(
        mlp(4, nn.ReLU, change=nn.init.uniform_ if bad else relu), X.abs() + 1, ce
    ),
    "attention looks at one token alone and stays so": lambda bad: Network(
        Own(tokens(300.0 if bad else 8**-0.5)), SEQUENCE, ce
    ),
    "a layer puts out the same number whatever goes in": lambda bad: Network(
        normed(8 if bad else 2), X, ce
    ),
    "it does not learn with batches of two": lambda bad: Network(
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4)),
        X[: 2 if bad else 16],
        ce,
    ),
    "with BatchNorm or without, it is the same": lambda bad: Network(batchnormed(not bad), X, ce),
    "one of the outputs never moves": lambda bad: Network(
        Own(lambda self, x: torch.cat([(y := self.c(self.a(x).tanh()))[:, 1:], held(y, bad)], 1)),
        X,
        mse,
    ),
    "only the last layer learns": lambda bad: Network(scaled_head(1e-5 if bad else 1.0), X, ce),
    "the network fits no better than a straight line": lambda bad: Network(
        mlp(2, nn.Identity if bad else nn.Tanh), X, lambda o: mse(o, X[:, :4] * X[:, 4:])
    ),
    "the output is 0 for many samples": lambda bad: Network(
        nn.Sequential(*lowered(), *last(bad, nn.ReLU())), X, mse
    ),
    "hidden units are all at -1 or 1": lambda bad: Network(
        mlp(change=(lambda w: w.mul_(40)) if bad else relu), X, ce
    ),
    "a softmax between the layers, and it learns slowly": lambda bad: Network(
        mlp(2, (lambda: nn.Softmax(1)) if bad else nn.ReLU), X, ce
    ),
    "the loss goes up from the first step on": lambda bad: Network(
        mlp(), X, ce, {"lr": 1000.0 if bad else 0.01}
    ),
    "it does not even learn one batch by heart": lambda bad: Network(
        mlp(), X, drawn if bad else ce, {"overfit": True}
    ),
}
SLOW = {"it does not even learn one batch by heart"}


def test_every_row_of_the_page_has_its_network() -> None:
    assert list(ROWS) == list(NETWORKS)


def test_every_fault_of_a_network_has_a_row() -> None:
    """What is left is about the run and its files, or, as GP204, an expert without a token."""
    loud = {rule.code for rule in RULES if rule.severity}
    elsewhere = "GP105 GP107 GP204 GP403 GP501 GP502 GP901 GP902"
    assert loud - set(ROWS.values()) == set(elsewhere.split())


@pytest.mark.parametrize(
    "symptom",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in NETWORKS],
)
def test_the_symptom_is_named_and_the_cure_mends_it(symptom: str) -> None:
    for bad in (True, False):
        model, x, loss, options = NETWORKS[symptom](bad)
        report = gradprobe.probe(model, x, loss=loss, deep=True, **options)
        loud = [finding.rule for finding in report.findings if finding.severity]
        assert (ROWS[symptom] in loud) == bad, report
        assert report.healthy or bad, report
