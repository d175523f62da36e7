"""What is measured, against oracles that share no code with gradprobe."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from helpers.handmade import chain, near, profile, row
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction, checkpoint

import gradprobe
from gradprobe.measure.one_pass import measure
from gradprobe.measure.profile import GradientProfile, RowStatus
from gradprobe.model.build import build
from gradprobe.model.subject import subject_of
from gradprobe.spec.network import NetworkSpec

F64 = torch.float64
Parse = Callable[[str], NetworkSpec]


def first(value: Any) -> Tensor:
    """The one tensor in a row's output, for the models below."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Answer):
        return value.logits
    values = value.values() if isinstance(value, dict) else value
    return next(v for v in values if isinstance(v, Tensor))


def squares(output: Any) -> Tensor:
    return first(output).square().sum()


def gradients(measured: GradientProfile, level: int = 0) -> dict[str, float | None]:
    return {r.name: r.gradient_norm for r in measured.rows if r.level == level}


# ---- models of many kinds


@dataclass
class Answer:
    logits: Tensor
    note: str = "no tensor"


class Block(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 9)
        self.fc2 = nn.Linear(9, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(torch.tanh(self.fc1(self.norm(x))))


class Wrapped(nn.Module):
    """Two branches, several inputs, and an output made by ``give``."""

    def __init__(self, give: Callable[[Tensor], Any] = lambda y: y) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 6), nn.Linear(3, 6)
        self.body = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(6, 2)
        self.give = give

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        h = self.left(x)
        h = h if y is None else h * self.right(y)
        for block in self.body:
            h = block(h)
        return self.give(self.head(h))


class Tuples(nn.Module):
    """Hands a tuple, a dict and a dataclass from row to row."""

    class AsTuple(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), "a word"

    class AsDict(nn.Linear):
        def forward(self, x: Any) -> Any:
            return {"count": 3, "hidden": super().forward(x[0])}

    class AsDataclass(nn.Linear):
        def forward(self, x: Any) -> Any:
            return Answer(super().forward(x["hidden"]))

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = self.AsTuple(4, 6), self.AsDict(6, 6), self.AsDataclass(6, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.c(self.b(self.a(x))).logits)


def convolution() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(2, 4, 3, padding=1),
            norm=nn.BatchNorm2d(4),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flat=nn.Flatten(),
            head=nn.Linear(16, 3),
        )
    )


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.lstm = nn.LSTM(5, 7, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(7, 1, 9, dropout=0.0, batch_first=True)
        self.head = nn.Linear(7, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.lstm(self.embed(tokens))[0]).mean(1))


TOKENS = torch.arange(20).reshape(4, 5) % 11
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "two inputs": (Wrapped, lambda: (torch.randn(5, 4), torch.randn(5, 3))),
    "tuple out": (lambda: Wrapped(lambda y: (y, 1)), lambda: (torch.randn(5, 4),) * 1),
    "dict out": (lambda: Wrapped(lambda y: {"logits": y}), lambda: (torch.randn(5, 4),)),
    "dataclass out": (lambda: Wrapped(Answer), lambda: (torch.randn(5, 4),)),
    "tuples between rows": (Tuples, lambda: (torch.randn(5, 4),)),
    "convolution": (convolution, lambda: (torch.randn(4, 2, 4, 4),)),
    "recurrent": (Recurrent, lambda: (TOKENS,)),
}


def made(name: str, dtype: torch.dtype = F64) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(1)
    model, inputs = MODELS[name][0](), MODELS[name][1]()
    return model.to(dtype), tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)


