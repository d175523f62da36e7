"""Mean-field theory: closed forms, quadrature against scipy's, and prediction against measurement.

Every expectation comes from a formula of a paper that is evaluated here by other means, or from
autograd and a measured network.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.commands import Result
from helpers.mean_field import (
    batch_norm_plain_chi,
    correlation_map,
    depth_scales,
    fixed_correlation,
)
from jsonschema import Draft7Validator
from scipy import integrate, special
from torch import nn

from gradprobe.measure.profile import GradientProfile
from gradprobe.model.build import build
from gradprobe.render.schema import output_schema
from gradprobe.spec.network import InitSpec, NetworkSpec, Value
from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.spec.vocabulary import INITS
from gradprobe.tasks.probe import probe_target
from gradprobe.tasks.targets import load_spec
from gradprobe.theory import mean_field as theory
from gradprobe.theory.activations import ACTIVATIONS, Activation, activation
from gradprobe.theory.inits import INIT_MOMENTS, init_moments
from gradprobe.theory.moments import Moments, RowPrediction, Tangent
from gradprobe.theory.predict import predict, with_init
from gradprobe.verdict.report import Report

RELU, TANH, NONE = activation("ReLU"), activation("Tanh"), activation("Identity")
DEFAULT = 1 / 3  # σ_w² of torch's default init, U(±1/√n)

# ---- activations, against torch and autograd

OTHER_ARGUMENTS = {
    "LeakyReLU": {"negative_slope": 0.3},
    "PReLU": {"init": 0.1},
    "ELU": {"alpha": 1.7},
    "CELU": {"alpha": 0.6},
    "GELU": {"approximate": "tanh"},
    "Softplus": {"beta": 3.0, "threshold": 2.0},
    "Softshrink": {"lambd": 0.8},
    "Hardshrink": {"lambd": 0.2},
    "Hardtanh": {"min_val": -0.4, "max_val": 2.5},
    "Threshold": {"threshold": 0.3, "value": -1.0},
}


def arguments_of(kind: str) -> list[dict[str, float]]:
    defaults = {"threshold": 0.1, "value": 0.5} if kind == "Threshold" else {}
    return [defaults, *([OTHER_ARGUMENTS[kind]] if kind in OTHER_ARGUMENTS else [])]


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_each_activation_and_its_slope_are_torch_s(kind: str) -> None:
    h = torch.linspace(-7.03, 7.01, 501, dtype=torch.float64, requires_grad=True)
    for arguments in arguments_of(kind):
        module = getattr(nn, kind)(**arguments).double()
        value = module(h)
        (slope,) = torch.autograd.grad(value.sum(), h)
        phi = activation(kind, arguments)
        points = h.detach().numpy()
        # torch keeps CELU's alpha in float32
        assert np.allclose(phi.f(points), value.detach().numpy(), rtol=2e-6, atol=1e-12)
        assert np.allclose(phi.slope(points), slope.numpy(), rtol=2e-6, atol=1e-12)


# ---- expectations, against scipy


def gaussian(f: Callable[[float], float], kinks: tuple[float, ...] = (0.0,)) -> float:
    """E[f(z)], z ~ N(0, 1)."""

    def density(z: float) -> float:
        return f(z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    marks = sorted({-12.0, *[k for k in kinks if abs(k) < 12], 12.0})
    parts = pairwise(marks)
    return sum(integrate.quad(density, a, b, epsabs=1e-13, limit=400)[0] for a, b in parts)


@pytest.mark.parametrize("q", [1e-4, 0.3, 7.0, 900.0])
@pytest.mark.parametrize("kind", ["ReLU", "Tanh", "GELU", "Hardtanh", "Softsign", "Hardshrink"])
def test_moments_are_scipy_s(kind: str, q: float) -> None:
    phi, mean, std = activation(kind), 0.2, math.sqrt(q)
    kinks = tuple((kink - mean) / std for kink in (*phi.kinks, 0.0))

    def at(f: Callable, power: int) -> float:
        return gaussian(lambda z: float(f(np.array(mean + std * z))) ** power, kinks)

    found = theory.moments(phi, q, mean)
    assert found.mean == pytest.approx(at(phi.f, 1), rel=1e-7, abs=1e-10)
    assert found.square == pytest.approx(at(phi.f, 2), rel=1e-7)
    assert found.slope == pytest.approx(at(phi.slope, 2), rel=1e-7)
    if found.slope > 0:
        assert found.kurtosis == pytest.approx(at(phi.slope, 4) / found.slope**2, rel=1e-6)


@pytest.mark.parametrize("c", [-0.9, -0.2, 0.0, 0.5, 0.99, 1.0])
def test_relu_s_products_are_the_arc_cosine_kernels(c: float) -> None:
    # Cho & Saul 2009: E[φφ'] = q (sin θ + (π - θ) cos θ) / 2π, of slopes (π - θ) / 2π
    angle = math.acos(c)
    first = 2.5 * (math.sin(angle) + (math.pi - angle) * c) / (2 * math.pi)
    assert theory.product(RELU, 2.5, c) == pytest.approx(first, rel=1e-6, abs=1e-9)
    zeroth = (math.pi - angle) / (2 * math.pi)
    found = theory.product(RELU._replace(f=RELU.slope), 2.5, c)
    assert found == pytest.approx(zeroth, rel=1e-6, abs=1e-9)


def test_erf_s_products_are_the_arc_sine_kernel() -> None:
    # Williams 1997: E[erf(h) erf(h')] = 2/π · asin(2 q c / (1 + 2 q))
    phi = Activation(special.erf, lambda h: 2 / math.sqrt(math.pi) * np.exp(-h * h))
    for q, c in ((0.1, 0.3), (1.0, -0.8), (30.0, 0.95)):
        exact = 2 / math.pi * math.asin(2 * q * c / (1 + 2 * q))
        assert theory.product(phi, q, c) == pytest.approx(exact, rel=1e-7)
        square = 2 / math.pi * math.asin(2 * q / (1 + 2 * q))
        assert theory.moments(phi, q).square == pytest.approx(square, rel=1e-7)


# ---- closed forms


@pytest.mark.parametrize("q", [1e-6, 0.3, 1.0, 50.0, 1e6])
def test_relu_s_factor_is_sigma_over_root_two_at_every_length(q: float) -> None:
    for weight in (DEFAULT, 1.0, 2.0):
        assert math.sqrt(theory.chi(RELU, q, weight)) == pytest.approx(math.sqrt(weight / 2))


@pytest.mark.parametrize(
    ("phi", "weight", "factor"),
    [
        (NONE, DEFAULT, 1 / math.sqrt(3)),
        (NONE, 1.0, 1.0),
        (RELU, DEFAULT, 1 / math.sqrt(6)),
        (RELU, 2.0, 1.0),
        (TANH, DEFAULT, 1 / math.sqrt(3)),  # the fixed point is 0, where tanh is linear
        (activation("GELU"), DEFAULT, 0.5 / math.sqrt(3)),
    ],
)
def test_factors_at_the_fixed_point(phi: Activation, weight: float, factor: float) -> None:
    assert math.sqrt(theory.chi_fixed(phi, weight)) == pytest.approx(factor, rel=1e-6)


def test_tanh_at_sigma_three_grows_by_1_36() -> None:
    assert math.sqrt(theory.chi_fixed(TANH, 9.0)) == pytest.approx(1.36, abs=0.005)


def test_batch_norm_and_relu_explode_by_root_pi_over_pi_minus_one() -> None:
    exact = math.sqrt(math.pi / (math.pi - 1))
    assert math.sqrt(batch_norm_plain_chi(RELU)) == pytest.approx(exact, rel=1e-9)
    assert exact == pytest.approx(1.211, abs=5e-4)
    assert batch_norm_plain_chi(NONE) == pytest.approx(1.0)


def test_edges_of_chaos() -> None:
    assert theory.edge_of_chaos(TANH) == pytest.approx(1.0, rel=1e-6)
    assert theory.edge_of_chaos(RELU) == pytest.approx(math.sqrt(2), rel=1e-6)
    assert theory.edge_of_chaos(NONE) == pytest.approx(1.0, rel=1e-6)
    # On the edge χ₁ is 1, with biases too (the curve in figure 1 of Schoenholz et al. 2017).
    edge = theory.edge_of_chaos(TANH, 0.05)
    assert edge is not None
    assert theory.chi_fixed(TANH, edge**2, 0.05) == pytest.approx(1.0, rel=1e-6)


def test_lengths_that_vanish_or_diverge() -> None:
    assert theory.fixed_length(TANH, 0.9) == 0.0
    assert theory.fixed_length(RELU, 2.1) == math.inf
    assert theory.fixed_length(NONE, 0.5, 1.0) == pytest.approx(2.0)  # q = q/2 + 1
    assert theory.fixed_length(RELU, 1.0, 0.5) == pytest.approx(1.0)  # q = q/2 + 1/2


@pytest.mark.parametrize(
    ("branch", "skip", "scale", "exact"), [(1 / 6, 1.0, 1.0, 7 / 6), (2.0, 0.9, 0.5, 1.31)]
)
def test_a_block_adds_squares(branch: float, skip: float, scale: float, exact: float) -> None:
    assert theory.residual_chi(branch, skip, scale) == pytest.approx(exact)


def mean_squared_gain(module: nn.Module, x: torch.Tensor) -> float:
    """E‖Jᵀδ‖² / ‖δ‖² over random δ: the mean square singular value, from the dense Jacobian."""
    jacobian = torch.autograd.functional.jacobian(module, x).reshape(x.numel(), x.numel())
    return float(jacobian.square().sum()) / x.numel()


def test_normalisations_divide_by_the_size_and_lose_directions() -> None:
    x = 3 * torch.randn(1, 16, generator=torch.Generator().manual_seed(3)).double()
    for eps in (1e-5, 2.0):
        variance, square = float(x.var(unbiased=False)), float(x.square().mean())
        layer = mean_squared_gain(nn.LayerNorm(16, eps).double(), x)
        assert theory.layer_norm_chi(variance, 16, eps) == pytest.approx(layer, rel=1e-9)
        rms = mean_squared_gain(nn.RMSNorm(16, eps).double(), x)
        assert theory.rms_norm_chi(square, 16, eps) == pytest.approx(rms, rel=1e-9)
    many = 3 * torch.randn(12, 4000, generator=torch.Generator().manual_seed(4)).double()
    many.requires_grad_()
    delta = torch.randn(many.shape, generator=torch.Generator().manual_seed(5)).double()
    (back,) = torch.autograd.grad(nn.BatchNorm1d(4000).double()(many), many, delta)
    found = float(back.square().sum() / delta.square().sum())
    assert theory.batch_norm_chi(9.0, 12) == pytest.approx(found, rel=0.02)


# ---- correlations and depth scales of tanh: the paper's formulas on a product grid of scipy's

CASES = [(0.8, 0.3), (1.5, 0.2), (2.5, 0.5)]  # σ_w, σ_b: ordered, chaotic, more chaotic

GRID, GRID_WEIGHTS = special.roots_hermitenorm(120)
GRID_WEIGHTS = GRID_WEIGHTS / GRID_WEIGHTS.sum()


def pair_mean(f: Callable[[np.ndarray], np.ndarray], q: float, c: float) -> float:
    """∫∫ Dz₁ Dz₂ f(√q z₁) f(√q (c z₁ + √(1 - c²) z₂)), by a product grid."""
    first, second = np.meshgrid(GRID, GRID, indexing="ij")
    other = c * first + math.sqrt(1 - c * c) * second
    values = f(math.sqrt(q) * first) * f(math.sqrt(q) * other)
    return float(GRID_WEIGHTS @ values @ GRID_WEIGHTS)


def slope(h: np.ndarray) -> np.ndarray:
    return 1 / np.cosh(h) ** 2


@pytest.mark.parametrize(("sigma_w", "sigma_b"), CASES)
def test_fixed_points_and_depth_scales_of_tanh(sigma_w: float, sigma_b: float) -> None:
    weight, bias = sigma_w**2, sigma_b**2
    q = 1.0
    for _ in range(60):  # the maps themselves, iterated until they rest
        q = weight * gaussian(lambda z, q=q: math.tanh(math.sqrt(q) * z) ** 2) + bias
    c = 0.3
    for _ in range(300):
        c = min(1.0, (weight * pair_mean(np.tanh, q, c) + bias) / q)
    assert theory.fixed_length(TANH, weight, bias) == pytest.approx(q, rel=1e-5)
    assert fixed_correlation(TANH, weight, bias) == pytest.approx(c, rel=1e-4)
    mapped = (weight * pair_mean(np.tanh, q, 0.3) + bias) / q
    assert correlation_map(TANH, 0.3, q, weight, bias) == pytest.approx(mapped, rel=1e-5)

    chi = weight * gaussian(lambda z: slope(math.sqrt(q) * z) ** 2)
    second = weight * gaussian(  # φ'' φ = -2 tanh² sech²
        lambda z: -2 * math.tanh(math.sqrt(q) * z) ** 2 * slope(math.sqrt(q) * z)
    )
    scales = depth_scales(TANH, weight, bias)
    assert scales.length == pytest.approx(-1 / math.log(chi + second), rel=1e-4)
    assert scales.gradient == pytest.approx(-1 / math.log(chi), rel=1e-4)
    along = weight * pair_mean(slope, q, c)
    assert scales.correlation == pytest.approx(-1 / math.log(along), rel=1e-3)
    assert (chi > 1) == (c < 0.999)


# ---- initialisations, against what torch draws

INIT_CASES: dict[str, dict[str, object]] = {
    "constant": {"val": 0.3},
    "uniform": {"a": -0.2, "b": 0.6},
    "normal": {"mean": 0.1, "std": 0.7},
    "trunc_normal": {"mean": 0.2, "std": 0.9, "a": -0.5, "b": 1.5},
    "kaiming_normal": {"mode": "fan_out", "nonlinearity": "tanh"},
    "kaiming_uniform": {"a": 0.5},
    "orthogonal": {"gain": 1.3},
    "sparse": {"sparsity": 0.3, "std": 0.5},
    "variance_scaling": {"scale": 1.7, "mode": "fan_avg", "distribution": "uniform"},
}
NOT_RANDOM = {"eye", "dirac"}


@pytest.mark.parametrize("name", sorted(set(INITS) - NOT_RANDOM))
@pytest.mark.parametrize("shape", [(300, 200), (200, 300)], ids=["down", "up"])
def test_each_init_s_moments_are_those_of_what_is_drawn(name: str, shape: tuple[int, int]) -> None:
    init = InitSpec(name, INIT_CASES.get(name, {}))
    layer = {"Linear": {"out_features": shape[0], "bias": False}}
    made = from_layers([layer], input_size=shape[1])
    drawn = next(build(with_weight(made, init)).parameters()).detach().double()
    found = init_moments(init, shape)
    assert found is not None
    spread = math.sqrt(found[1])
    assert found[0] == pytest.approx(float(drawn.mean()), abs=0.01 * spread + 1e-12)
    assert found[1] == pytest.approx(float(drawn.square().mean()), rel=0.02, abs=1e-12)


def test_the_table_of_inits_has_all_that_draw() -> None:
    assert set(INIT_MOMENTS) == set(INITS) - NOT_RANDOM


def from_layers(layers: list[object], input_size: int | list[int] = 64) -> NetworkSpec:
    from gradprobe.spec.sources.yaml import parse

    shape = input_size if isinstance(input_size, list) else [input_size]
    body = {"input": {"shape": shape}, "layers": layers}
    return parse(json.dumps(body).encode(), "net.yaml")


def with_weight(spec: NetworkSpec, init: InitSpec) -> NetworkSpec:
    return replace(spec, init={"Linear": {"weight": init}})


# ---- prediction against measurement


def stack(target: str, **options: object) -> NetworkSpec:
    return load_spec(target, StackOptions(**options))


def measured(
    spec: NetworkSpec, seeds: int = 1, **options: object
) -> tuple[list[float | None], list[float | None]]:
    """The factor of each row: geometric mean over seeds, and theory's."""
    reports = [
        probe_target(spec, ProbeOptions(seed=seed, dtype="float64", theory=True, **options))
        for seed in range(seeds)
    ]
    found: list[float | None] = []
    for row in reports[0].rows:
        values = [report.profile.factors.get(row.name) for report in reports]
        known = [value for value in values if value]
        found.append(statistics.geometric_mean(known) if len(known) == seeds else None)
    return found, [row.theory.factor if row.theory else None for row in reports[0].rows]


