"""Each cause seen on networks built to have it, and not on the same networks without it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradprobe
from gradprobe.verdict.report import Report
from gradprobe.verdict.rules.table import EFFECTS, RANKING, RULES

G = torch.Generator().manual_seed(0)
X, IMAGES = torch.randn(32, 8, generator=G), torch.randn(32, 1, 8, 8, generator=G)
SEQUENCE = torch.randn(32, 6, 8, generator=G)
LABELS, TARGETS = torch.arange(32) % 4, torch.rand(32, 4, generator=G)


def mlp(act: type[nn.Module] = nn.ReLU, *last: nn.Module, out: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    first, middle, head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, out)
    return nn.Sequential(first, act(), middle, act(), head, *last)


def cnn(act: type[nn.Module] = nn.ReLU, *last: nn.Module, out: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 8, 3, padding=1), act(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1)]
    return nn.Sequential(*body, act(), nn.Flatten(), nn.Linear(128, out), *last)


class DroppedPath(nn.Module):
    """Stochastic depth, of a branch that few samples take."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x * ((torch.rand(len(x), 1, 1, 1) < 0.1) / 0.1)


class Reader(nn.Module):
    """A recurrent layer read at its last position, in functional style."""

    def __init__(self, end: Callable[[Tensor], Tensor] = lambda x: x, out: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.end = nn.GRU(8, 16, batch_first=True), end
        self.fc, self.head = nn.Linear(16, 16), nn.Linear(16, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.head(F.relu(self.fc(self.layer(x)[0][:, -1]))))


def initialised(model: nn.Module, change: Callable[[Tensor], object]) -> nn.Module:
    for parameter in model.parameters():
        change(parameter.data if parameter.dim() > 1 else parameter.data.zero_())
    return model


def normed(model: nn.Sequential, norm: nn.Module) -> nn.Sequential:
    return model.insert(1, norm)


def weights_only(model: nn.Module, change: Callable[[Tensor], object]) -> nn.Module:
    for parameter in model.parameters():
        if parameter.dim() > 1:
            change(parameter.data)
    return model


def lowered(model: nn.Module) -> nn.Module:
    """With smaller outputs of the last linear layer."""
    head = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    head.bias.data -= 0.3
    return model


def pooled() -> nn.Sequential:
    """Its pool leaves one element of each channel."""
    torch.manual_seed(0)
    pool = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(pool, nn.Flatten(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def raw_nll(output: Tensor) -> Tensor:
    return F.nll_loss(output, LABELS)


def divergence(logarithms: bool) -> Callable[[Tensor], Tensor]:
    """Of smoothed labels, which may be given as logarithms; a teacher's are logits."""
    shares = F.one_hot(LABELS, 4) * 0.8 + 0.05
    target = shares.log() if logarithms else shares
    return lambda output: F.kl_div(output, target, reduction="sum", log_target=logarithms)


def likely(output: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output, F.one_hot(LABELS, 4).float())


def ce(output: Tensor) -> Tensor:
    return F.cross_entropy(output, LABELS)


def of_few(output: Tensor) -> Tensor:
    return F.cross_entropy(output, LABELS[: len(output)])


def mse(output: Tensor) -> Tensor:
    return F.mse_loss(output, TARGETS[:, : output.shape[1]])


def written_out(target: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda output: ((output - target) ** 2).mean()


def quiet(loss: Callable[..., Tensor], target: Tensor) -> Callable[[Tensor], Tensor]:
    """A loss whose warnings nobody wants to hear."""

    def of(output: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return loss(output, target)

    return of


class Case(NamedTuple):
    """A network, its inputs and its loss."""

    model: nn.Module
    x: object
    loss: Callable[[Tensor], Tensor]


class Stray(nn.Module):
    """Layers in a plain list, a dictionary or an attribute that is no parameter."""

    def __init__(self, how: str, faulty: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(8, 8) for _ in range(2)]
        self.how, self.head = how, nn.Linear(8, 4)
        if how == "list":
            self.inner = layers if faulty else nn.ModuleList(layers)
        elif how == "dict":
            named = {"a": layers[0], "b": layers[1]}
            self.inner = named if faulty else nn.ModuleDict(named)
        else:
            weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(1)) / 3
            self.inner = weight.requires_grad_() if faulty else nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "tensor":
            return self.head(F.relu(x @ self.inner))
        inner = self.inner.values() if self.how == "dict" else self.inner
        for layer in inner:
            x = F.relu(layer(x))
        return self.head(x)


def half(scale: float, *models: nn.Module) -> list[Case]:
    return [
        Case(m.half(), x.half(), lambda o: F.cross_entropy(o.float(), LABELS) * scale)
        for m, x in zip(models, (X, IMAGES, SEQUENCE[:, 0]), strict=True)
    ]


class Batchwise(nn.Module):
    """Attention over the samples, where `batch_first` is missing."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=not faulty)
        self.fc, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.fc(self.attention(x, x, x)[0].mean(1))))


class Projected(Batchwise):
    """Behind a fixed matrix, which is no graph's adjacency: it is of the features."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x @ torch.eye(8))


class Words(nn.Module):
    """Tokens through a transformer's layer, which takes them for one long batch."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(20, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=not faulty)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.words(x)).mean(1))


class Cell(nn.Module):
    """A loop whose state is multiplied by more than 1 in each step."""

    def __init__(self, faulty: bool, joint: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.x, self.h, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.both = nn.Linear(24, 16)
        with torch.no_grad():
            self.h.weight.copy_(1.5 * torch.eye(16))
            self.both.weight[:, 8:] = 1.5 * torch.eye(16)
        self.act, self.joint = (F.relu if faulty else torch.tanh), joint

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 16)
        for now in x.unbind(1):
            mixed = self.both(torch.cat([now, state], 1)) if self.joint else None
            state = self.act(self.x(now) + self.h(state) if mixed is None else mixed)
        return self.head(state)


class Brink(nn.Module):
    """A long memory with a ReLU in it, whose state holds only just; or tanh."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.x, self.h, self.head = (
            nn.Linear(8, 16),
            nn.Linear(16, 16, bias=False),
            nn.Linear(16, 4),
        )
        self.keep, self.act = nn.Linear(8, 16), (F.relu if faulty else torch.tanh)
        nn.init.constant_(self.keep.bias, 1.0)
        nn.init.orthogonal_(self.h.weight, 1.2)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 16)
        for now in x.unbind(1):
            keep = torch.sigmoid(self.keep(now))
            state = keep * state + (1 - keep) * self.act(self.x(now) + self.h(state))
        return self.head(state)


class Elman(nn.Module):
    """torch's own layer, with weights that let a ReLU's state grow."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.RNN(8, 16, nonlinearity="relu" if faulty else "tanh", batch_first=True)
        self.fc, self.head = nn.Linear(16, 16), nn.Linear(16, 4)
        nn.init.orthogonal_(self.layer.weight_hh_l0, 2.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.fc(self.layer(x)[0][:, -1])))


class Talking(nn.Module):
    """Attention whose heads are mixed once their weights sum to 1: over the keys, or the heads."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.mix, self.head = nn.Linear(8, 24), nn.Linear(4, 4), nn.Linear(8, 4)
        self.axis = 3 if faulty else 2

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, 4, 2)).unbind(2)  # (samples, places, heads, 2)
        weights = self.mix(torch.einsum("bqhd,bkhd->bqkh", q, k).softmax(self.axis))
        read = torch.einsum("bqkh,bkhd->bqhd", weights, v)
        return self.head((x + read.flatten(2)).mean(1))


