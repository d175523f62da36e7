"""Any module: which rows it has, its blocks one by one, and its paths, without an annotation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.handmade import near
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradprobe
from gradprobe.measure.blocks.chain import recorded
from gradprobe.measure.blocks.jacobian import jacobians
from gradprobe.measure.profile import RowStatus
from gradprobe.measure.take import running, take_block, take_paths
from gradprobe.model.build import build
from gradprobe.model.make import module_subject
from gradprobe.model.rows import find_rows
from gradprobe.model.subject import subject_of
from gradprobe.spec.options import ProbeOptions

F64 = torch.float64
WIDTH = 6


def lin(width: int = WIDTH) -> nn.Linear:
    return nn.Linear(width, width)


class Residual(nn.Module):
    """y = x + F(x) in plain Python."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2 = (
            nn.LayerNorm(width),
            nn.Linear(width, 9),
            nn.Linear(9, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(torch.tanh(self.fc1(self.norm(x))))


class Plain(Residual):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.fc2(torch.tanh(self.fc1(x))))


class Chain(nn.Module):
    """Calls its children one after the other, lists element by element."""

    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            for layer in child if isinstance(child, nn.ModuleList) else [child]:
                x = layer(x)
        return x


def blocks(times: int, make: Callable[[], nn.Module] = Residual) -> nn.ModuleList:
    return nn.ModuleList(make() for _ in range(times))


def conv(inside: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, out, 3, stride, 1), nn.BatchNorm2d(out), nn.ReLU())


class ConvLayer(nn.Module):
    """A named layer of a block, as a library has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ImageBlock(nn.Module):
    """The layers of its branch stand in a list, and it is a block all the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(ConvLayer(width), nn.Identity(), ConvLayer(width))
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.layer(x))


class Stage(nn.Module):
    def __init__(self, inside: int, width: int, depth: int) -> None:
        super().__init__()
        self.down = conv(inside, width, 2)
        self.layers = nn.Sequential(*(ImageBlock(width) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.down(x))


class ResNet(nn.Module):
    def __init__(self, sizes: tuple[int, ...] = (4, 8)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = conv(3, sizes[0])
        pairs = zip((sizes[0], *sizes), sizes, strict=False)
        self.stages = nn.ModuleList(Stage(a, b, 2) for a, b in pairs)
        self.head = nn.Linear(sizes[-1], 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


class Mixture(nn.Module):
    """A layer with a list of experts, which are alike as stages never are."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = lin(), blocks(3, Plain)

    def forward(self, x: Tensor) -> Tensor:
        return x + sum(expert(self.gate(x)) for expert in self.experts)


def names_of(model: nn.Module, pattern: str | None = None) -> list[str]:
    return [row.name for row in find_rows(model, pattern)]


class Shared(nn.Module):
    """One group of one layer, called over and over, as ALBERT does."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.groups, self.head = lin(), nn.ModuleList([Chain(layers=blocks(1))]), lin()

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for _ in range(3):
            x = self.groups[0](x)
        return self.head(x)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Chain(a=lin(), h=blocks(2), head=lin()), "a h.0 h.1 head"),
        (Chain(body=Chain(a=lin(), h=blocks(2), n=lin()), head=lin()),
         "body.a body.h.0 body.h.1 body.n head"),
        (Chain(net=nn.Sequential(lin(), nn.Tanh(), lin()), head=lin()),
         "net.0 net.1 net.2 head"),
        (Chain(model=Chain(net=Chain(a=lin(), b=lin(), c=lin()))),
         "model.net.a model.net.b model.net.c"),
        (Chain(body=Chain(a=lin(), b=nn.Tanh(), c=lin()), head=lin()), "body.a body.b body.c head"),
        (Chain(h=blocks(2, Mixture), head=lin()), "h.0 h.1 head"),
        (Chain(enc=Chain(h=blocks(2)), dec=Chain(h=blocks(1, Plain)), head=lin()),
         "enc.h.0 enc.h.1 dec.h.0 head"),
        (ResNet(), "stem.0 stem.1 stem.2 stages.0.down.0 stages.0.down.1 stages.0.down.2 "
         "stages.0.layers.0 stages.0.layers.1 stages.1.down.0 stages.1.down.1 stages.1.down.2 "
         "stages.1.layers.0 stages.1.layers.1 head"),
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8), 3, enable_nested_tensor=False),
         "layers.0 layers.1 layers.2"),
        (Shared(), "embed groups.0.layers.0 head"),
    ],
)  # fmt: skip
def test_the_repeated_blocks_are_the_rows(model: nn.Module, expected: str) -> None:
    assert names_of(model) == expected.split()
    paths = dict(model.named_modules())
    assert all(paths[row.name] is row.module for row in find_rows(model))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("stages.*", "stem.0 stem.1 stem.2 stages.0 stages.1 head"),
        ("stages.1.layers.*.layer", None),
        ("stem", "stem stages.0 stages.1 head"),
        ("*.[0-9].layers.*", None),
    ],
)
def test_a_glob_says_which_modules_are_the_blocks(pattern: str, expected: str | None) -> None:
    model = ResNet()
    found = find_rows(model, pattern)
    if expected:
        assert [row.name for row in found] == expected.split()
    depth = pattern.count(".")
    assert all(row.name.count(".") == depth for row in found if row.is_block)
    assert any(row.is_block for row in found)
    held = {id(p) for row in found for p in row.module.parameters()}
    assert held == {id(p) for p in model.parameters()}
    report = gradprobe.probe(model, torch.randn(4, 3, 8, 8), rows=pattern)
    assert [r.name for r in report.rows] == [row.name for row in found]