def excess(spec: NetworkSpec, seeds: int = 1, **options: object) -> float:
    """Measured factor per row ÷ theory's, geometric mean over the rows between stem and head."""
    found, said = measured(spec, seeds, **options)
    ratios = [f / s for f, s in zip(found[1:-1], said[1:-1], strict=True) if f and s]
    assert len(ratios) == len(found) - 2
    return statistics.geometric_mean(ratios)


@pytest.mark.parametrize("target", ["plain", "residual"])
@pytest.mark.parametrize("norm", ["none", "layer", "rms", "batch"])
def test_each_norm_and_skip_is_predicted_within_two_percent_a_row(target: str, norm: str) -> None:
    spec = stack(target, depth=10, width=512, activation="relu", norm=norm)
    batch = 128 if norm == "batch" else 16
    assert excess(spec, 2, batch_size=batch) == pytest.approx(1, abs=0.02)


LINEAR = {"Linear": {"out_features": 512}}


@pytest.mark.parametrize(
    "layers",
    [
        [{"residual": {"layers": ["LayerNorm", LINEAR, "GELU", LINEAR], "skip_scale": 0.8}}],
        [{"residual": {"layers": [LINEAR, "Tanh"], "shortcut": [LINEAR], "branch_scale": 2.0}}],
        [{"residual": [LINEAR, "SELU"]}, "LayerNorm"],
        [LINEAR, "Softsign", {"Dropout": {"p": 0.4}}],
        [{"Linear": {"out_features": 512, "init": {"bias": {"constant": {"val": 0.7}}}}}, "Tanh"],
        [{"sequential": [LINEAR, {"LayerNorm": {"elementwise_affine": False}}, "Sigmoid"]}],
        [{"residual": {"layers": [LINEAR, "Tanh", LINEAR], "zero_init": True}}],
    ],
    ids=["pre-norm", "shortcut", "post-norm", "dropout", "bias", "sequential", "zero"],
)
def test_what_a_block_may_hold_is_predicted_within_three_percent(layers: list[object]) -> None:
    body = {"repeat": {"times": 4, "layers": layers}}
    spec = from_layers([LINEAR, body, {"Linear": {"out_features": 10}}], 512)
    assert excess(spec, 2) == pytest.approx(1, abs=0.03)


