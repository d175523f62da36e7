"""Each cause on networks of another make: images, sequences, graphs, several outputs, own loops."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradprobe

G = torch.Generator().manual_seed(0)
SEQUENCES, LONG = torch.randn(16, 12, 6, generator=G), torch.randn(16, 40, 6, generator=G)
IMAGES, TABLE = torch.randn(16, 3, 12, 12, generator=G), torch.randn(16, 10, generator=G)
LABELS, NUMBERS = torch.arange(16) % 3, torch.randn(16, generator=G)
MASK = (torch.rand(16, 1, 12, 12, generator=G) > 0.5).float()
LINKS = torch.eye(16) + (torch.rand(16, 16, generator=G) < 0.3).float()

Act = Callable[[Tensor], Tensor]


class Reader(nn.Module):
    """A recurrent layer, read at its last position behind a norm."""

    def __init__(
        self, kind: type[nn.RNNBase], out: int = 3, end: Act = lambda x: x, batch_first: bool = True
    ) -> None:
        super().__init__()
        self.layer, self.norm = kind(6, 24, batch_first=batch_first), nn.LayerNorm(24)
        self.head, self.end = nn.Linear(24, out), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.head(self.norm(self.layer(x)[0][:, -1])))


class Segmenter(nn.Module):
    """Down, up, and a skip that concatenates."""

    def __init__(self, end: Act = lambda x: x, scale: float = 1.0) -> None:
        super().__init__()
        self.a, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.up, self.b = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(16, 8, 3, padding=1)
        self.head, self.end = nn.Conv2d(8, 1, 1), end
        self.head.weight.data *= scale

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        up = F.relu(self.up(F.relu(self.down(a))))
        return self.end(self.head(F.relu(self.b(torch.cat([a, up], 1)))))


class Attention(nn.Module):
    """Written by hand: over its positions, or by mistake over the samples."""

    def __init__(self, over: int = -1, zero: bool = False) -> None:
        super().__init__()
        self.first, self.head, self.over = nn.Linear(6, 16), nn.Linear(16, 3), over
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16, bias=False) for _ in range(4))
        if zero:
            nn.init.zeros_(self.q.weight)
            nn.init.zeros_(self.k.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        weights = F.softmax(self.q(x) @ self.k(x).transpose(1, 2) / 4, dim=self.over)
        return self.head((x + self.o(weights @ self.v(x))).mean(1))


class Autoencoder(nn.Module):
    def __init__(self, end: Act) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(10, 32), nn.GELU(), nn.Linear(32, 8), nn.GELU())
        self.decoder = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 10))
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.decoder(self.encoder(x)))


class Gaussian(nn.Module):
    """A mean and a deviation, which is not to be below ``least``."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU())
        self.mean, self.deviation, self.least = nn.Linear(32, 1), nn.Linear(32, 1), least

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        deviation = F.softplus(self.deviation(h)).clamp(min=self.least)
        return torch.cat([self.mean(h), deviation], 1)


class Stacked(nn.Module):
    """Cells above one another, in a list of Python's or of torch's."""

    def __init__(self, owned: bool) -> None:
        super().__init__()
        cells = [nn.GRUCell(6, 16), nn.GRUCell(16, 16)]
        self.cells = nn.ModuleList(cells) if owned else cells
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        states = [x.new_zeros(len(x), 16) for _ in self.cells]
        for now in x.unbind(1):
            for index, cell in enumerate(self.cells):
                now = states[index] = cell(now, states[index])
        return self.head(now)


class OwnLoop(nn.Module):
    """A recurrence of bare parameters."""

    def __init__(self, act: Act, gain: float) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(6, 16) / 3), nn.Parameter(gain * torch.eye(16))
        self.head, self.act = nn.Linear(16, 3), act

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 16)
        for now in x.unbind(1):
            state = self.act(now @ self.w + state @ self.v)
        return self.head(state)