def plain_loop(
    model: nn.Module, args: tuple[Tensor, ...], rows: list[str]
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Row gradient norms by ``retain_grad`` and parameter gradients by ``backward``."""
    twin, outputs = copy.deepcopy(model), {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs[name] = first(output)
            outputs[name].retain_grad()

        return hook

    for name in rows:
        twin.get_submodule(name).register_forward_hook(keep(name))
    squares(twin(*args)).backward()
    norms = {name: float(outputs[name].grad.norm()) for name in rows}
    return norms, {n: p.grad for n, p in twin.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("level", ["blocks", "leaves"])
@pytest.mark.parametrize("name", MODELS)
def test_row_gradients_are_those_of_the_plain_loop(name: str, level: str) -> None:
    model, args = made(name)
    report = gradprobe.probe(model, args, loss=squares, level=level)
    ran = [r.name for r in report.rows if r.status is RowStatus.OK]
    expected, _ = plain_loop(model, args, ran)
    found = {r.name: r.gradient_norm for r in report.rows if r.name in expected}
    assert found == pytest.approx(expected, rel=1e-12)
    assert len(found) >= 3


@pytest.mark.parametrize("name", MODELS)
def test_weight_gradients_are_those_of_backward(name: str) -> None:
    model, args = made(name)
    report = gradprobe.probe(model, args, loss=squares)
    _, grads = plain_loop(model, args, [])
    for measured in report.rows:
        for p in measured.parameters:
            oracle = float(grads[p.name].norm()) if p.name in grads else None
            # a bias before a BatchNorm has nothing but rounding for a gradient
            assert p.gradient_norm == near(oracle, 1e-11, 1e-13)
            assert p.norm == near(float(model.get_parameter(p.name).detach().norm()), 1e-12)
        own = [p.gradient_norm for p in measured.parameters if p.gradient_norm is not None]
        assert measured.weight_gradient_norm == near(math.hypot(*own) if own else None, 1e-12)
    assert report.profile.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["two inputs", "convolution", "recurrent"])
def test_float32_agrees_with_the_plain_loop(name: str) -> None:
    model, args = made(name, torch.float32)
    report = gradprobe.probe(model, args, loss=squares)
    ran = [r.name for r in report.rows if r.status is RowStatus.OK]
    expected, _ = plain_loop(model, args, ran)
    assert {n: g for n, g in gradients(report.profile).items() if n in expected} == pytest.approx(
        expected, rel=1e-5
    )


def test_row_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.Softplus(), nn.Linear(3, 2)]
    model = nn.Sequential(*layers).to(F64)
    x = torch.randn(2, 3, dtype=F64)
    step = 1e-6

    @torch.no_grad()
    def loss_with(index: int, nudge: Tensor) -> float:
        h = x
        for k, layer in enumerate(model):
            h = layer(h) + (nudge if k == index else 0)
        return float(squares(h))

    found = gradients(gradprobe.probe(model, x, loss=squares).profile)
    for index, norm in enumerate(found.values()):
        output = model[: index + 1](x)
        slopes = []
        for element in range(output.numel()):
            nudge = torch.zeros_like(output)
            nudge.view(-1)[element] = step
            slopes.append((loss_with(index, nudge) - loss_with(index, -nudge)) / (2 * step))
        assert norm == pytest.approx(math.hypot(*slopes), rel=1e-7)


def test_weight_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2), nn.Linear(2, 1)).to(F64)
    x = torch.randn(4, 2, dtype=F64)
    report = gradprobe.probe(model, x, loss=squares)
    found = {p.name: p.gradient_norm for r in report.rows for p in r.parameters}
    step = 1e-6
    for name, parameter in model.named_parameters():
        slopes, flat = [], parameter.data.view(-1)
        for index in range(flat.numel()):
            values = []
            for sign in (1, -1):
                flat[index] += sign * step
                values.append(float(squares(model(x)).detach()))
                flat[index] -= sign * step
            slopes.append((values[0] - values[1]) / (2 * step))
        assert found[name] == pytest.approx(math.hypot(*slopes), rel=1e-6)


# ---- a spec's network, as a chain and through hooks

SPECS = {
    "plain relu": """
input: {shape: [8]}
layers:
  - repeat: {times: 5, layers: [Linear: {out_features: 8}, ReLU]}
  - Linear: {out_features: 2}
""",
    "in-place relu": """
input: {shape: [8]}
layers:
  - repeat: {times: 5, layers: [Linear: {out_features: 8}, ReLU: {inplace: true}]}
  - Linear: {out_features: 2}
""",
    "residual, norms": """
input: {shape: [8]}
layers:
  - Linear: {out_features: 8}
  - repeat:
      times: 4
      layers: [residual: [LayerNorm, Linear: {out_features: 8}, GELU, Dropout: {p: 0.5}]]
  - RMSNorm
  - Linear: {out_features: 3}
""",
    "batch norm": """
input: {shape: [8]}
layers:
  - repeat: {times: 4, layers: [Linear: {out_features: 8}, BatchNorm1d, ReLU]}
  - Linear: {out_features: 2}
""",
    "convolution": """
input: {shape: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
  - BatchNorm2d
  - concat: [[Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}], []]
  - MaxPool2d: {kernel_size: 2}
  - Flatten
  - Linear: {out_features: 5}
""",
    "tokens": """
input: {shape: [6], tokens: 17}
layers:
  - Embedding: {embedding_dim: 8}
  - residual: [LayerNorm, MultiheadAttention: {num_heads: 2, causal: true}]
  - GRU: {hidden_size: 8}
  - Linear: {out_features: 17}
""",
    "no weights first": """
input: {shape: [2, 4]}
layers:
  - Flatten
  - Tanh
  - Linear: {out_features: 8}
  - Sigmoid
  - Linear: {out_features: 8}
  - Linear: {out_features: 2}
""",
    "many rows": """
input: {shape: [3]}
layers:
  - repeat: {times: 150, layers: [Linear: {out_features: 3}]}
  - Linear: {out_features: 2}
""",
    "wide": """
input: {shape: [200], batch_size: 200}
layers:
  - Linear: {out_features: 200}
  - Tanh
  - residual: [Linear: {out_features: 200}, Tanh]
  - Linear: {out_features: 200}
  - Linear: {out_features: 2}
""",
}
NUMBERS = (
    "gradient_norm weight_norm weight_gradient_norm activation_rms input_dependence zero_fraction"
).split()


@pytest.mark.parametrize(("dtype", "rel"), [(F64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("name", SPECS)
def test_the_chain_and_the_hooks_measure_the_same(
    parse: Parse, name: str, dtype: torch.dtype, rel: float
) -> None:
    spec = parse(SPECS[name])
    network = build(spec, dtype=dtype)
    size = spec.input.batch_size or 16
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((size, *spec.input.shape), generator=generator, dtype=dtype)
    if spec.input.tokens:
        x = torch.randint(spec.input.tokens, (size, *spec.input.shape), generator=generator)
    by_chain = gradprobe.probe(network, x, loss=squares)
    by_hooks = gradprobe.probe(network, x, loss=squares, level="leaves")
    rows = [r for r in by_hooks.rows if r.level == 0]
    assert [r.name for r in rows] == [r.name for r in by_chain.rows]
    for chained, hooked in zip(by_chain.rows, rows, strict=True):
        assert chained.status == hooked.status
        for number in NUMBERS:
            expected = near(getattr(chained, number), rel, 1e-12)
            assert getattr(hooked, number) == expected, (chained.name, number)
    assert by_hooks.profile.loss == pytest.approx(by_chain.profile.loss, rel=rel)
    assert by_hooks.reach == pytest.approx(by_chain.reach, rel=rel)


@pytest.mark.parametrize("name", sorted(set(SPECS) - {"residual, norms", "in-place relu"}))
def test_a_spec_s_network_agrees_with_the_plain_loop(parse: Parse, name: str) -> None:
    spec = parse(SPECS[name])
    network = build(spec, dtype=F64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((7, *spec.input.shape), generator=generator, dtype=F64)
    if spec.input.tokens:
        x = torch.randint(spec.input.tokens, (7, *spec.input.shape), generator=generator)
    report = gradprobe.probe(network, x, loss=squares)
    names = [r.name for r in report.rows]
    if name == "no weights first":  # their outputs need no gradient in the plain loop
        names = names[2:]
    expected, grads = plain_loop(network, (x,), names)
    found = gradients(report.profile)
    assert {n: found[n] for n in names} == pytest.approx(expected, rel=1e-11)
    parameters = {p.name: p.gradient_norm for r in report.rows for p in r.parameters}
    assert parameters == pytest.approx(
        {n: float(g.norm()) for n, g in grads.items()}, rel=1e-10, abs=1e-12
    )


def test_a_wrapped_network_measures_as_the_bare_one(parse: Parse) -> None:
    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    text = SPECS["residual, norms"].replace(", Dropout: {p: 0.5}", "")
    network = build(parse(text), dtype=F64)
    x = torch.randn(9, 8, dtype=F64, generator=torch.Generator().manual_seed(3))
    bare = gradprobe.probe(network, x, loss=squares)
    wrapped = gradprobe.probe(Wrapper(network), x, loss=squares)
    renamed = {f"inner.{name}": norm for name, norm in gradients(bare.profile).items()}
    assert gradients(wrapped.profile) == pytest.approx(renamed, rel=1e-13)
    assert wrapped.reach == pytest.approx(bare.reach, rel=1e-13)


def test_frozen_first_rows_measure_the_same_in_the_chain_and_through_hooks(parse: Parse) -> None:
    network = build(parse(SPECS["plain relu"]), dtype=F64)
    network.get_submodule("0.0").requires_grad_(False)
    x = torch.randn(5, 8, dtype=F64, generator=torch.Generator().manual_seed(0))
    by_chain = gradprobe.probe(network, x, loss=squares)
    by_hooks = gradprobe.probe(network, x, loss=squares, level="leaves")
    assert gradients(by_chain.profile) == pytest.approx(gradients(by_hooks.profile), rel=1e-12)


# ---- laws


@settings(derandomize=True, max_examples=15, deadline=None)
@given(c=st.floats(1e-30, 1e30), sign=st.sampled_from([1, -1]))
def test_the_loss_times_c_scales_every_gradient_by_the_size_of_c(c: float, sign: int) -> None:
    model, args = made("two inputs")
    one = gradprobe.probe(model, args, loss=squares)
    scaled = gradprobe.probe(model, args, loss=lambda y: sign * c * squares(y))
    for before, after in zip(one.rows, scaled.rows, strict=True):
        assert after.gradient_norm == pytest.approx(c * before.gradient_norm, rel=1e-12)
        assert after.weight_gradient_norm == pytest.approx(
            c * before.weight_gradient_norm, rel=1e-12
        )
        assert after.weight_norm == before.weight_norm
        assert after.activation_rms == before.activation_rms
    assert scaled.reach == pytest.approx(one.reach, rel=1e-12)
    assert scaled.verdict == one.verdict


def test_the_order_of_the_batch_does_not_matter() -> None:
    model, args = made("two inputs")
    order = torch.tensor([3, 0, 4, 1, 2])
    one = gradprobe.probe(model, args, loss=squares)
    other = gradprobe.probe(model, tuple(x[order] for x in args), loss=squares)
    for a, b in zip(one.rows, other.rows, strict=True):
        for number in NUMBERS:
            assert getattr(a, number) == near(getattr(b, number), 1e-12)


def test_a_sum_over_the_batch_adds_squares() -> None:
    model, args = made("two inputs")
    alone = [
        gradients(gradprobe.probe(model, tuple(x[i : i + 1] for x in args), loss=squares).profile)
        for i in range(5)
    ]
    together = gradients(gradprobe.probe(model, args, loss=squares).profile)
    for name, norm in together.items():
        assert norm == pytest.approx(math.hypot(*(one[name] for one in alone)), rel=1e-12)


def test_the_same_call_gives_the_same_numbers_and_another_seed_others() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.5), nn.Linear(5, 5), nn.Linear(5, 5))
    x = torch.randn(6, 5)
    reports = [gradprobe.probe(model, x, seed=seed) for seed in (0, 0, 1)]
    assert reports[0].profile == reports[1].profile
    assert reports[0].profile != reports[2].profile


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("level", ["blocks", "leaves"])
def test_half_precision_is_measured(dtype: torch.dtype, level: str) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(16, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 16), nn.Linear(16, 4)]
    model, x = nn.Sequential(*layers), torch.randn(8, 16)
    half = gradprobe.probe(model.to(dtype), x.to(dtype), level=level)
    full = gradprobe.probe(model.float(), x, level=level)
    assert gradients(half.profile) == pytest.approx(gradients(full.profile), rel=0.05)
    assert half.config["dtype"] == str(dtype).removeprefix("torch.")
    assert half.verdict == "healthy"


# ---- no gradient is not a gradient of zero


class Cut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0


def three(middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), middle, nn.Linear(3, 3), nn.Linear(3, 2))


def test_none_is_where_no_path_is_and_zero_where_the_gradient_is_zero() -> None:
    x = torch.randn(4, 3)
    cut = gradprobe.probe(three(Cut()), x).rows
    assert cut[0].gradient_norm is None
    assert cut[0].weight_gradient_norm is None
    assert cut[0].status is RowStatus.NO_GRADIENT
    assert cut[2].gradient_norm
    zero = gradprobe.probe(three(Zero()), x).rows
    assert zero[0].gradient_norm == 0.0
    assert zero[0].weight_gradient_norm == 0.0
    assert zero[0].status is RowStatus.OK


def test_a_cut_spec_network_has_none_below_the_cut(parse: Parse) -> None:
    network = build(parse(SPECS["plain relu"]))
    x = torch.randn(3, 8)
    report = gradprobe.probe(network, x, loss=lambda y: squares(y.detach()))
    assert [r.gradient_norm for r in report.rows] == [None] * 6
    assert report.verdict == "disconnected"


def test_an_output_without_a_floating_tensor_is_told_as_such() -> None:
    class Words(nn.Module):
        def forward(self, x: Tensor) -> list[str]:
            return ["no", "tensor"]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.a, self.b = Words(), nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.words(x)
            return self.b(self.a(x))

    statuses = {r.name: r.status for r in gradprobe.probe(Model(), torch.randn(2, 3)).rows}
    assert statuses == {"words": RowStatus.NO_TENSOR, "a": RowStatus.OK, "b": RowStatus.OK}


def test_a_row_that_hands_out_its_own_parameter_gets_that_parameter_s_gradient() -> None:
    class Position(nn.Module):
        def __init__(self, length: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(length, 64))

        def forward(self) -> Tensor:
            return self.weight

    class Model(nn.Module):
        def __init__(self, length: int) -> None:
            super().__init__()
            self.position, self.a, self.b = Position(length), nn.Linear(64, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x + self.position()))

    for length in (2, 1024):  # small and large tensors take different ways
        report = gradprobe.probe(Model(length), torch.randn(3, length, 64))
        position = report.rows[0]
        assert position.gradient_norm == pytest.approx(position.weight_gradient_norm)
        assert report.verdict == "healthy"


# ---- shapes and kinds that tensors come in


def test_a_row_may_put_out_a_scalar() -> None:
    class Distance(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - 1).square().mean()

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.distance = nn.Linear(3, 3), nn.Linear(3, 1), Distance()

        def forward(self, x: Tensor) -> Tensor:
            return self.distance(self.b(self.a(x)))

    report = gradprobe.probe(Model(), torch.randn(4, 3), loss=lambda y: y)
    assert report.rows[2].gradient_norm == 1.0
    assert report.verdict == "healthy"


def test_scalar_parameters_are_measured() -> None:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.s, self.t = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(3.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)) * self.s + self.t

    report = gradprobe.probe(Scales(), torch.ones(5, 3), loss=lambda y: y.sum())
    orphans = {p.name: p for p in report.profile.orphans}
    assert orphans["t"].gradient_norm == 15.0
    assert orphans["s"].norm == 2.0


def test_complex_parameters_are_measured() -> None:
    class Fourier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.full((3, 3), 3 + 4j, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return (x.to(self.w.dtype) @ self.w).real

    model = nn.Sequential(nn.Linear(3, 3), Fourier(), nn.Linear(3, 2))
    measured = gradprobe.probe(model, torch.randn(4, 3)).rows[1]
    assert measured.weight_norm == pytest.approx(15.0)
    assert measured.weight_gradient_norm
    for deep in (False, True):
        alone = gradprobe.probe(nn.Sequential(Fourier(), Fourier()), torch.randn(4, 3), deep=deep)
        assert alone.rows[0].weight_norm == pytest.approx(15.0)


@pytest.mark.parametrize("tokens", [50, 5000])
def test_sparse_gradients_are_measured_as_dense_ones(tokens: int) -> None:
    torch.manual_seed(0)
    sparse = nn.Embedding(tokens, 16, sparse=True)
    dense = nn.Embedding(tokens, 16, _weight=sparse.weight.detach().clone())
    tail = nn.Sequential(nn.Linear(16, 4), nn.Linear(4, 2))
    x = torch.randint(tokens, (6, 5))
    norms = [gradprobe.probe(nn.Sequential(e, tail), x).rows[0] for e in (sparse, dense)]
    assert norms[0].weight_gradient_norm == pytest.approx(norms[1].weight_gradient_norm, rel=1e-6)


def test_inputs_may_be_a_tensor_a_tuple_or_keywords() -> None:
    model, (x, y) = made("two inputs")
    by_position = gradprobe.probe(model, (x, y), loss=squares)
    by_keyword = gradprobe.probe(model, {"x": x, "y": y}, loss=squares)
    assert by_position.profile == by_keyword.profile
    alone = gradprobe.probe(model, x, loss=squares)
    assert alone.profile == gradprobe.probe(model, (x,), loss=squares).profile


def test_named_losses_take_the_first_floating_tensor_of_any_output() -> None:
    losses = []
    for name in ("tuple out", "dict out", "dataclass out"):
        model, args = made(name)
        losses.append(gradprobe.probe(model, args, loss="mse").profile.loss)
    assert losses[0] == losses[1] == losses[2]


# ---- torch.func


class Mapped(nn.Module):
    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.vmap(self.inside)(x)
        return out


def test_a_row_inside_a_transform_is_refused_and_one_around_it_measured() -> None:
    torch.manual_seed(0)
    first, block, last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)
    x = torch.randn(5, 4)

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.block, self.last = first, block, last

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(torch.vmap(self.block)(self.first(x)))
            return out

    with pytest.raises(gradprobe.ModelError, match=r"row block \(Linear\) runs inside torch.vmap"):
        gradprobe.probe(Bare(), x)
    models = nn.Sequential(first, Mapped(block), last), nn.Sequential(first, block, last)
    reports = [gradprobe.probe(model, x) for model in models]
    norms = [[row.gradient_norm for row in report.profile.ran] for report in reports]
    assert norms[0] == pytest.approx(norms[1])
    leaves = gradprobe.probe(models[0], x, level="leaves")
    assert [row.name for row in leaves.rows if row.level] == []


def test_a_row_that_runs_outside_a_transform_too_is_measured_there() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: Tensor) -> Tensor:
            inside: Tensor = torch.func.grad(lambda x: self.layers(x).square().sum())(x)
            out: Tensor = self.layers(x)
            return out + 0 * inside.detach()

    x = torch.randn(5, 4)
    both, plain = (gradprobe.probe(model, x).profile for model in (Both(), layers))
    found = [[row.gradient_norm for row in profile.ran] for profile in (both, plain)]
    assert found[0] == pytest.approx(found[1])


# ---- checkpointing


class Checkpointed(nn.Module):
    def __init__(self, block: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.block, self.reentrant = block, reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("level", ["blocks", "leaves"])
def test_a_checkpointed_block_measures_as_the_bare_one(level: str) -> None:
    torch.manual_seed(0)
    block, stem, head = Block().to(F64), nn.Linear(4, 6).to(F64), nn.Linear(6, 2).to(F64)
    x = torch.randn(5, 4, dtype=F64)
    bare = gradprobe.probe(nn.Sequential(stem, block, head), x, level=level)
    lean = nn.Sequential(stem, Checkpointed(block, False), head)
    again = gradprobe.probe(lean, x, level=level)
    assert gradients(again.profile) == pytest.approx(gradients(bare.profile), rel=1e-13)
    assert len(again.rows) == len(bare.rows)
    assert again.rows[1].weight_gradient_norm == pytest.approx(bare.rows[1].weight_gradient_norm)


@pytest.mark.parametrize("deep", [False, True])
def test_a_reentrant_checkpoint_measures_as_the_bare_block(deep: bool) -> None:
    torch.manual_seed(0)
    block, stem, head = Block().to(F64), nn.Linear(4, 6).to(F64), nn.Linear(6, 2).to(F64)
    x = torch.randn(5, 4, dtype=F64)
    bare = gradprobe.probe(nn.Sequential(stem, block, head), x, deep=deep)
    apply = vars(CheckpointFunction).get("apply")
    again = gradprobe.probe(nn.Sequential(stem, Checkpointed(block, True), head), x, deep=deep)
    assert gradients(again.profile) == pytest.approx(gradients(bare.profile), rel=1e-13)
    assert [again.training, again.verdict] == [bare.training, bare.verdict]
    assert vars(CheckpointFunction).get("apply") is apply


class Adapted(nn.Module):
    """A frozen layer with a trained one beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.adapter = nn.Linear(6, 6).requires_grad_(False), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.base(x) + self.adapter(x))