def test_convolutions_are_predicted_within_five_percent() -> None:
    conv = {"Conv2d": {"out_channels": 128, "kernel_size": 3, "padding": 1}}
    strided = {"Conv2d": {"out_channels": 128, "kernel_size": 3, "stride": 2, "groups": 2}}
    body = {"repeat": {"times": 2, "layers": [conv, "BatchNorm2d", "ReLU"]}}
    spec = from_layers(
        [conv, body, strided, "Flatten", {"Linear": {"out_features": 10}}], [4, 9, 9]
    )
    found, said = measured(spec, 2, batch_size=8)
    assert found[1:] == pytest.approx(said[1:], rel=0.05)


def test_zero_padding_is_counted_tap_by_tap() -> None:
    for options in ({}, {"padding": 2}, {"padding": 1, "stride": 3}, {"padding": 3, "dilation": 2}):
        layer = {"out_channels": 3, "kernel_size": 3, "bias": False, **options}
        [row] = predict(from_layers([{"Conv1d": layer}], [2, 7]))
        conv = nn.Conv1d(2, 3, 3, bias=False, **options)
        conv.weight.data.fill_(1.0)
        x = torch.ones(1, 2, 7)
        met = float(conv(x).detach().mean()) / 6  # each tap that meets the input adds 1
        assert row.factor is not None
        assert row.factor**2 == pytest.approx(DEFAULT * met, rel=1e-6)