class ConvLoop(nn.Module):
    """The same filters again and again."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        self.x, self.h = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head, self.act = nn.Linear(8, 3), act
        nn.init.kaiming_normal_(self.h.weight)
        self.h.weight.data *= 1.5

    def forward(self, x: Tensor) -> Tensor:
        state = self.act(self.x(x))
        for _ in range(20):
            state = self.act(self.x(x) + self.h(state))
        return self.head(state.mean((2, 3)))


class Nodes(nn.Module):
    """A graph network whose batch are the nodes of one graph."""

    def __init__(self, positive: bool) -> None:
        super().__init__()
        self.links = LINKS / LINKS.sum(1, keepdim=True)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in ((10, 32), (32, 32), (32, 3)))
        for layer in self.layers if positive else ():
            nn.init.uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(self.links @ x))
        return self.layers[-1](self.links @ x)


def convolutions(end: nn.Module | None = None, constant: bool = False) -> nn.Module:
    body = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    layers = [*body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)]
    for layer in layers if constant else ():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.ones_(layer.weight)
    return nn.Sequential(*layers, *([end] if end else []))


def ce(output: Tensor) -> Tensor:
    return F.cross_entropy(output, LABELS)


def by_hand(output: Tensor) -> Tensor:
    return -F.log_softmax(output, 1)[torch.arange(16), LABELS].mean()


def logits(output: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output, MASK)


def to_table(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda output: F.huber_loss(output, TABLE.clamp(-1, 1) * scale)


def absolute(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda output: (output.squeeze(1) - NUMBERS * scale).abs().mean()


def log_cosh(target: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda output: torch.log(torch.cosh(output - target)).mean()


def nll(output: Tensor) -> Tensor:
    return F.gaussian_nll_loss(output[:, 0], NUMBERS, output[:, 1] ** 2)


class Half(NamedTuple):
    """A network, made when it is needed, with its inputs and its loss."""

    make: Callable[[], nn.Module]
    x: Tensor
    loss: Callable[[Tensor], Tensor]


def softmax(x: Tensor) -> Tensor:
    return F.softmax(x, 1)


def gru(out: int = 3, end: Act = lambda x: x) -> nn.Module:
    return Reader(nn.GRU, out, end)


def same(x: Tensor) -> Tensor:
    return x


# What is told, by what is wrong; the faulty network and the mended one.
PAIRS: dict[str, tuple[str, Half, Half]] = {
    "an LSTM without batch_first": (
        "GP608",
        Half(lambda: Reader(nn.LSTM, batch_first=False), SEQUENCES, ce),
        Half(lambda: Reader(nn.LSTM), SEQUENCES, ce),
    ),
    "attention over the samples": (
        "GP608",
        Half(lambda: Attention(0), SEQUENCES, ce),
        Half(Attention, SEQUENCES, ce),
    ),
    "a sigmoid in front of a loss of logits": (
        "GP702",
        Half(lambda: Segmenter(torch.sigmoid), IMAGES, logits),
        Half(Segmenter, IMAGES, logits),
    ),
    "a softmax in front of a cross entropy written out": (
        "GP702",
        Half(lambda: gru(end=softmax), SEQUENCES, by_hand),
        Half(gru, SEQUENCES, by_hand),
    ),
    "a softmax over the one channel": (
        "GP701",
        Half(lambda: Segmenter(softmax), IMAGES, lambda o: F.mse_loss(o, MASK)),
        Half(lambda: Segmenter(torch.sigmoid), IMAGES, lambda o: F.mse_loss(o, MASK)),
    ),
    "a ReLU6 as logits": (
        "GP703",
        Half(lambda: convolutions(nn.ReLU6()), IMAGES, ce),
        Half(convolutions, IMAGES, ce),
    ),
    "raw sensors": (
        "GP602",
        Half(gru, SEQUENCES * 800 + 3000, ce),
        Half(gru, SEQUENCES, ce),
    ),
    "pixels as they are": (
        "GP602",
        Half(convolutions, IMAGES.abs() * 100, ce),
        Half(convolutions, IMAGES, ce),
    ),
    "queries and keys that are zero": (
        "GP706",
        Half(lambda: Attention(zero=True), SEQUENCES, ce),
        Half(Attention, SEQUENCES, ce),
    ),
    "a sigmoid that is to give standardised features": (
        "GP704",
        Half(lambda: Autoencoder(torch.sigmoid), TABLE, to_table(1)),
        Half(lambda: Autoencoder(same), TABLE, to_table(1)),
    ),
    "actions beyond tanh": (
        "GP704",
        Half(lambda: Autoencoder(torch.tanh), TABLE, to_table(3)),
        Half(lambda: Autoencoder(lambda x: 3 * torch.tanh(x)), TABLE, to_table(3)),
    ),
    "a deviation that is clamped": (
        "GP712",
        Half(lambda: Gaussian(2.0), TABLE, nll),
        Half(lambda: Gaussian(1e-3), TABLE, nll),
    ),
    "cells in a list": (
        "GP708",
        Half(lambda: Stacked(False), SEQUENCES, ce),
        Half(lambda: Stacked(True), SEQUENCES, ce),
    ),
    "a loop of bare parameters": (
        "GP710",
        Half(lambda: OwnLoop(F.relu, 1.6), LONG, ce),
        Half(lambda: OwnLoop(torch.tanh, 0.9), LONG, ce),
    ),
    "a loop of convolutions": (
        "GP710",
        Half(lambda: ConvLoop(F.relu), IMAGES, ce),
        Half(lambda: ConvLoop(torch.tanh), IMAGES, ce),
    ),
    "nodes behind positive weights": (
        "GP709",
        Half(lambda: Nodes(True), TABLE.abs(), ce),
        Half(lambda: Nodes(False), TABLE.abs(), ce),
    ),
    "filters of ones": (
        "GP707",
        Half(lambda: convolutions(constant=True), IMAGES, ce),
        Half(convolutions, IMAGES, ce),
    ),
    "prices, by their absolute error": (
        "GP606",
        Half(lambda: gru(1), SEQUENCES, absolute(1e5)),
        Half(lambda: gru(1), SEQUENCES, absolute(1)),
    ),
    "broadcast in a loss of one's own": (
        "GP711",
        Half(lambda: gru(1), SEQUENCES, log_cosh(NUMBERS)),
        Half(lambda: gru(1), SEQUENCES, log_cosh(NUMBERS[:, None])),
    ),
    "a head that is nearly zero": (
        "GP605",
        Half(lambda: Segmenter(scale=1e-6), IMAGES, logits),
        Half(Segmenter, IMAGES, logits),
    ),
}


@pytest.mark.parametrize("what", PAIRS)
def test_the_cause_comes_first_and_is_gone_when_it_is_mended(what: str) -> None:
    code, faulty, mended = PAIRS[what]
    told = []
    for half in (faulty, mended):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = gradprobe.probe(half.make(), half.x, loss=half.loss, deep=True)
        told.append([f.rule for f in report.findings if f.severity])
    causes, rest = ([c for c in codes if c.startswith(("GP6", "GP7"))] for codes in told)
    assert causes[:1] == [code]
    assert rest == []