class Two(nn.Module):
    """Two outputs a sample, of which one is rounded, clamped away or cut off."""

    def __init__(self, how: str, faulty: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        self.head, self.how, self.faulty = nn.Linear(16, 4), how, faulty

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.head(self.body(x)).split((3, 1), 1)
        if self.faulty:
            ways = {"round": b.round, "clamp": lambda: b.clamp(5, 9), "detach": b.detach}
            b = ways[self.how]()
        return torch.cat([a, b], 1)


class Map(nn.Module):
    """A picture of four channels, the last of which a ReLU holds at zero."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (
            nn.Conv2d(i, o, 3, padding=1) for i, o in ((1, 8), (8, 8), (8, 4))
        )
        with torch.no_grad():
            self.c.bias[3] -= 9 * faulty
            self.c.bias[:3] += 1

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.c(torch.tanh(self.b(torch.tanh(self.a(x))))))


class Curved(nn.Module):
    """A function of two coordinates, and its curvature along the first."""

    def __init__(self, act: Callable[[], nn.Module], way: str = "grad") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.f = nn.Sequential(nn.Linear(2, 16), act(), nn.Linear(16, 16), act(), nn.Linear(16, 1))
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        u = self.f(x)
        if self.way == "hessian":
            hessian = torch.autograd.functional.hessian(
                lambda x: self.f(x).sum(), x, create_graph=True
            )
            return torch.cat([u, hessian.sum(2)[:, 0]], 1)
        [slope] = torch.autograd.grad(u.sum(), x, create_graph=True)
        if self.way == "penalty":
            return torch.cat([u, slope], 1)
        [bend] = torch.autograd.grad(slope[:, 0].sum(), x, create_graph=True)
        return torch.cat([u, bend[:, :1]], 1)


class Steps(nn.Module):
    """A loop whose state is handed on by ``way``, each ``every`` steps."""

    def __init__(self, kind: str, way: Callable[[Tensor], Tensor], every: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRUCell(8, 16) if kind == "cell" else nn.Linear(24, 16)
        self.x, self.h, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.kind, self.way, self.every = kind, way, every
        self.embed = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        state, total = x.new_zeros(len(x), 16), x.new_zeros(len(x), 4)
        for step, now in enumerate(x.unbind(1)):
            state = self.way(state) if step % self.every == 0 else state
            if self.kind == "cell":
                state = self.cell(self.embed(now), state)
            elif self.kind == "joint":
                state = torch.tanh(self.cell(torch.cat([now, state], 1)))
            else:
                state = torch.tanh(self.x(now) + self.h(state))
            total = total + self.head(state)
        return total if self.kind == "each" else self.head(state)


class Refined(nn.Module):
    """A guess that layer by layer is refined, and detached between, beside a state that is not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.change = nn.Linear(8, 16), nn.Linear(16, 4)
        self.layers = nn.ModuleList(nn.Linear(20, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        state, guess = torch.tanh(self.first(x)), x.new_zeros(len(x), 4)
        for layer in self.layers:
            state = state + torch.tanh(layer(torch.cat([state, guess.detach()], 1)))
            guess = guess.detach() + self.change(state)
        return guess


class Settled(nn.Module):
    """A fixed point that is looked for without a graph, and with one in the last step."""

    def __init__(self, graph: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.x, self.h, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.graph = graph

    def forward(self, x: Tensor) -> Tensor:
        state, now = x.new_zeros(len(x), 16), self.x(x)
        with torch.set_grad_enabled(self.graph):
            for _ in range(4):
                state = torch.tanh(now + self.h(state))
        return self.head(torch.tanh(now + self.h(state.detach())))


class Views(nn.Module):
    """One network of three views, of which the last alone is trained, to foretell the others."""

    def __init__(self, *first: nn.Module) -> None:
        super().__init__()
        self.f, self.p = nn.Sequential(*first, *mlp()), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = (self.f(view).detach() for view in (x[:, 0], x[:, 1]))
        return self.p(self.f(x[:, 2])) - (a + b) / 2


class Calls(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Tied(nn.Module):
    """A language model whose output has the weights of its embedding."""

    def __init__(self, std: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.fc = nn.Embedding(40, 64), nn.Linear(64, 64)
        self.norm = nn.LayerNorm(64)
        nn.init.normal_(self.words.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x)
        return F.linear(self.norm(h + F.gelu(self.fc(h))), self.words.weight)


class Cosines(nn.Module):
    """Cosines of features and weights, times a scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.body, self.scale = mlp(out=8), scale
        self.weight = nn.Parameter(torch.randn(4, 8, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor) -> Tensor:
        cosines = F.linear(F.normalize(self.body(x)), F.normalize(self.weight))
        return cosines if self.scale == 1 else cosines * self.scale


def connected(logarithm: bool) -> Callable[[Tensor], Tensor]:
    """CTC, whose inputs are (steps, samples, classes)."""

    def loss(output: Tensor) -> Tensor:
        scores = output.expand(5, 32, 4)
        lengths = torch.full((32,), 5), torch.full((32,), 1)
        scores = scores.log_softmax(2) if logarithm else scores
        return F.ctc_loss(scores, LABELS[:, None] % 3 + 1, *lengths)

    return loss


def chance(shares: Tensor) -> Tensor:
    return F.binary_cross_entropy(shares, TARGETS.round())


def written_log(shares: Tensor) -> Tensor:
    return -(shares.clamp(1e-6, 1) + 1e-9).log()[torch.arange(32), LABELS].mean()


def clamped_log(raw: bool) -> Callable[[Tensor], Tensor]:
    return lambda output: written_log(output if raw else output.softmax(1))


def policy(logits: Tensor) -> Tensor:
    return -torch.distributions.Categorical(logits=logits).log_prob(LABELS).mean()


def numpy_copy(x: Tensor) -> Tensor:
    return torch.from_numpy(x.detach().numpy().copy())


MISSING = SEQUENCE.where(torch.rand(SEQUENCE.shape, generator=G) > 0.02, torch.nan)
LONG = torch.randn(32, 30, 8, generator=G)
ZEROS = torch.nn.init.zeros_


def cases(faulty: bool) -> dict[str, list[Case]]:
    """By rule: networks that have the fault, or the same without it."""
    raw = 255.0 if faulty else 1.0
    soft = [nn.Softmax(1)] if faulty else []
    relu = [nn.ReLU()] if faulty else []
    off, tiny = (50.0, 1e-4) if faulty else (1.0, 0.1)
    one = nn.Softmax(1) if faulty else nn.Sigmoid()
    low = TARGETS * 2 - 1 if faulty else TARGETS
    between = nn.Softmax if faulty else nn.Tanh
    large = (lambda w: w.mul_(200)) if faulty else (lambda w: w)
    constant = (lambda w: w.fill_(0.05)) if faulty else (lambda w: w)
    zero = ZEROS if faulty else (lambda w: w)
    sign = (lambda w: w.abs_().mul_(3)) if faulty else (lambda w: w)
    flat = (lambda w: w.mul_(60)) if faulty else (lambda w: w)
    shaped = TARGETS[:, 0] if faulty else TARGETS[:, :1]
    nll = raw_nll if faulty else ce
    label = TARGETS.round() * 2 - 1 if faulty else TARGETS.round()
    apart = [nn.Unflatten(1, (16, 1)), nn.LayerNorm(1), nn.Flatten()] if faulty else []

    shares = TARGETS if faulty else TARGETS.softmax(1)
    sums = [nn.LogSoftmax(1)] if faulty else []
    kinked = [nn.ReLU, nn.LeakyReLU, nn.ReLU6] if faulty else [nn.Tanh, nn.SiLU, nn.GELU]
    detach = Tensor.detach if faulty else Tensor.clone
    tanh = [nn.Tanh()] if faulty else []
    drop = [nn.Dropout(0.5)] if faulty else []
    words = torch.arange(192).reshape(32, 6) % 40
    share = 0.95 if faulty else 0.5
    few = 2 if faulty else 4
    added = 1e3 if faulty else 1e-2
    unbent = [nn.Identity, partial(nn.BatchNorm1d, 16)] if faulty else [nn.ReLU, nn.Tanh]
    products, corners = X[:, :4] * X[:, 4:], X.sign() * (torch.arange(8) < 2)
    odd = (corners[:, :1] != corners[:, 1:2]).float()

    def bce(output: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, label)

    def end(output: Tensor) -> Tensor:
        return F.layer_norm(output[..., None], (1,))[..., 0] if faulty else output

    return {
        "GP601": [
            Case(initialised(mlp(), lambda w: w), X * (not faulty), ce),
            Case(cnn(), IMAGES * (not faulty), ce),
            Case(Reader(), SEQUENCE * (not faulty), ce),
        ],
        "GP610": [
            Case(mlp(), X[:1].expand(32, 8) if faulty else X, ce),
            Case(cnn(), IMAGES[:1].repeat(32, 1, 1, 1) if faulty else IMAGES, mse),
            Case(Reader(), SEQUENCE[:1].repeat(32, 1, 1) if faulty else SEQUENCE, ce),
            Case(mlp(), X[:1].repeat(32, 1), lambda o: (o - 0.5).square().mean()),
        ][: 3 if faulty else None],
        "GP602": [
            Case(mlp(), X * raw, ce),
            Case(cnn(), IMAGES.abs() * raw, ce),
            Case(Reader(), SEQUENCE * raw, ce),
        ],
        "GP603": [
            Case(weights_only(mlp(nn.Sigmoid), flat), X, ce),
            Case(weights_only(cnn(nn.Tanh), flat), IMAGES, ce),
            Case(weights_only(Gated(), flat), SEQUENCE, ce),
        ],
        "GP604": [
            Case(lowered(mlp(nn.ReLU, *relu)), X, mse),
            Case(lowered(cnn(nn.ReLU, *relu)), IMAGES, mse),
            Case(lowered(Reader(F.relu if faulty else lambda x: x)), SEQUENCE, mse),
            *(Case(make(), x, clamped_log(faulty)) for make, x in ((mlp, X), (cnn, IMAGES))),
        ],
        "GP606": [
            Case(weights_only(mlp(), large), X, ce),
            Case(mlp(), X, written_out(TARGETS * off)),
            Case(Reader(), SEQUENCE, lambda o: F.mse_loss(o, TARGETS * off)),
            Case(mlp(), X, lambda o: F.mse_loss(o, 1 + TARGETS * tiny)),
            Case(
                Tied(9.0 if faulty else 0.02),
                words,
                lambda o: F.cross_entropy(o.flatten(0, 1), words.roll(1, 1).flatten()),
            ),
            Case(
                Tied(0.02),
                words,
                lambda o: (
                    F.cross_entropy(o.flatten(0, 1), words.roll(1, 1).flatten())
                    + F.mse_loss(o[:, -1, 0], 1 + 0.05 * torch.arange(len(o)) / len(o))
                ),
            ),
        ][: 5 if faulty else None],
        "GP607": half(1e-5 if faulty else 1.0, mlp(), cnn(), Functional(False)),
        "GP608": [
            Case(mlp(nn.ReLU, nn.Softmax(0 if faulty else 1)), X, written_out(TARGETS.softmax(1))),
            Case(Batchwise(faulty), SEQUENCE, ce),
            Case(Projected(faulty), SEQUENCE, ce),
            Case(Words(faulty), torch.arange(192).reshape(32, 6) % 20, ce),
        ],
        "GP701": [
            Case(mlp(nn.Tanh, one, out=1), X, mse),
            Case(cnn(nn.Tanh, one, out=1), IMAGES, mse),
            Case(Reader(one, out=1), SEQUENCE, mse),
        ],
        "GP702": [
            Case(mlp(nn.ReLU, *soft), X, ce),
            Case(cnn(nn.ReLU, *soft), IMAGES, ce),
            Case(Reader(lambda x: F.softmax(x, 1) if faulty else x), SEQUENCE, ce),
            Case(mlp(nn.ReLU, *soft), X, policy),
            Case(mlp(nn.ReLU, *soft, nn.Sigmoid()), X, chance),
            Case(cnn(nn.ReLU, *soft, nn.Softmax(1)), IMAGES, written_log),
            Case(
                Reader(torch.sigmoid),
                SEQUENCE,
                lambda o: chance(o.sigmoid() if faulty else o),
            ),
            *(Case(make(), x, nll) for make, x in ((mlp, X), (cnn, IMAGES), (Reader, SEQUENCE))),
            Case(mlp(nn.ReLU, nn.LogSoftmax(0 if faulty else 1)), X, raw_nll),
            Case(cnn(), IMAGES, connected(not faulty)),
            Case(mlp(nn.ReLU, *(soft or [nn.LogSoftmax(1)])), X, divergence(False)),
            Case(cnn(nn.ReLU, *(soft or [nn.LogSoftmax(1)])), IMAGES, divergence(True)),
            Case(
                Reader(lambda x: x if faulty else F.log_softmax(x, 1)), SEQUENCE, divergence(True)
            ),
            Case(
                mlp(),
                X,
                lambda o: divergence(False)((F.softmax if faulty else F.log_softmax)(o, 1)),
            ),
        ],
        "GP611": [
            Case(mlp(nn.ReLU, *tanh), X, ce),
            Case(cnn(nn.ReLU, *tanh), IMAGES, likely),
            Case(Reader(torch.tanh if faulty else lambda x: x), SEQUENCE, ce),
            Case(Cosines(1.0 if faulty else 16.0), X, ce),
            Case(mlp(nn.ReLU, nn.Tanh(), out=2), X, lambda o: F.cross_entropy(o, LABELS % 2)),
            Case(
                Cosines(1.0),
                X,
                lambda o: F.binary_cross_entropy(o.clamp(1e-6, 1 - 1e-6), (o > 0).float()),
            ),
        ][: 4 if faulty else None],
        "GP612": [
            Case(mlp(nn.ReLU, *drop), X, ce),
            Case(cnn(nn.ReLU, *drop), IMAGES, mse),
            Case(Reader(partial(F.dropout, p=0.2) if faulty else lambda x: x), SEQUENCE, ce),
            Case(mlp(lambda: nn.Sequential(nn.Tanh(), nn.Dropout(0.5))), X, ce),
            Case(mlp(nn.ReLU, Calls(lambda x: x * torch.full((1, 4), 2.0))), X, ce),
        ][: 3 if faulty else None],
        "GP613": [
            Case(mlp(), X, lambda o: mse(o) + added * o.square().sum()),
            Case(cnn(), IMAGES, lambda o: (ce(o) + added * o.exp().sum(1).mean()) / 2),
            Case(Reader(), SEQUENCE, lambda o: mse(o) + added * (o - TARGETS).square().mean()),
        ][: 2 if faulty else None],
        "GP614": [
            *(Case(mlp(act), X, lambda o: F.mse_loss(o, products)) for act in unbent),
            Case(mlp(unbent[0], nn.Sigmoid(), out=1), corners, lambda o: F.mse_loss(o, odd)),
            Case(mlp(unbent[1], out=1), corners, lambda o: F.soft_margin_loss(o, odd * 2 - 1)),
            Case(mlp(nn.Identity), X, lambda o: F.mse_loss(o, X[:, :4] - X[:, 4:])),
            Case(mlp(nn.Identity), X[:16], lambda o: F.mse_loss(o, products[:16])),
        ][: 4 if faulty else None],
        "GP717": [
            Case(mlp(nn.ReLU, *sums), X, likely),
            Case(cnn(nn.ReLU, *sums), IMAGES, likely),
            Case(
                Reader(partial(F.log_softmax, dim=1) if faulty else lambda x: x), SEQUENCE, likely
            ),
        ],
        "GP703": [
            Case(mlp(nn.Tanh, *relu, nn.Sigmoid()), X, chance),
            Case(cnn(nn.Tanh, *relu, nn.Softmax(1)), IMAGES, written_log),
            Case(mlp(nn.Tanh, *relu), X, ce),
            Case(cnn(nn.Tanh, *relu), IMAGES, ce),
            Case(Reader(F.relu if faulty else lambda x: x), SEQUENCE, ce),
        ],
        "GP704": [
            Case(mlp(nn.ReLU, nn.Sigmoid()), X, lambda o: F.mse_loss(o, low)),
            Case(cnn(nn.ReLU, nn.Sigmoid()), IMAGES, written_out(low)),
            Case(Reader(torch.sigmoid), SEQUENCE, lambda o: (low - o).abs().mean()),
            Case(mlp(nn.ReLU, nn.Softmax(1)), X, lambda o: F.mse_loss(o, shares)),
            Case(cnn(nn.ReLU, nn.Softmax(1)), IMAGES, written_out(shares)),
            Case(Reader(partial(F.softmax, dim=1)), SEQUENCE, lambda o: (shares - o).abs().mean()),
            *(Case(make(), x, bce) for make, x in ((mlp, X), (cnn, IMAGES), (Reader, SEQUENCE))),
        ],
        "GP705": [
            Case(mlp(lambda: between(dim=1) if faulty else between()), X, ce),
            Case(cnn(lambda: between(dim=1) if faulty else between()), IMAGES, ce),
            Case(Functional(faulty), X, ce),
            Case(Talking(faulty), SEQUENCE, ce),
            Case(mlp(nn.ReLU, Calls(F.gumbel_softmax), nn.Linear(4, 4)), X, ce),
        ][: 4 if faulty else None],
        "GP706": [
            Case(initialised(mlp(), zero), X, ce),
            Case(initialised(cnn(), zero), IMAGES, ce),
        ],
        "GP707": [
            Case(initialised(mlp(), constant), X, ce),
            Case(initialised(cnn(), constant), IMAGES, ce),
        ],
        "GP708": [Case(Stray(how, faulty), X, ce) for how in ("list", "dict", "tensor")],
        "GP709": [
            Case(weights_only(mlp(), sign), X.abs() + 1, ce),
            Case(weights_only(cnn(), sign), IMAGES.abs() + 1, ce),
        ],
        "GP710": [
            *(Case(Cell(faulty, joint), LONG, ce) for joint in (False, True)),
            Case(Elman(faulty), LONG, ce),
            Case(Brink(faulty), LONG.repeat(1, 2, 1), ce),
        ],
        "GP711": [
            Case(mlp(out=1), X, quiet(F.mse_loss, shaped)),
            Case(cnn(out=1), IMAGES, quiet(nn.SmoothL1Loss(), shaped)),
            Case(Reader(out=1), SEQUENCE, lambda o: ((shaped - o) ** 2).mean()),
            Case(mlp(nn.Tanh, out=1), X, lambda o: (o - shaped).abs().mean()),
            Case(mlp(out=1), X, lambda o: (F.softplus(o) - o * shaped).mean()),
        ],
        "GP712": [
            *(Case(Two(how, faulty), X, mse) for how in ("round", "clamp", "detach")),
            Case(Map(faulty), IMAGES, lambda o: (o.mean((2, 3)) - TARGETS).square().mean()),
        ],
        "GP714": [
            *(Case(Attends(how, 300 if faulty else 1), SEQUENCE, ce) for how in (True, False)),
            Case(Gated(30 if faulty else 1), SEQUENCE, ce),
        ],
        "GP715": [
            Case(normed(mlp(), nn.Sequential(*apart)), X, ce),
            Case(normed(pooled(), nn.GroupNorm(8 if faulty else 2, 8)), IMAGES, ce),
            Case(normed(pooled(), nn.GroupNorm(4 if faulty else 2, 8)), IMAGES, ce),
            Case(Reader(end), SEQUENCE, mse),
        ],
        "GP615": [
            Case(normed(mlp(), nn.BatchNorm1d(16)), X[:few], of_few),
            Case(normed(pooled(), nn.BatchNorm2d(8)), IMAGES[:few], of_few),
            Case(normed(mlp(), nn.GroupNorm(2, 16)), X[:2], of_few),
        ][: 2 if faulty else None],
        "GP716": [
            Case(mlp(lambda: nn.Sequential(nn.Tanh(), nn.Dropout(share))), X, ce),
            Case(cnn(partial(nn.Dropout2d, share)), IMAGES, ce),
            Case(
                nn.Sequential(Reader(lambda x: F.dropout(x, share), out=16), nn.Linear(16, 4)),
                SEQUENCE,
                mse,
            ),
            Case(normed(mlp(), nn.Dropout(share)).eval(), X, ce),
            Case(normed(cnn(), DroppedPath()), IMAGES, ce),
        ][: 3 if faulty else None],
        "GP718": [
            *(Case(Curved(act), X[:, :2], mse) for act in kinked),
            Case(Curved(partial(Calls, torch.abs) if faulty else nn.Tanh), X[:, :2], mse),
            Case(Curved(kinked[0], "hessian"), X[:, :2], mse),
            Case(Curved(nn.ReLU, "penalty"), X[:, :2], mse),
        ][: 5 if faulty else None],
        "GP719": [
            *(Case(Steps(kind, detach), SEQUENCE, ce) for kind in ("cell", "joint", "apart")),
            Case(Steps("cell", numpy_copy if faulty else Tensor.clone), SEQUENCE, ce),
            *(Case(Steps(kind, Tensor.detach, 2), SEQUENCE, ce) for kind in ("cell", "joint")),
            Case(Steps("each", Tensor.detach), SEQUENCE, ce),
            Case(Refined(), X, ce),
            *(Case(Settled(graph), X, ce) for graph in (True, False)),
            Case(Views(), SEQUENCE, mse),
            Case(Views(Calls(torch.nan_to_num)), MISSING, mse),
        ][: 4 if faulty else None],
        "GP713": [
            Case(normed(cnn(), nn.BatchNorm2d(8)).train(not faulty), IMAGES, ce),
            Case(normed(mlp(), nn.BatchNorm1d(16)).train(not faulty), X, ce),
            Case(nn.Sequential(nn.BatchNorm1d(6), Reader()).train(not faulty), SEQUENCE, ce),
            Case(normed(cnn(), nn.InstanceNorm2d(8)).eval(), IMAGES, ce),
        ][: 3 if faulty else None],
    }


class Attends(nn.Module):
    """Attention that torch computes at once, or that is written out."""

    def __init__(self, fused: bool, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.out, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 4)
        self.fused, self.scale = fused, scale

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unsqueeze(1) for part in (self.qkv(x) * self.scale).chunk(3, -1))
        v = v / self.scale
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(2, 3) / 8**0.5).softmax(-1) @ v
        return self.head(F.relu(self.out(y[:, 0])).mean(1))


class Gated(nn.Module):
    """A transformer's layer of torch's own behind a gate."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.gate, self.head = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 4)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True)
        self.layer.self_attn.in_proj_weight.data[:32] *= scale

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.first(x) * self.gate(x).sigmoid()).mean(1))


class Functional(nn.Module):
    def __init__(self, faulty: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.faulty = faulty

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = F.softmax(h, -1) if self.faulty else F.gelu(h)
        return self.c(F.gelu(self.b(h)))


def look(case: Case) -> Report:
    return gradprobe.probe(case.model, case.x, loss=case.loss, deep=True)


@pytest.mark.parametrize("code", cases(True))
def test_a_cause_is_named_where_it_is(code: str) -> None:
    for case in cases(True)[code]:
        assert code in {f.rule for f in look(case).findings}, case.model


@pytest.mark.parametrize("code", cases(False))
def test_nothing_is_said_where_it_is_not(code: str) -> None:
    for case in cases(False)[code]:
        told = {f.rule for f in look(case).findings if f.severity}
        assert not {c for c in told if c.startswith(("GP6", "GP7"))}, case.model


def test_each_rule_of_a_cause_is_tried_and_ranked() -> None:
    codes = {rule.code for rule in RULES if rule.code.startswith(("GP6", "GP7"))}
    assert codes - set(cases(True)) == {"GP605", "GP609"}  # below
    assert codes <= set(RANKING)
    assert set(RANKING) | set(EFFECTS) <= {rule.code for rule in RULES}


@pytest.mark.parametrize("make", [mlp, cnn])
def test_a_gradient_that_is_lost_behind_the_trunk_is_said(make: Callable[..., nn.Module]) -> None:
    x = X if make is mlp else IMAGES
    model = make()
    assert "GP605" not in {f.rule for f in look(Case(model, x, ce)).findings}
    with torch.no_grad():
        model[-1].weight.mul_(1e-5)
    assert "GP605" in {f.rule for f in look(Case(model, x, ce)).findings}


@pytest.mark.parametrize("make", [mlp, cnn, Reader])
def test_a_learning_rate_is_held_against_what_is_stable(make: Callable[..., nn.Module]) -> None:
    """Gradient descent from there: above, the loss grows; well below, it falls."""
    x = {mlp: X, cnn: IMAGES, Reader: SEQUENCE}[make]
    y = TARGETS[:, :1]

    def loss(output: Tensor) -> Tensor:
        return F.mse_loss(output, y)

    def overshoots(rate: float) -> bool:
        """Whether the loss ever stands above where it began."""
        model, losses = make(out=1), []
        optimizer = torch.optim.SGD(model.parameters(), rate)
        for _ in range(8):
            optimizer.zero_grad()
            losses.append(loss(model(x)))
            losses[-1].backward()
            optimizer.step()
        return not max(losses).item() <= losses[0].item()

    stable = 2 / gradprobe.probe(make(out=1), x, loss=loss, lr=1e-6).profile.further.curvature
    for rate, is_large in ((0.3 * stable, False), (6 * stable, True)):
        told = gradprobe.probe(make(out=1), x, loss=loss, lr=rate).findings
        assert ("GP609" in {f.rule for f in told}) == is_large
        assert overshoots(rate) == is_large


def test_the_curvature_of_a_linear_model_is_between_its_eigenvalues() -> None:
    """Of mean squares of x·w the Hessian is 2 xᵀx / n."""
    x, y = X.double(), TARGETS[:, :1].double()
    torch.manual_seed(0)
    model = nn.Linear(8, 1, bias=False).double()
    report = gradprobe.probe(model, x, loss=lambda o: F.mse_loss(o, y), lr=0.01)
    hessian = 2 * x.T @ x / len(x)
    gradient = 2 * x.T @ (model(x) - y).detach() / len(x)
    along = float((hessian @ gradient).norm() / gradient.norm())
    assert along < float(torch.linalg.eigvalsh(hessian).max())
    assert report.profile.further.curvature == pytest.approx(along, rel=1e-6)


def test_a_learning_rate_needs_a_loss_with_a_curvature() -> None:
    with pytest.raises(gradprobe.GradprobeError, match="linear"):
        gradprobe.probe(mlp(), X, lr=0.1)


@pytest.mark.parametrize("make", [mlp, cnn, Reader])
def test_a_loss_that_tells_no_samples_apart_is_noted(make: Callable[..., nn.Module]) -> None:
    x = {mlp: X, cnn: IMAGES, Reader: SEQUENCE}[make]

    def told(loss: Callable[[Tensor], Tensor], out: int = 4) -> set[str]:
        return {f.rule for f in look(Case(make(out=out), x, loss)).findings}

    assert "GP406" in told(lambda o: -o.mean(), 1)
    assert "GP406" in told(lambda o: F.cross_entropy(o, LABELS * 0))
    assert "GP406" not in told(ce)
    assert "GP406" not in told(lambda o: F.mse_loss(o, TARGETS[:, :1] * 3 + 100), 1)
    assert "GP406" not in told(lambda o: F.l1_loss(o, TARGETS[:, :1] * 3 + 100), 1)


def test_targets_that_are_all_the_same_leave_no_constant_guess_to_be_better_than() -> None:
    report = gradprobe.probe(mlp(), X, loss=lambda y: F.mse_loss(y, torch.full_like(y, 100.0)))
    [finding] = [f for f in report.findings if f.rule == "GP606"]
    assert finding.message == "the targets are not scaled: RMS 100"


def test_what_torch_warns_of_is_noted_each_time_and_heard() -> None:
    """Also at a second probe in one process, and by whoever listens."""

    def loss(output: Tensor) -> Tensor:
        return F.mse_loss(output, TARGETS[:1])

    for make, x in ((mlp, X), (mlp, X), (cnn, IMAGES), (Reader, SEQUENCE)):
        with pytest.warns(UserWarning, match="Using a target size"):
            report = gradprobe.probe(make(), x, loss=loss)
        assert [f.severity.name for f in report.findings if f.rule == "GP407"] == ["INFO"]
        assert not [f for f in look(Case(make(), x, mse)).findings if f.rule == "GP407"]


def test_an_effect_is_told_behind_its_cause_and_with_its_cure() -> None:
    report = look(Case(initialised(mlp(), ZEROS), X, ce))
    first, *others = [f for f in report.findings if f.severity]
    assert first.rule == "GP706"
    assert all(f.advice.startswith("mend GP706") for f in others if f.rule in EFFECTS)


def test_a_mask_of_a_whole_sample_is_named_as_what_makes_nan() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.q, self.o, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            scores = self.q(x) @ x.transpose(1, 2)
            weights = scores.masked_fill(mask[:, None], float("-inf")).softmax(-1)
            return self.head(self.o(weights @ x).mean(1))

    mask = torch.zeros(32, 6, dtype=torch.bool)
    for padding in (False, True):
        mask[3] = padding
        findings = look(Case(Masked(), (SEQUENCE, mask), ce)).findings
        told = [f.message for f in findings if f.rule == "GP301"]
        assert bool(told) == padding
        assert not told or "-inf" in told[0]


def frozen(act: Callable[[Tensor], Tensor]) -> nn.Module:
    """A frozen layer with an activation, adapted by two factors."""
    model = Functional(False)
    model.a.requires_grad_(False)
    model.c.requires_grad_(False)
    model.forward = lambda x: model.c(act(model.a(x) + act(model.b(model.a(x)))))
    return model


def test_layers_without_an_activation_are_one_layer() -> None:
    linear = [nn.Identity, partial(nn.Dropout, 0.2), partial(nn.BatchNorm1d, 16)]
    cases = [
        *(Case(mlp(act), X, ce) for act in linear),
        Case(cnn(nn.Identity).append(nn.Sigmoid()), IMAGES, mse),
        Case(mlp(nn.ReLU), X, ce),
        Case(mlp(nn.Tanh).append(nn.Tanh()), X, mse),
        Case(nn.Linear(8, 4), X, ce),
        Case(frozen(F.gelu), X, ce),
        Case(frozen(lambda x: x), X, ce),
    ]
    cases[3].model[2] = nn.AvgPool2d(2)
    told = ["GP408" in {f.rule for f in look(case).findings} for case in cases]
    assert told == [True] * 4 + [False] * 4 + [True]


def test_a_loss_on_what_is_rounded_is_dead_by_the_rounding() -> None:
    [dead] = look(Case(mlp(), X, lambda o: mse(o.sigmoid().round()))).findings[:1]
    assert (dead.rule, "round()" in dead.message) == ("GP201", True)
    assert "(h.round() - h).detach()" in dead.advice


def test_weights_that_are_binarised_are_dead_by_their_sign() -> None:
    class Binary(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight.sign()) / 4

    model = nn.Sequential(Binary(8, 16), nn.ReLU(), Binary(16, 4))
    told = [f for f in look(Case(model, X, ce)).findings if f.rule == "GP201"]
    assert [("sign()" in f.message, "(h.sign() - h)" in f.advice) for f in told] == [
        (True, True)
    ] * 2


class Pointed(nn.Module):
    """Reads a picture at points that it is told."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.points, self.head, self.scale = nn.Linear(8, 8), nn.Linear(4, 4), scale

    def forward(self, x: Tensor) -> Tensor:
        points = torch.tanh(self.points(x)).view(-1, 2, 2, 2) + (self.scale - 1)
        pictures = F.grid_sample(IMAGES, points * self.scale, align_corners=False)
        return self.head(F.relu(pictures.flatten(1)))


def overlap(width: float) -> Callable[[Tensor], Tensor]:
    """1 less the overlap of two intervals, as of boxes in a detector."""
    return lambda output: (
        1 - (width - (output[:, :1] - TARGETS[:, :1] - 9).abs()).clamp(min=0).mean()
    )


@pytest.mark.parametrize(
    ("model", "loss", "reason", "advice"),
    [
        (Pointed(9.0), ce, "grid_sample() reads are outside -1 to 1", "2 * pixel / (size - 1) - 1"),
        (mlp(), overlap(1.0), "100 % of what a clamp() gets is beyond its end", "GIoU"),
        (
            mlp(nn.Tanh, Calls(lambda x: (x + 9).clamp(0, 1)), nn.Linear(4, 4)),
            ce,
            "a clamp() gets",
            "widen it",
        ),
        (mlp(), lambda o: F.relu(o.square() - 99).mean(), "a relu() gets", "softplus"),
        (mlp(), lambda o: (o - o + 1).square().mean(), "no gradient on", "without detach()"),
    ],
    ids=["grid", "boxes", "between", "hinge", "itself"],
)
def test_what_holds_a_whole_gradient_back_is_named(
    model: nn.Module, loss: Callable[[Tensor], Tensor], reason: str, advice: str
) -> None:
    [dead] = [f for f in look(Case(model, X, loss)).findings if f.rule == "GP201"]
    assert reason in dead.message
    assert advice in dead.advice


def test_a_clamp_elsewhere_is_not_why_a_rectifier_is_dead() -> None:
    model = mlp(nn.ReLU)
    model[2].bias.data.fill_(-99)
    told = look(Case(model, X, lambda o: ce(o) + (1 - o.square()).clamp(max=0).mean())).findings
    [dead] = [f for f in told if f.rule == "GP201"]
    assert "a dead ReLU" in dead.message


def test_targets_that_are_hardly_apart_are_to_be_scaled() -> None:
    told = look(Case(mlp(), X, lambda o: F.mse_loss(o, 1 + TARGETS * 1e-4))).findings
    [far] = [f for f in told if f.rule == "GP606"]
    assert "the targets are not scaled: a standard deviation of" in far.message
    assert "y.std()" in far.advice
    told = look(Case(weights_only(mlp(), lambda w: w.mul_(200)), X, ce)).findings
    assert not any("targets" in f.message for f in told if f.rule == "GP606")


def test_a_bias_that_closes_a_gate_is_what_saturates_it() -> None:
    model = mlp(nn.Sigmoid)
    model[2].bias.data.fill_(-12)
    [flat] = [f for f in look(Case(model, X, ce)).findings if f.rule == "GP603"]
    assert flat.advice.startswith("nn.init.zeros_(model[2].bias) (with it: healthy")


def test_a_branch_with_a_small_factor_does_not_lose_the_gradient_behind_the_trunk() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.head = nn.Linear(8, 16), nn.Linear(16, 4)
            self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
            self.scale = nn.Parameter(torch.full((4, 16), 1e-5))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for layer, scale in zip(self.layers, self.scale, strict=True):
                x = x + scale * F.gelu(layer(F.layer_norm(x, (16,))))
            return self.head(x)

    assert "GP605" not in {f.rule for f in look(Case(Scaled(), X, ce)).findings}


def test_the_scales_of_norms_that_are_zero_are_named_and_no_relu() -> None:
    model = normed(normed(mlp(nn.GELU), nn.LayerNorm(16)), nn.LayerNorm(16))
    for parameter in model.parameters():
        if parameter.dim() < 2:
            nn.init.zeros_(parameter)
    [dead] = [f for f in look(Case(model, X, ce)).findings if f.rule == "GP201"]
    assert "all-zero scales" in dead.message
    assert "nn.init.ones_" in dead.advice


def test_inputs_that_are_shorter_than_their_targets_are_thought_of_in_ctc() -> None:
    def ctc(output: Tensor) -> Tensor:
        lengths, targets = torch.full((32,), 3), torch.ones(32, 4, dtype=torch.long)
        return F.ctc_loss(output.log_softmax(1).expand(3, 32, 4), targets, lengths, lengths + 1)

    [finding] = [f for f in look(Case(mlp(), X, ctc)).findings if f.rule == "GP301"]
    assert "as long as their targets" in finding.advice


@pytest.mark.parametrize("hides", [True, False])
def test_a_mask_that_leaves_the_padding_alone_is_thought_of(hides: bool) -> None:
    """Of the padding the embedding is zero, so that nothing arrives at what reads it."""
    torch.manual_seed(0)
    tokens = torch.tensor([[1, 2, 3, 0, 0], [3, 1, 0, 0, 0]] * 16)
    embedding, head = nn.Embedding(4, 8, padding_idx=0), nn.Linear(8, 4)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    model = nn.ModuleList([embedding, layer, head])

    def forward(x: Tensor) -> Tensor:
        return head(layer(embedding(x), src_key_padding_mask=(x == 0) == hides).mean(1))

    model.forward = forward
    told = [f.advice for f in look(Case(model, tokens, ce)).findings if f.rule == "GP201"]
    assert ["mask" in advice for advice in told] == [True] * (not hides)


class Beside(nn.Module):
    """Two layers side by side, in front of nothing."""

    def __init__(self, joined: Callable[[Tensor, Tensor], Tensor], more: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.joined = nn.Linear(8, 4), nn.Linear(8, 4), joined
        self.body = nn.Linear(8, 8) if more else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(self.a(self.body(x)), self.b(self.body(x * 2)))


@pytest.mark.parametrize("joined", [torch.add, lambda a, b: torch.cat([a, b], 1)])
def test_layers_are_counted_in_a_row_and_not_side_by_side(
    joined: Callable[[Tensor, Tensor], Tensor],
) -> None:
    for more in (False, True):
        report = look(Case(Beside(joined, more), X, lambda o: (o - 1).square().mean()))
        told = [f.message for f in report.findings if f.rule == "GP408"]
        assert ["its 2 layers" in message for message in told] == [True] * more


@pytest.mark.parametrize(
    "act",
    [
        lambda h: h * (h > 0),
        lambda h: h / (1 + (h < 0) * 9),
        lambda h: h + (h.sign() - h).detach(),
        lambda h: (h - h.detach()) + h.round().detach(),
        lambda h: h @ h.T @ h,
    ],
)
def test_an_activation_that_is_written_out_is_one(act: Callable[[Tensor], Tensor]) -> None:
    case = Case(mlp(lambda: Calls(act)), X / 8, ce)
    assert "GP408" not in {f.rule for f in look(case).findings}


def test_layers_between_which_is_only_what_is_linear_are_one() -> None:
    model = mlp(nn.Identity)
    model[1], model[3] = nn.Dropout(0.2), nn.Sequential(Calls(lambda x: 2 * x), nn.BatchNorm1d(16))
    [note] = [f for f in look(Case(model, X, ce)).findings if f.rule == "GP408"]
    assert "its 3 layers" in note.message


def test_a_list_with_one_layer_several_times_is_told() -> None:
    layer, act = nn.Linear(8, 8), nn.ReLU()
    of_one = nn.Sequential(layer, act, layer, act, layer, act, nn.Linear(8, 4))
    for model in (of_one, nn.Sequential(act, *of_one)):  # here the activation stands there oftener
        [note] = [f for f in look(Case(model, X, ce)).findings if f.rule == "GP409"]
        assert "3 times" in note.message
    assert note.severity.name == "INFO"
    apart = nn.Sequential(nn.Linear(8, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 4))
    assert "GP409" not in {f.rule for f in look(Case(apart, X, ce)).findings}