def test_the_signal_s_own_direction_outgrows_the_rest_in_deep_residual_relu_stacks() -> None:
    spec = stack("residual", depth=50, width=64, activation="relu")
    reaches = [probe_target(spec, ProbeOptions(seed=s, theory=True)).profile for s in range(3)]
    found = statistics.geometric_mean(p.reach for p in reaches)
    said = reaches[0].predicted_reach
    assert found > 100 * (7 / 6) ** 25  # mean field's χ = 1 + σ_w²/2 alone
    assert said == pytest.approx(found, rel=0.5)
    # The factors tend to mean field's at any fixed depth as the width grows.
    rows = predict(stack("residual", depth=8, width=10**6, activation="relu"))
    assert [row.factor for row in rows[1:-1]] == pytest.approx([math.sqrt(7 / 6)] * 8, rel=1e-3)


def test_predictions_bear_the_names_of_the_measured_rows() -> None:
    layers = [LINEAR, {"repeat": {"times": 3, "name": "body", "layers": [LINEAR, "ReLU"]}}]
    for spec in (from_layers([*layers, LINEAR]), stack("residual", depth=3)):
        names = [row.name for row in predict(spec)]
        assert names == [row.name for row in build(spec).rows]


def test_where_theory_is_silent_it_says_why() -> None:
    attention = {"MultiheadAttention": {"num_heads": 2}}
    rows = predict(from_layers([LINEAR, attention, LINEAR], [5, 64]))
    assert rows[0].factor == pytest.approx(math.sqrt(DEFAULT))
    assert rows[1:] == (
        RowPrediction("1", None, 0.0, "MultiheadAttention has no closed form here"),
        RowPrediction("2", None, 0.0, "behind row 1: MultiheadAttention has no closed form here"),
    )
    reasons = {
        "not Gaussian": [LINEAR, "ReLU", "Tanh"],
        "mean 0": [{"Linear": {"out_features": 4, "init": {"weight": "ones"}}}],
        "not random": [{"Linear": {"out_features": 64, "init": {"weight": "eye"}}}],
        "holds random weights": [LINEAR, {"residual": ["Tanh"]}],
        "padding_mode": [
            {"Conv1d": {"out_channels": 4, "kernel_size": 3, "padding_mode": "circular"}}
        ],
    }
    for reason, layers in reasons.items():
        last = predict(from_layers(layers, [3, 64] if reason == "padding_mode" else 64))[-1]
        assert last.factor is None
        assert reason in (last.reason or "")
    [few] = predict(from_layers(["BatchNorm1d"]), batch_size=4)
    assert few.reason == "BatchNorm1d over a batch of 4"
    tokens = replace(from_layers([LINEAR]).input, tokens=9)
    assert predict(replace(from_layers([LINEAR]), input=tokens))[0].reason == "its input is tokens"