@pytest.mark.parametrize("stem", [nn.Linear(4, 6), nn.Sequential(nn.Linear(4, 6), nn.Tanh())])
@pytest.mark.parametrize(("reentrant", "wakes"), [(True, False), (True, True), (False, False)])
def test_a_reentrant_checkpoint_behind_what_is_frozen_cuts_the_graph(
    stem: nn.Module, reentrant: bool, wakes: bool
) -> None:
    """``wakes``: as ``enable_input_require_grads`` does."""
    stem = copy.deepcopy(stem).requires_grad_(False)
    if wakes:
        stem.register_forward_hook(lambda module, args, output: output.requires_grad_())
    blocks = [Checkpointed(Adapted(), reentrant) for _ in range(2)]
    report = gradprobe.probe(nn.Sequential(stem, *blocks, nn.Linear(6, 2)), torch.randn(5, 4))
    messages = [f"{f.message} {f.advice}" for f in report.findings if f.rule == "GP202"]
    assert bool(messages) == (reentrant and not wakes)
    for word in ("reentrant", "1.block.adapter", "use_reentrant=False", "enable_input_require"):
        assert not messages or word in messages[0]


# ---- which modules are rows


def names(model: nn.Module, x: Tensor, **options: Any) -> list[str]:
    return [r.name for r in gradprobe.probe(model, x, **options).rows]