def test_a_glob_that_matches_nothing_is_refused() -> None:
    with pytest.raises(gradprobe.InputError, match=r"no module matches 'stage\.\*'"):
        gradprobe.probe(ResNet(), torch.randn(4, 3, 8, 8), rows="stage.*")


@pytest.mark.parametrize("wide_first", [True, False])
def test_the_larger_of_two_parts_is_opened_first(wide_first: bool) -> None:
    """Until three rows hold weights: the part of the fewer parameters stays one row."""

    def part(inner: int) -> nn.Module:
        return Chain(a=nn.Linear(WIDTH, inner), b=nn.Tanh(), c=nn.Linear(inner, WIDTH))

    widths = (90, 9) if wide_first else (9, 90)
    model = Chain(first=part(widths[0]), second=part(widths[1]))
    wide, narrow = ("first", "second") if wide_first else ("second", "first")
    opened = [f"{wide}.{name}" for name in "abc"]
    expected = [*opened, narrow] if wide_first else [narrow, *opened]
    assert [row.name for row in find_rows(model)] == expected


def test_a_layer_that_is_called_again_has_a_row_per_call() -> None:
    report = gradprobe.probe(Shared(), torch.randn(4, WIDTH))
    layer = "groups.0.layers.0"
    assert [r.name for r in report.rows] == ["embed", layer, f"{layer} (2)", f"{layer} (3)", "head"]


# ---- blocks that are called in many ways


class Keywords(Residual):
    def forward(self, *, hidden: Tensor, mask: Tensor, note: str = "") -> dict[str, Any]:
        return {"note": note, "hidden": super().forward(hidden) * mask}


class Several(nn.Module):
    """Token positions, keyword arguments, dicts, tuples, checkpoints, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.angles = nn.Embedding(11, WIDTH), nn.Identity()
        self.dicts = blocks(2, Keywords)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x, mask = self.embed(tokens), self.angles(torch.ones(1, 1, WIDTH))
        x = self.dicts[0](hidden=x, mask=mask)["hidden"]
        x = checkpoint(lambda h: self.dicts[1](hidden=h, mask=mask), x, use_reentrant=False)[
            "hidden"
        ]
        return self.head(self.norm(x)), x


def test_blocks_called_in_any_way_are_measured_as_by_the_plain_loop() -> None:
    model, tokens = Several().to(F64), torch.arange(20).reshape(4, 5) % 11

    def loss(output: Any) -> Tensor:
        return output[0].square().sum()

    report = gradprobe.probe(model, tokens, loss=loss, blocks=True)
    assert [r.name for r in report.rows] == ["embed", "dicts.0", "dicts.1", "norm", "head"]
    assert all(r.status is RowStatus.OK for r in report.rows)
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            if name not in kept:
                kept[name] = output["hidden"] if isinstance(output, dict) else output
                kept[name].retain_grad()

        return hook

    for row in report.rows:
        model.get_submodule(row.name).register_forward_hook(keep(row.name))
    loss(model(tokens)).backward()
    for row in report.rows:
        assert row.gradient_norm == near(float(kept[row.name].grad.norm()), 1e-12), row.name
    tied = report.rows[0].parameters[0]
    assert tied.gradient_norm == near(float(model.embed.weight.grad.norm()), 1e-12)
    assert report.profile.parameters == sum(p.numel() for p in model.parameters())
    assert all(r.jacobian for r in report.rows if r.kind == "Keywords")


class Cuts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


def test_a_row_that_the_gradient_goes_around_is_left_out_and_one_that_cuts_it_is_not() -> None:
    class Around(nn.Module):
        def __init__(self, around: bool) -> None:
            super().__init__()
            self.a, self.cut, self.b, self.c = lin(), Cuts(), lin(), lin()
            self.around = around

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            x = x + self.cut(x) if self.around else self.cut(x)
            return self.c(self.b(x))

    x = torch.randn(4, WIDTH)
    assert [r.name for r in gradprobe.probe(Around(True), x).rows] == ["a", "b", "c"]
    assert [r.name for r in gradprobe.probe(Around(False), x).rows] == ["a", "cut", "b", "c"]


# ---- highway, branch and gain without an annotation


def jacobian_of(module: nn.Module, x: Tensor) -> Tensor:
    """Each sample's dense Jacobian: (batch, features, features)."""
    one = torch.func.jacrev(lambda v: module(v[None])[0])
    return torch.stack([one(sample) for sample in x]).reshape(len(x), x[0].numel(), x[0].numel())