def test_he_init_s_relu_stack_neither_grows_nor_decays() -> None:
    spec = stack("plain", depth=5, width=64, activation="relu")
    rows = predict(with_init(spec, InitSpec("kaiming_normal")))
    assert [row.factor for row in rows[1:-1]] == pytest.approx([1.0] * 5)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_another_init_takes_the_place_of_a_layer_s_own_and_leaves_a_norm_s(scale: float) -> None:
    """A LayerNorm of weight g has the factor g, He init in front of a ReLU the factor 1."""
    own = {"Linear": {"out_features": 512, "init": {"weight": {"normal": {"std": 7.0}}}}}
    norm = {"LayerNorm": {"init": {"weight": {"constant": {"val": scale}}}}}
    spec = from_layers([own, {"repeat": {"times": 2, "layers": ["ReLU", own]}}, norm, own], 512)
    rows = predict(with_init(spec, InitSpec("kaiming_normal")))
    growth = [row.factor for row in rows]
    assert growth[1:3] == pytest.approx([1.0, 1.0], rel=0.01)
    before = math.sqrt(theory.layer_norm_chi(2.0, 512))
    assert growth[3] == pytest.approx(scale * before, rel=0.01)
    own_rows = predict(spec)
    assert own_rows[1].factor == pytest.approx(7.0 * math.sqrt(512 / 2), rel=0.01)