X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Several(nn.Module):
    """Calls its children in the order in which ``forward`` names them."""

    def __init__(self, order: str, **children: nn.Module) -> None:
        super().__init__()
        self.order = order.split()
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.order:
            child = self.get_submodule(name)
            for layer in child if isinstance(child, nn.ModuleList) else [child]:
                x = layer(x)
        return x


def lin() -> nn.Linear:
    return nn.Linear(6, 6)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Sequential(lin(), nn.ReLU(), lin()), "0 1 2"),
        (nn.Sequential(lin(), nn.Sequential(lin(), nn.Tanh()), lin()), "0 1.0 1.1 2"),
        (Several("a b", a=lin(), b=nn.Sequential(lin(), Block())), "a b.0 b.1"),
        (Several("s b", s=lin(), b=nn.ModuleList([Block(), Block()])), "s b.0 b.1"),
        (Several("d.x d.y", d=nn.ModuleDict({"x": lin(), "y": lin()})), "d.x d.y"),
        (Several("model", model=Several("a b", a=lin(), b=lin())), "model.a model.b"),
        (Several("b a", a=lin(), b=lin()), "b a"),
        (Several("a b", a=lin(), b=lin(), unused=lin()), "a b unused"),
        (Several("a b a b", a=lin(), b=lin()), "a b a (2) b (2)"),
        (lin(), "(model)"),
        (Block(), "norm fc1 fc2"),
    ],
)  # fmt: skip
def test_the_rows_of_a_module(model: nn.Module, expected: str) -> None:
    text = expected.replace(" (2)", "·(2)")
    assert names(model, X) == [name.replace("·", " ") for name in text.split()]