@pytest.mark.parametrize("make", [Residual, Plain])
def test_a_block_s_numbers_are_those_of_its_dense_jacobian(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = Chain(stem=lin(), h=blocks(2, make), head=lin()).to(F64)
    x = torch.randn(5, WIDTH, dtype=F64)
    report = gradprobe.probe(model, x, blocks=True)
    inside = model.stem(x)
    for row, block in zip(report.rows[1:3], model.h, strict=True):
        dense = jacobian_of(block, inside).detach()
        eye = torch.eye(WIDTH, dtype=F64)
        trace = float(dense.diagonal(dim1=1, dim2=2).mean())
        branch = math.sqrt(float((dense - eye).square().sum((1, 2)).mean()) / WIDTH)
        gain = math.sqrt(float(dense.square().sum((1, 2)).mean()) / WIDTH)
        assert row.jacobian.highway == (near(trace, 1e-10), 0)
        assert row.jacobian.branch == (near(branch, 1e-10), 0)
        assert row.jacobian.gain == (near(gain, 1e-10), 0)
        inside = block(inside)


def test_a_block_with_further_arguments_is_differentiated_with_those_held_fixed() -> None:
    torch.manual_seed(0)

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = lin(), blocks(2, lambda: Mixes())

        def forward(self, x: Tensor, memory: Tensor) -> Tensor:
            x = self.a(x)
            for block in self.b:
                x = block(memory, x=x)
            return x

    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = lin(), nn.Tanh()

        def forward(self, memory: Tensor, x: Tensor) -> Tensor:
            return x + self.act(self.fc(memory)) * x

    model = Attends().to(F64)
    x, memory = torch.randn(64, WIDTH, dtype=F64), torch.randn(1, WIDTH, dtype=F64)
    report = gradprobe.probe(model, (x, memory), blocks=True)
    for row, block in zip(report.rows[1:], model.b, strict=True):
        scale = 1 + torch.tanh(block.fc(memory)).detach()
        assert row.jacobian.highway.value == near(float(scale.mean()), 1e-6)
        assert row.jacobian.gain.value == near(float(scale.square().mean().sqrt()), 1e-6)


class TwoConvs(nn.Module):
    """A block of VGG, as wide behind as in front."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(8, 8), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


def test_the_highway_tells_a_resnet_from_a_vgg() -> None:
    """The ReLU behind the sum passes the skip where the sum is positive: of x ≥ 0, more than half
    the time."""
    torch.manual_seed(0)
    vgg = Chain(stem=conv(3, 8), h=blocks(3, TwoConvs), pool=nn.AdaptiveAvgPool2d(1))
    x = torch.randn(8, 3, 8, 8)
    for model, low, high in ((ResNet(), 0.5, 1.2), (vgg, -0.1, 0.1)):
        rows = [
            r
            for r in gradprobe.probe(model, x, blocks=True).rows
            if "Block" in r.kind or "Two" in r.kind
        ]
        assert len(rows) >= 3
        assert all(low < row.jacobian.highway.value < high for row in rows)


class Detached(nn.Module):
    """Two rows whose output has the shape of what they read, and no gradient for it."""

    class Angles(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.angles = nn.Parameter(torch.linspace(0, 1, width))

        def forward(self, x: Tensor) -> Tensor:
            return self.angles.expand_as(x)

    class Stop(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach()

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, width), nn.Linear(width, 2)
        self.angles, self.stop = self.Angles(width), self.Stop()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        y: Tensor = self.last(h + self.angles(h) + self.stop(h))
        return y


@pytest.mark.parametrize("width", [4, 80])
def test_a_row_that_passes_no_gradient_to_its_input_has_a_jacobian_of_zero(width: int) -> None:
    subject = module_subject(Detached(width), torch.randn(3, width))
    with running(subject):
        blocks = jacobians(subject)
    assert {tuple(blocks[name].gain) for name in ("angles", "stop")} == {(0.0, 0.0)}
    assert blocks["first"].gain.value > 0
    assert take_block(subject, "angles").total == 0


@pytest.mark.parametrize("option", ["blocks", "precision"])
def test_what_takes_passes_of_its_own_does_so_under_inference_mode_too(option: str) -> None:
    model, x = Detached(4), torch.randn(3, 4)
    expected = gradprobe.probe(model, x, **{option: True}).profile  # type: ignore[arg-type]
    with torch.inference_mode():
        assert gradprobe.probe(model, x, **{option: True}).profile == expected  # type: ignore[arg-type]


def test_recording_leaves_inputs_and_hooks_alone() -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = lin()

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.mul_(2))

    torch.manual_seed(0)
    model = Chain(h=blocks(3, Overwrites))
    x = torch.randn(4, WIDTH)
    before = x.clone()
    calls = recorded(subject_of(model, x, torch.sum))
    assert torch.equal(x, before)
    assert not model.h[0]._forward_hooks
    assert torch.equal(calls[0].x, before)  # what went in, not what the layer made of it
    gradprobe.probe(model, x, blocks=True)
    assert torch.equal(x, before)


# ---- paths


def total_of(model: nn.Module, x: Tensor, **options: Any) -> Any:
    def loss(y: Tensor) -> Tensor:
        return y.square().sum()

    return take_paths(module_subject(model, x, loss, ProbeOptions(**options)))


def test_the_paths_of_a_module_are_those_of_the_same_spec(parse: Callable) -> None:
    """A residual stack, once as a spec that says where its skips are, and once as a bare module."""
    spec = parse(
        "input: {shape: [6]}\nlayers: [Linear: {out_features: 6}, repeat: {times: 5, layers: "
        "[residual: [Linear: {out_features: 6}, Tanh]]}, Linear: {out_features: 2}]"
    )
    network = build(spec, dtype=F64)

    class Block(nn.Module):
        def __init__(self, row: nn.Module) -> None:
            super().__init__()
            self.fc, self.act = [m for m in row.modules() if isinstance(m, (nn.Linear, nn.Tanh))]

        def forward(self, x: Tensor) -> Tensor:
            return x + self.act(self.fc(x))

    inner = [row.module for row in network.rows]
    bare = Chain(stem=inner[0], h=nn.ModuleList(map(Block, inner[1:-1])), head=inner[-1])
    x = torch.randn(7, 6, dtype=F64, generator=torch.Generator().manual_seed(1))
    from gradprobe.measure.blocks.paths import expand

    told = expand(subject_of(network, x, lambda y: y.square().sum()), "0")
    found = total_of(bare, x)
    assert (found.blocks, found.row) == (5, "stem")
    assert found.norms == pytest.approx(told.norms, rel=1e-10)
    assert found.error < 1e-12


def test_what_stands_between_blocks_hands_the_groups_on() -> None:
    torch.manual_seed(0)
    body = nn.ModuleList([Residual(), Residual(), Residual()])

    class Between(Chain):
        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            for block in self.h:
                x = torch.relu_(block(2 * x))  # in place, and no module
            return self.c(x)

    found = total_of(Between(a=lin(), h=body, c=lin()).to(F64), torch.randn(5, WIDTH, dtype=F64))
    assert found.blocks == 3
    assert found.error < 1e-12


def test_no_residual_block_and_no_chain_are_told() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, WIDTH)
    with pytest.raises(gradprobe.InputError, match="no block y = x"):
        total_of(Chain(a=lin(), h=blocks(3, Plain), c=lin()), x)

    class Beside(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.h[0](self.a(x)) + self.h[1](self.b(x)))

    with pytest.raises(gradprobe.InputError, match="no chain"):
        total_of(Beside(a=lin(), b=lin(), h=blocks(2), c=lin()), x)