def test_torch_is_not_needed_to_predict() -> None:
    code = (
        "import sys; from gradprobe.theory.predict import predict; "
        "from gradprobe.spec.sources.stack import *; "
        "predict(load('residual', StackOptions(norm='batch'))); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- what is shown


def report_of(spec: NetworkSpec, **options: object) -> Report:
    return probe_target(spec, ProbeOptions(theory=True, **options))


def test_probe_shows_theory_only_when_asked(run: Callable[..., Result]) -> None:
    words = ["probe", "plain", "--depth", "4", "--activation", "relu"]
    without, asked = run(*words).out, run(*words, "--theory").out
    assert "theory" not in without
    assert asked.count("0.408") >= 5
    assert "theory ×0.408 (ReLU, torch's default init); at He init ×1" in " ".join(asked.split())
    assert max(map(len, asked.splitlines())) <= 80
    body = json.loads(run(*words, "--theory", "--format", "json").out)
    assert "theory" not in json.loads(run(*words, "--format", "json").out)
    assert [
        error.message for error in Draft7Validator(output_schema("report")).iter_errors(body)
    ] == []
    assert body["theory"]["decay"] == pytest.approx(1 / math.sqrt(6))
    assert body["theory"]["reach"] == pytest.approx(6**-2)
    assert body["theory"]["agrees"] is True
    rows = body["rows"]
    assert rows[0]["factor"] is None
    norms = [row["gradient_norm"] for row in rows]
    assert [row["factor"] for row in rows[1:]] == pytest.approx([a / b for a, b in pairwise(norms)])
    assert rows[1]["theory"] == pytest.approx(1 / math.sqrt(6))


def test_probe_says_where_theory_ends(run: Callable[..., Result]) -> None:
    shown = run("probe", "model_specs/transformer_prenorm.yaml", "--theory").out
    assert "theory ends at row 1.0: MultiheadAttention has no closed form here" in shown


def test_theory_is_about_rows(run: Callable[..., Result]) -> None:
    ended = run("probe", "plain", "--theory", "--by", "position")
    assert ended.code == 2
    assert "--theory is about rows" in ended.err


def test_a_disagreement_beyond_finite_width_is_said() -> None:
    from gradprobe.render.text import render_report

    report = report_of(stack("plain", depth=6, width=256, activation="relu"))
    assert report.profile.disagreement() is None
    assert "differ" not in render_report(report)
    off = [
        row._replace(theory=row.theory._replace(factor=1.0)) if row.theory else row
        for row in report.rows
    ]
    wrong: GradientProfile = replace(report.profile, rows=tuple(off))
    apart = wrong.disagreement()
    assert apart is not None
    assert apart[0] == pytest.approx(1 / (report.reach or 0), rel=1e-6)
    shown = " ".join(render_report(replace(report, profile=wrong)).split())
    assert "measured and theory differ by" in shown
    assert "over the trunk: finite width explains up to" in shown


def test_data_gives_theory_its_own_moments() -> None:
    spec = stack("plain", depth=3, width=64, activation="tanh", init=InitSpec("xavier_normal"))
    large = 5 * torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    report = probe_target(spec, ProbeOptions(theory=True), inputs=large)
    factors = [row.theory.factor for row in report.rows if row.theory]
    assert factors[1] == pytest.approx(math.sqrt(theory.chi(TANH, 25.0, 1.0)), rel=0.02)


@pytest.mark.parametrize("mean", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("first", [True, False], ids=["Linear, BatchNorm", "BatchNorm"])
def test_data_s_own_correlation_is_what_batch_norm_divides_by(first: bool, mean: float) -> None:
    """BatchNorm sees E[x²] - E[x_a x_b]; here over every pair of samples, in a loop."""
    size, width = 16, 48
    data = mean + torch.randn(size, width, generator=torch.Generator().manual_seed(1))
    samples = data.double().tolist()
    products = [
        math.fsum(a * b for a, b in zip(one, other, strict=True)) / width
        for index, one in enumerate(samples)
        for place, other in enumerate(samples)
        if index != place
    ]
    square = math.fsum(x * x for sample in samples for x in sample) / (size * width)
    variance = square - math.fsum(products) / len(products)
    layers = [{"Linear": {"out_features": 64, "bias": False}}] * first + ["BatchNorm1d", LINEAR]
    report = probe_target(
        from_layers(layers, width), ProbeOptions(theory=True, batch_size=size), inputs=data
    )
    found = report.rows[int(first)].theory
    assert found is not None
    chi = theory.batch_norm_chi(variance * (DEFAULT if first else 1), size, 1e-5)
    assert found.factor == pytest.approx(math.sqrt(chi), rel=1e-9)


@pytest.mark.parametrize("behind", [["Tanh", LINEAR, "Tanh"], ["ReLU", "BatchNorm1d", LINEAR]])
def test_a_block_that_is_zero_at_first_changes_nothing_behind_it(behind: list[object]) -> None:
    """x + 0 = x: its mean, its square, its products and its tangent are those of x."""
    init = {"weight": InitSpec("kaiming_normal"), "bias": InitSpec("constant", {"val": 0.5})}
    zero = {"residual": {"layers": [LINEAR, "Tanh", LINEAR], "zero_init": True}}

    def factors(*blocks: object) -> list[float | None]:
        spec = from_layers([LINEAR, *blocks, *behind], 512)
        rows = predict(replace(spec, init={"Linear": init}), 32)
        return [row.factor for row in rows[-len(behind) :]]

    assert factors(zero) == pytest.approx(factors(), rel=1e-9)


@pytest.mark.parametrize("mean", [0.0, 0.7])
@pytest.mark.parametrize("kind", ["Tanh", "GELU"])
def test_a_tangent_is_pushed_as_any_that_has_its_moments(kind: str, mean: float) -> None:
    """ḣ = a + b (h - m) + c z with z independent of h, over a product grid of numpy's."""
    phi, variance, a, b, c = activation(kind, {}), 1.3, 0.4, -0.6, 0.8
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    weights = weights / weights.sum()
    h, z = mean + math.sqrt(variance) * nodes[:, None], nodes[None, :]
    moved = phi.slope(h) * (a + b * (h - mean) + c * z)
    expected = [
        float(weights @ (np.broadcast_to(x, moved.shape) @ weights))
        for x in (moved**2, phi.f(h) * moved, moved)
    ]
    square, along = a * a + b * b * variance + c * c, a * mean + b * variance
    found = theory.push(phi, variance, mean, Tangent(square, along, a))
    assert list(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("c", [-0.5, 0.3, 1.0])
def test_a_constant_bias_makes_no_two_samples_alike(c: float) -> None:
    """Behind W x + c of samples at right angles ReLU has units that are N(c, v), each its own."""
    width, size = 64, 32
    init = {"weight": InitSpec("kaiming_normal"), "bias": InitSpec("constant", {"val": c})}
    layers = [{"Linear": {"out_features": width}}, "ReLU", "BatchNorm1d", LINEAR]
    spec = replace(from_layers(layers, width), init={"Linear": init})
    deviation = math.sqrt(2.0)  # of W x, by He's init
    below = special.ndtr(c / deviation)
    density = math.exp(-((c / deviation) ** 2) / 2) / math.sqrt(2 * math.pi)
    mean = c * below + deviation * density
    square = (c * c + 2.0) * below + c * deviation * density
    found = next(row for row in predict(spec, size) if row.name == "2")
    chi = theory.batch_norm_chi(square - mean * mean, size, 1e-5)
    assert found.factor == pytest.approx(math.sqrt(chi), rel=1e-6)


@pytest.mark.parametrize("eps", [1e-5, 0.5, 4.0])
def test_batch_norm_s_eps_is_part_of_what_it_divides_by(eps: float) -> None:
    """x + W BN(x), batch and width without end: q → q + σ² q / (q + ε), χ = 1 + σ² / (q + ε).

    The signal and its tangent grow by the same linear map, so no direction outgrows the rest.
    """
    depth, width = 12, 10**5
    block = {"residual": [{"BatchNorm1d": {"eps": eps}}, {"Linear": {"out_features": width}}]}
    spec = from_layers([{"repeat": {"times": depth, "layers": [block]}}], width)
    spec = replace(spec, init={"Linear": {"weight": InitSpec("kaiming_normal")}})
    spec = replace(spec, init={"Linear": {**spec.init["Linear"], "bias": InitSpec("zeros")}})
    q, expected = 1.0, []
    for _ in range(depth):
        expected.append(math.sqrt(1 + 2 / (q + eps)))
        q += 2 * q / (q + eps)
    factors = [row.factor for row in predict(spec, batch_size=10**7)]
    assert factors == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("norm", ["BatchNorm1d", "LayerNorm", "RMSNorm"])
def test_a_norm_with_a_large_eps_is_predicted(norm: str) -> None:
    block = {"residual": [{norm: {"eps": 2.0}}, "ReLU", LINEAR]}
    init = {"Linear": {"weight": InitSpec("normal", {"std": 0.25})}}
    spec = from_layers([LINEAR, {"repeat": {"times": 8, "layers": [block]}}, LINEAR], 512)
    assert excess(replace(spec, init=init), 2, batch_size=64) == pytest.approx(1, abs=0.01)


def test_sweep_shows_theory_s_curve_and_the_edge(run: Callable[..., Result]) -> None:
    words = ["sweep", "plain", "--depth", "2,8", "--activation", "relu", "--theory"]
    curve = run(*words)
    assert "theory" in curve.out
    assert "- theory" in curve.out
    points = json.loads(run(*words, "--format", "json").out)["curves"][0]["points"]
    assert [point["theory"] for point in points] == pytest.approx([6**-1.0, 6**-4.0])
    chart = run("sweep", "plain", "residual", "--depth", "2,4", "--gain", "0.8,0.9,1.1", "--theory")
    rows = [line for line in chart.out.splitlines() if "│ " in line and "theory" not in line]
    assert len(rows) == 2  # the edge lies between 0.9 and 1.1 in the plain stack's map only
    assert all(len(line.split("│")[1].split()) == 1 for line in rows)
    assert "theory's edge of chaos, gain 1" in chart.out
    assert "theory: no edge of chaos on this map" in chart.out
    assert "theory" not in run(*words[:-1]).out


# ---- the grid of FACTS: slow

GRID_CASES = [
    (name, init)
    for name, init in [
        ("none", None),
        ("none", "orthogonal"),
        ("relu", None),
        ("relu", "kaiming_normal"),
        ("tanh", None),
        ("sigmoid", None),
        ("gelu", None),
        ("selu", "xavier_normal"),
        ("silu", None),
        ("elu", "xavier_normal"),
        ("softsign", "orthogonal"),
    ]
]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["plain", "residual"])
@pytest.mark.parametrize(("name", "init"), GRID_CASES)
def test_the_grid_is_predicted_within_two_percent_at_width_1024(
    name: str, init: str | None, target: str
) -> None:
    made = InitSpec(init) if init else None
    spec = stack(target, depth=15, width=1024, activation=name, init=made)
    assert excess(spec, 3, batch_size=16) == pytest.approx(1, abs=0.02)


def test_batch_norm_of_images_that_look_alike_is_left_out() -> None:
    """Theory knows one mean of all channels; images that look alike give each channel its own."""
    layers = [{"Conv2d": {"out_channels": 4, "kernel_size": 1}}, "BatchNorm2d"]
    spec = from_layers([*layers, "Flatten", LINEAR], [3, 4, 4])
    reasons = [
        predict(spec, 16, Moments((16, 3, 4, 4), 0.0, 1.0, product))[1].reason
        for product in (0.9, 0.1)
    ]
    assert reasons == ["BatchNorm2d of images that look alike", None]


@pytest.mark.parametrize("width", [8, 64])
def test_a_linear_layer_s_deviation_is_that_of_a_chi_squared(width: int) -> None:
    """|Wᵀg|² of a Gaussian W is χ² of n numbers: a relative variance of 2/n, of the norm 1/2n."""
    linear = {"Linear": {"out_features": width, "bias": False}}
    rows = predict(from_layers([linear, linear, LINEAR], width), 16)
    assert [row.deviation for row in rows] == pytest.approx([math.sqrt(1 / (2 * width))] * 3)


@pytest.mark.parametrize("init", [{"mean": 10.0, "std": 0.5}, {"std": 0.02, "a": 1.0}])
def test_a_normal_cut_off_where_it_has_nothing_is_not_random(init: dict[str, Value]) -> None:
    assert init_moments(InitSpec("trunc_normal", init), (8, 8)) is None


def test_a_sparse_init_has_no_more_zeros_than_entries() -> None:
    assert init_moments(InitSpec("sparse", {"sparsity": 2.0}), (8, 8)) == (0.0, 0.0)