def test_a_shared_module_is_a_row_per_call_and_its_parameters_count_once() -> None:
    model = Several("a b a c", a=lin(), b=nn.Tanh(), c=lin())
    report = gradprobe.probe(model, X)
    assert [(r.name, r.size) for r in report.rows] == [("a", 42), ("b", 0), ("a (2)", 0), ("c", 42)]
    assert report.profile.parameters == 84
    grads = [r.gradient_norm for r in report.rows]
    assert grads[0] != grads[2]


def test_a_module_that_stands_in_two_places_is_one_row() -> None:
    layer = lin()
    model = nn.Sequential(layer, nn.Tanh(), layer, lin())
    assert names(model, X) == ["0", "1", "0 (2)", "3"]


def test_leaves_follow_their_block_with_a_deeper_level() -> None:
    model = nn.Sequential(lin(), Block(), lin())
    rows = gradprobe.probe(model, X, level="leaves").rows
    assert [(r.name, r.level) for r in rows] == [
        ("0", 0),
        ("1", 0),
        ("1.norm", 1),
        ("1.fc1", 1),
        ("1.fc2", 1),
        ("2", 0),
    ]
    assert rows[1].contains == ("Block", "LayerNorm", "Linear")
    assert rows[3].kind == "Linear"
    assert sum(r.size for r in rows if r.level == 1) == rows[1].size


