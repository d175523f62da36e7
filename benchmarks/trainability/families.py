"""Small networks of the kinds that people train: 18 families, each at its own init and spoiled.

A network is told by its family and a ``Variant``: how deep it is, whether skips and norms are
there, how its weights are scaled. All take images of 3 × 32 × 32; those of ``PATCHES`` as 4 × 4
patches of 8 × 8.
``networks`` lists the whole set. The families of ``REPORT`` are only ever used to report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES, SIDE, PATCH = 10, 32, 8
POSITIONS = (SIDE // PATCH) ** 2
REPORT = ("preact", "shuffle", "repvgg", "squeeze", "sandwich", "parallel", "ssm", "graph", "unet")


@dataclass(frozen=True)
class Variant:
    """How a network of a family differs from its usual one."""

    depth: int = 4  # blocks
    skips: bool = True
    norms: bool = True
    scale: float = 1.0  # of every weight of two dimensions or more
    width: int = 16

    @property
    def name(self) -> str:
        words = [f"{self.depth} blocks"]
        words += [] if self.skips else ["no skips"]
        words += [] if self.norms else ["no norms"]
        words += [] if self.scale == 1 else [f"init x{self.scale:g}"]
        words += [] if self.width == 16 else [f"width {self.width}"]
        return ", ".join(words)


class Network(NamedTuple):
    family: str
    variant: Variant

    @property
    def name(self) -> str:
        return f"{self.family}: {self.variant.name}"


# ---- pieces


def conv(
    before: int, after: int, size: int = 3, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=bias)


class Skip(nn.Module):
    """x + branch(x), where there are skips; and what follows the sum."""

    def __init__(self, branch: nn.Module, skips: bool, after: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.after, self.skips = branch, after or nn.Identity(), skips

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        out: Tensor = self.after(x + y if self.skips else y)
        return out


def norm2(width: int, v: Variant) -> nn.Module:
    return nn.BatchNorm2d(width) if v.norms else nn.Identity()


def norm1(width: int, v: Variant) -> nn.Module:
    return nn.LayerNorm(width) if v.norms else nn.Identity()


def he(model: nn.Module) -> None:
    """torchvision's init of its convolutional networks."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def staged(v: Variant, block: Callable[[int, Variant], nn.Module]) -> nn.Sequential:
    """A stem to 4 × 4, half of the blocks, a step to 2 × 2 and twice the width, the other half."""
    width = v.width
    stem = nn.Sequential(conv(3, width, 7, stride=PATCH), norm2(width, v), nn.ReLU())
    down = nn.Sequential(conv(width, 2 * width, stride=2), norm2(2 * width, v), nn.ReLU())
    first = nn.Sequential(*(block(width, v) for _ in range((v.depth + 1) // 2)))
    second = nn.Sequential(*(block(2 * width, v) for _ in range(v.depth // 2)))
    return nn.Sequential(stem, first, down, second, *head(2 * width))


def head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)]


# ---- convolutions


def residual(width: int, v: Variant) -> nn.Module:
    """He et al. 2016: relu(x + norm conv relu norm conv)."""
    half = conv(width, width), norm2(width, v), nn.ReLU()
    return Skip(nn.Sequential(*half, conv(width, width), norm2(width, v)), v.skips, after=nn.ReLU())


def bottleneck(width: int, v: Variant) -> nn.Module:
    """ResNeXt's: 1 × 1, grouped 3 × 3, 1 × 1."""
    layers = [conv(width, width, 1), norm2(width, v), nn.ReLU()]
    layers += [conv(width, width, 3, groups=width // 8), norm2(width, v), nn.ReLU()]
    layers += [conv(width, width, 1), norm2(width, v)]
    return Skip(nn.Sequential(*layers), v.skips, after=nn.ReLU())


def preact(width: int, v: Variant) -> nn.Module:
    layers = [norm2(width, v), nn.ReLU(), conv(width, width)]
    layers += [norm2(width, v), nn.ReLU(), conv(width, width)]
    return Skip(nn.Sequential(*layers), v.skips)


def inverted(width: int, v: Variant) -> nn.Module:
    """MobileNetV2's: a wide depthwise convolution between two 1 × 1, the last one linear."""
    wide = 3 * width
    layers = [conv(width, wide, 1), norm2(wide, v), nn.ReLU6()]
    layers += [conv(wide, wide, 3, groups=wide), norm2(wide, v), nn.ReLU6()]
    layers += [conv(wide, width, 1), norm2(width, v)]
    return Skip(nn.Sequential(*layers), v.skips)


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


def squeeze(width: int, v: Variant) -> nn.Module:
    """RegNetY's."""
    layers = [conv(width, width, 1), norm2(width, v), nn.ReLU()]
    layers += [conv(width, width, 3, groups=width // 8), norm2(width, v), nn.ReLU()]
    layers += [Gate(width), conv(width, width, 1), norm2(width, v)]
    return Skip(nn.Sequential(*layers), v.skips, after=nn.ReLU())


class Shuffle(nn.Module):
    """ShuffleNetV2's: half of the channels pass, then all are shuffled."""

    def __init__(self, width: int, v: Variant) -> None:
        super().__init__()
        half = width // 2 if v.skips else width
        layers = [conv(half, half, 1), norm2(half, v), nn.ReLU()]
        layers += [conv(half, half, 3, groups=half), norm2(half, v)]
        layers += [conv(half, half, 1), norm2(half, v), nn.ReLU()]
        self.branch, self.skips = nn.Sequential(*layers), v.skips

    def forward(self, x: Tensor) -> Tensor:
        if not self.skips:
            out: Tensor = self.branch(x)
            return out
        keep, take = x.chunk(2, 1)
        return torch.stack([keep, self.branch(take)], 2).flatten(1, 2)


class Rep(nn.Module):
    """RepVGG's: 3 × 3, 1 × 1 and identity, each with its norm."""

    def __init__(self, width: int, v: Variant) -> None:
        super().__init__()
        self.wide = nn.Sequential(conv(width, width), norm2(width, v))
        self.thin = nn.Sequential(conv(width, width, 1), norm2(width, v))
        self.same = norm2(width, v) if v.skips else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x) + self.thin(x)
        return F.relu(y if self.same is None else y + self.same(x))


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def convnext(width: int, v: Variant) -> nn.Module:
    layers = [conv(width, width, 5, groups=width, bias=True)]
    layers += [LayerNorm2d(width)] if v.norms else []
    layers += [nn.Conv2d(width, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1)]
    return Skip(nn.Sequential(*layers), v.skips)


def vgg(width: int, v: Variant) -> nn.Module:
    return nn.Sequential(conv(width, width, bias=not v.norms), norm2(width, v), nn.ReLU())


class Grow(nn.Module):
    """DenseNet's: what is new is put beside what was there."""

    def __init__(self, before: int, growth: int, v: Variant) -> None:
        super().__init__()
        self.new = nn.Sequential(
            norm2(before, v), nn.ReLU(), conv(before, growth), norm2(growth, v), nn.ReLU()
        )
        self.skips = v.skips

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.new(x)
        return torch.cat([x, y], 1) if self.skips else y


def dense(v: Variant) -> nn.Module:
    width, growth = v.width, 8
    layers: list[nn.Module] = [conv(3, width, 7, stride=PATCH)]
    for _ in range(2 * v.depth):
        layers.append(Grow(width, growth, v))
        width = width + growth if v.skips else growth
    return nn.Sequential(*layers, norm2(width, v), nn.ReLU(), *head(width))


class UNet(nn.Module):
    """Down to 1 × 1 and up again; skips concatenate what went down."""

    def __init__(self, v: Variant) -> None:
        super().__init__()
        width, each = v.width, max(1, v.depth // 4)
        self.skips = v.skips

        def level(before: int, after: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for _ in range(each):
                layers += [conv(before, after, bias=not v.norms), norm2(after, v), nn.ReLU()]
                before = after
            return nn.Sequential(*layers)

        self.stem = conv(3, width, 7, stride=PATCH)
        self.down = nn.ModuleList([level(width, width), level(width, 2 * width)])
        self.middle = level(2 * width, 2 * width)
        extra = int(v.skips)
        self.up = nn.ModuleList(
            [level((2 + 2 * extra) * width, width), level((1 + extra) * width, width)]
        )
        self.out = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, kept = self.stem(x), []
        for part in self.down:
            x = part(x)
            kept.append(x)
            x = F.max_pool2d(x, 2)
        x = self.middle(x)
        for part in self.up:
            x, other = F.interpolate(x, scale_factor=2.0), kept.pop()
            x = part(torch.cat([x, other], 1) if self.skips else x)
        out: Tensor = self.out(x).mean((2, 3))
        return out


def autoencoder(v: Variant) -> nn.Module:
    """Linear layers that narrow to a code of 8 and widen to an image, which a last one reads."""
    count, code = 2 * v.depth, 8
    down = [round(128 * (code / 128) ** (k / count)) for k in range(count + 1)]
    layers: list[nn.Module] = [nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 128), nn.ReLU()]
    sizes = down + down[-2::-1]
    for before, after in pairwise(sizes):
        layers.append(nn.Sequential(nn.Linear(before, after), norm1(after, v), nn.ReLU()))
    return nn.Sequential(*layers, nn.Linear(128, 64), nn.Linear(64, CLASSES))


# ---- patches


class Attention(nn.Module):
    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Gated(nn.Module):
    """A diagonal state-space layer with a gate: each channel remembers at its own rate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inside, self.out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.rate = nn.Parameter(torch.linspace(-3, 1, width))
        self.direct = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.inside(x).chunk(2, -1)
        time = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
        lag = (time[:, None] - time).clamp_min(0)[..., None]
        past = (time[:, None] >= time)[..., None]
        kernel = torch.exp(-lag * F.softplus(self.rate)) * past
        y = torch.einsum("tsd,bsd->btd", kernel, u) + self.direct * u
        out: Tensor = self.out(y * F.silu(gate))
        return out


class Transposed(nn.Module):
    """Across positions what its content does across features."""

    def __init__(self, content: nn.Module) -> None:
        super().__init__()
        self.content = content

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.content(x.transpose(1, 2)).transpose(1, 2)
        return out


class Graph(nn.Module):
    """Kipf & Welling 2017, on the grid of 4 × 4 that the patches are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        place = torch.arange(POSITIONS)
        row, column = place // 4, place % 4
        near = (row[:, None] - row).abs() + (column[:, None] - column).abs() <= 1
        degree = near.sum(1).float()
        adjacency = near.float() / (degree[:, None] * degree).sqrt()
        self.register_buffer("adjacency", adjacency)

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.adjacency, Tensor)
        out: Tensor = self.linear(self.adjacency @ x)
        return out


class Parallel(nn.Module):
    def __init__(self, width: int, v: Variant) -> None:
        super().__init__()
        self.norm = norm1(width, v)
        self.attention, self.mlp = Attention(width), mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        out: Tensor = self.attention(x) + self.mlp(x)
        return out


def pre(width: int, v: Variant, inner: Callable[[int], nn.Module] = Attention) -> nn.Module:
    halves = (inner(width), mlp(width))
    return nn.Sequential(*(Skip(nn.Sequential(norm1(width, v), h), v.skips) for h in halves))


def post(width: int, v: Variant) -> nn.Module:
    halves = (Attention(width), mlp(width))
    return nn.Sequential(*(Skip(h, v.skips, after=norm1(width, v)) for h in halves))


def sandwich(width: int, v: Variant) -> nn.Module:
    """CogView's: a norm on either side of each branch."""
    halves = (Attention(width), mlp(width))
    return nn.Sequential(
        *(Skip(nn.Sequential(norm1(width, v), h, norm1(width, v)), v.skips) for h in halves)
    )


def parallel(width: int, v: Variant) -> nn.Module:
    return Skip(Parallel(width, v), v.skips)


def ssm(width: int, v: Variant) -> nn.Module:
    return Skip(nn.Sequential(norm1(width, v), Gated(width)), v.skips)


def mixer(width: int, v: Variant) -> nn.Module:
    across = Transposed(mlp(POSITIONS))
    halves = (across, mlp(width))
    return nn.Sequential(*(Skip(nn.Sequential(norm1(width, v), h), v.skips) for h in halves))


def graph(width: int, v: Variant) -> nn.Module:
    return Skip(nn.Sequential(Graph(width), norm1(width, v), nn.ReLU()), v.skips)


class Patches(nn.Module):
    """An embedding of patches with positions, blocks, and the mean over positions."""

    def __init__(self, v: Variant, block: Callable[[int, Variant], nn.Module]) -> None:
        super().__init__()
        width = 2 * v.width
        self.embedding = nn.Conv2d(3, width, PATCH, PATCH)
        self.positions = nn.Parameter(0.5 * torch.randn(POSITIONS, width))
        self.blocks = nn.Sequential(*(block(width, v) for _ in range(v.depth)))
        self.norm, self.head = norm1(width, v), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embedding(x).flatten(2).transpose(1, 2)
        x = self.blocks(patches + self.positions)
        out: Tensor = self.head(self.norm(x).mean(1))
        return out


class Recurrent(nn.Module):
    """Layers of LSTM (skips) or plain RNN over the rows of an image; the last position is read."""

    def __init__(self, v: Variant) -> None:
        super().__init__()
        width, kind = 2 * v.width, nn.LSTM if v.skips else nn.RNN
        sizes = [96, *[width] * v.depth]
        layers = (kind(a, b, batch_first=True) for a, b in pairwise(sizes))
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(norm1(width, v) for _ in range(v.depth))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2).flatten(2)  # 32 rows of 3 × 32
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x)[0])
        out: Tensor = self.head(x[:, -1])
        return out


STAGED: dict[str, Callable[[int, Variant], nn.Module]] = {
    "residual": residual,
    "bottleneck": bottleneck,
    "preact": preact,
    "inverted": inverted,
    "squeeze": squeeze,
    "shuffle": Shuffle,
    "repvgg": Rep,
    "convnext": convnext,
    "vgg": vgg,
}
PATCHES: dict[str, Callable[[int, Variant], nn.Module]] = {
    "pre": pre,
    "post": post,
    "sandwich": sandwich,
    "parallel": parallel,
    "ssm": ssm,
    "mixer": mixer,
    "graph": graph,
}
WHOLE: dict[str, Callable[[Variant], nn.Module]] = {
    "dense": dense,
    "unet": UNet,
    "autoencoder": autoencoder,
    "recurrent": Recurrent,
}
FAMILIES = (*STAGED, *PATCHES, *WHOLE)
OWN_INIT = ("convnext", "vgg")  # torch's; the other staged ones have torchvision's


def make(network: Network, seed: int = 0) -> nn.Module:
    """The network with its weights; the global random state is used."""
    torch.manual_seed(seed)
    family, v = network
    if family in STAGED:
        model: nn.Module = staged(v, STAGED[family])
        if family not in OWN_INIT:
            he(model)
    elif family in PATCHES:
        model = Patches(v, PATCHES[family])
    else:
        model = WHOLE[family](v)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(v.scale)
    return model


def variants(family: str) -> Iterator[Variant]:
    """The usual one, deeper, and what is meant to fail; the numbers are the family's."""
    deep = {"dense": 8, "recurrent": 4, "autoencoder": 6}.get(family, 10)
    own = Variant(depth={"recurrent": 1, "autoencoder": 1}.get(family, 4))
    yield own
    yield replace(own, depth=deep)
    bare = replace(own, depth=deep, norms=False)
    yield bare
    yield replace(own, norms=False)
    yield replace(bare, skips=False)
    yield replace(own, depth=deep, skips=False)
    yield replace(own, skips=False)
    yield replace(bare, scale=2.5)
    yield replace(own, norms=False, skips=False, scale=0.4)


def networks() -> Iterator[Network]:
    """The whole set."""
    for family in FAMILIES:
        yield from (Network(family, variant) for variant in variants(family))