def test_leaves_change_neither_trunk_nor_reach_nor_verdict() -> None:
    model = nn.Sequential(lin(), Block(), Block(), lin())
    blocks, leaves = (gradprobe.probe(model, X, level=level) for level in ("blocks", "leaves"))
    assert leaves.reach == pytest.approx(blocks.reach, rel=1e-6)
    assert [r.name for r in leaves.profile.trunk] == [r.name for r in blocks.profile.trunk]
    assert leaves.profile.parameters == blocks.profile.parameters
    assert leaves.verdict == blocks.verdict


def test_a_leaf_shared_by_two_blocks_shows_under_the_block_that_called_it() -> None:
    shared = lin()
    blocks = [Several("fc act", fc=shared, act=nn.Tanh()) for _ in range(2)]
    rows = gradprobe.probe(nn.Sequential(*blocks, lin()), X, level="leaves").rows
    by_block = {"0": [], "1": []}
    for one in rows:
        if one.level:
            by_block[one.name[0]].append(one)
    assert [len(leaves) for leaves in by_block.values()] == [2, 2]
    assert by_block["0"][0].gradient_norm != by_block["1"][0].gradient_norm


def test_an_attention_is_one_leaf() -> None:
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    model = nn.Sequential(lin(), layer, lin())
    rows = gradprobe.probe(model, torch.randn(2, 3, 6), level="leaves").rows
    leaves = {r.name.removeprefix("1."): r.kind for r in rows if r.level}
    assert leaves["self_attn"] == "MultiheadAttention"
    assert "self_attn.out_proj" not in leaves
    assert {"linear1", "linear2", "norm1", "norm2"} < set(leaves)


# ---- trunk, reach, decay, half-life


def test_the_trunk_ends_at_the_row_that_feeds_the_head() -> None:
    bare = {"bare": True}
    rows = [row("flatten", **bare), row("a"), row("act", **bare), row("b"), row("pool", **bare)]
    measured = profile(*rows, row("head"), row("softmax", **bare))
    assert [r.name for r in measured.trunk] == ["a", "act", "b", "pool"]
    assert measured.steps == 3


@pytest.mark.parametrize("weighty", [0, 1, 2])
def test_with_fewer_than_three_rows_with_weights_the_trunk_is_every_row(weighty: int) -> None:
    rows = [row(str(i), 2.0**i, bare=i >= weighty) for i in range(5)]
    measured = profile(*rows)
    assert len(measured.trunk) == 5
    assert measured.reach == 1 / 16
    assert measured.decay == pytest.approx(0.5)


def test_the_trunk_leaves_out_rows_that_did_not_run_and_leaves() -> None:
    unused = row("unused", None, status=RowStatus.NOT_RUN)
    measured = profile(row("a"), row("a.leaf", level=1), row("b"), row("head"), unused)
    assert [r.name for r in measured.trunk] == ["a", "b"]


def test_reach_is_one_at_the_top_and_a_product_of_factors_below() -> None:
    measured = chain(1.0, 2.0, 8.0)
    assert [measured.reach_of(r) for r in measured.trunk] == [0.125, 0.25, 1.0]
    assert measured.reach == 0.125
    assert measured.decay == pytest.approx(math.sqrt(0.125))
    assert measured.half_life == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("first", "last", "reach", "decay", "half_life"),
    [
        (4.0, 1.0, 4.0, 2.0, -1.0),
        (1.0, 4.0, 0.25, 0.5, 1.0),
        (1.0, 1.0, 1.0, 1.0, None),
        (0.0, 1.0, 0.0, 0.0, None),
        (1.0, 0.0, None, None, None),
        (None, 1.0, None, None, None),
        (1.0, None, None, None, None),
        (math.inf, 1.0, math.inf, None, None),
    ],
)
def test_reach_decay_and_half_life_at_the_edges(
    first: float | None,
    last: float | None,
    reach: float | None,
    decay: float | None,
    half_life: float | None,
) -> None:
    measured = chain(first, 1.0, last)
    assert (measured.reach, measured.decay, measured.half_life) == (reach, decay, half_life)


def test_one_row_has_a_reach_of_one_and_no_decay() -> None:
    report = gradprobe.probe(nn.Linear(3, 2), torch.randn(4, 3))
    assert (report.reach, report.decay, report.profile.steps) == (1.0, None, 0)


def test_depth_one_of_a_stack_has_two_rows_in_its_trunk(parse: Parse) -> None:
    text = SPECS["plain relu"].replace("times: 5", "times: 2")
    report = gradprobe.probe(parse(text))
    assert [r.name for r in report.profile.trunk] == ["0.0", "0.1"]
    first, last = report.profile.trunk
    assert report.reach == first.gradient_norm / last.gradient_norm


# ---- what fails, and how it is told


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("no such key")


def test_a_forward_that_raises_names_its_row() -> None:
    model = nn.Sequential(lin(), lin(), Raises(), lin())
    with pytest.raises(gradprobe.ModelError) as caught:
        gradprobe.probe(model, X)
    assert "KeyError" in str(caught.value)
    assert "row 2 (Raises)" in str(caught.value)


def test_a_loss_that_raises_is_a_model_error() -> None:
    def loss(output: Tensor) -> Tensor:
        raise ValueError("what a loss")

    with pytest.raises(gradprobe.ModelError, match="what a loss"):
        gradprobe.probe(nn.Sequential(lin(), lin()), X, loss=loss)


@pytest.mark.parametrize(
    "loss", [lambda y: y, lambda y: 1.0, lambda y: None], ids=["a batch", "a float", "None"]
)
def test_a_loss_that_is_no_scalar_tensor_is_told_as_such(loss: Callable[..., Any]) -> None:
    with pytest.raises(gradprobe.GradprobeError, match="scalar"):
        gradprobe.probe(nn.Sequential(lin(), lin()), X, loss=loss)


@pytest.mark.parametrize("loss", ["mse", "projection"])
def test_a_named_loss_of_an_output_without_tensors_says_so(loss: str) -> None:
    class Words(nn.Linear):
        def forward(self, x: Tensor) -> str:
            return "words"

    with pytest.raises(gradprobe.ModelError, match="no floating point tensor"):
        gradprobe.probe(Words(6, 6), X, loss=loss)


def test_a_module_without_inputs_or_without_anything_to_train_is_refused() -> None:
    with pytest.raises(gradprobe.InputError, match="needs inputs"):
        gradprobe.probe(lin())
    with pytest.raises(gradprobe.InputError, match="no trainable parameters"):
        gradprobe.probe(nn.Tanh(), X)


def test_a_misspelt_threshold_is_refused() -> None:
    with pytest.raises(gradprobe.InputError, match="vanishng"):
        gradprobe.probe(lin(), X, thresholds={"vanishng": 1e-3})


def test_thresholds_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(gradprobe.InputError, match="ascend"):
        gradprobe.probe(lin(), X, thresholds={"vanishing": 1.0})


@pytest.mark.parametrize("kind", ["lazy", "meta"])
def test_a_model_without_numbers_is_told_as_such(kind: str) -> None:
    device = "meta" if kind == "meta" else "cpu"
    first = nn.LazyLinear(6) if kind == "lazy" else lin()
    model = nn.Sequential(first, lin(), lin()).to(device)
    with pytest.raises(gradprobe.GradprobeError):
        gradprobe.probe(model, X.to(device))


def test_measure_is_what_probe_reports() -> None:
    model, args = made("two inputs")
    profile = gradprobe.probe(model, args, loss=squares).profile
    measured = measure(subject_of(model, tuple(args), squares))
    assert replace(measured, idiom=profile.idiom) == profile


@pytest.mark.parametrize("level", ["blocks", "leaves"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_recurrent_layer_that_is_read_by_its_last_states(packed: bool, level: str) -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(4, 5)
            self.lstm = nn.LSTM(5, 6, 2, batch_first=True)
            self.head = nn.Linear(6, 3)
            self.states: tuple[Tensor, ...] = ()

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            if packed:
                lengths = torch.full((len(x),), x.shape[1])
                x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            _, self.states = self.lstm(x)
            return self.head(self.states[0][-1] * self.states[1][-1])

    torch.manual_seed(0)
    model, x = Classifier().to(F64), torch.randn(3, 7, 4, dtype=F64)
    report = gradprobe.probe(model, x, loss=squares, level=level, deep=True)
    value = squares(model(x))
    expected = torch.autograd.grad(value, model.states)
    [row] = [row for row in report.rows if row.name == "lstm"]
    assert row.status is RowStatus.OK
    assert row.gradient_norm == pytest.approx(math.hypot(*(float(g.norm()) for g in expected)))
    assert report.training is not None
    assert report.training.probability is not None
