"""Networks whose answer is known: mean field on paper, linear chains and scalar blocks by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.commands import Result
from torch import Tensor, nn

import gradprobe

# ---- mean field: E[f(z)], z ~ N(0, 1), by quadrature

POINTS, WEIGHTS = np.polynomial.hermite_e.hermegauss(200)  # even: no point on a kink at 0
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def gauss(values: np.ndarray) -> float:
    return float(WEIGHTS @ values)


class Activation:
    """An activation and its derivative, the latter by differences where no formula is given."""

    def __init__(self, name: str, f: Callable[[np.ndarray], np.ndarray]) -> None:
        self.name, self.f = name, f

    def slope(self, z: np.ndarray) -> np.ndarray:
        step = 1e-6
        return (self.f(z + step) - self.f(z - step)) / (2 * step)


def _selu(z: np.ndarray) -> np.ndarray:
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


NONE = Activation("none", lambda z: z)
RELU = Activation("relu", lambda z: np.maximum(z, 0))
TANH = Activation("tanh", np.tanh)
SIGMOID = Activation("sigmoid", lambda z: 1 / (1 + np.exp(-z)))
GELU = Activation("gelu", lambda z: z * 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2))))
SELU = Activation("selu", _selu)


def mean_field(
    activation: Activation, weight: float, bias: float, depth: int, residual: bool
) -> float:
    """Factor per row of the gradient norm going back, for weights of variance ``weight`` / n.

    The length map (Schoenholz et al. 2017, arXiv 1611.01232), layer by layer and not at its fixed
    point; with a skip the squared norm gains χ instead of being multiplied by it (Yang & Schoenholz
    2017, arXiv 1712.08969).
    """
    length, mean = weight + bias, 0.0  # of the stem's output, for inputs of unit variance
    logarithm = 0.0
    for _ in range(depth):
        z = math.sqrt(weight * length + bias) * POINTS
        chi = weight * gauss(activation.slope(z) ** 2)
        logarithm += 0.5 * math.log(residual + chi)
        values = activation.f(z)
        skip = length + 2 * mean * gauss(values) if residual else 0.0
        length = skip + gauss(values**2)
        mean = residual * mean + gauss(values)
    return math.exp(logarithm / depth)


# ---- the table of FACTS.md: width 512

WIDTH, DEPTH = 512, 16
DEFAULT = (1 / 3, 1 / (3 * WIDTH))  # U(±1/sqrt(n)) for weights and biases alike
HE, UNIT = (2.0, 0.0), (1.0, 0.0)

TABLE = [  # activation, --init, variances, measured factor plain and residual, tolerance
    (NONE, "default", DEFAULT, 0.577, 1.155, 0.03),
    (NONE, "orthogonal", UNIT, 1.000, 1.416, 0.03),
    (RELU, "default", DEFAULT, 0.410, 1.087, 0.03),
    (RELU, "kaiming_normal", HE, 0.996, 1.445, 0.06),
    (TANH, "default", DEFAULT, 0.573, 1.073, 0.03),
    (SIGMOID, "default", DEFAULT, 0.141, 1.005, 0.03),
    (GELU, "default", DEFAULT, 0.289, 1.082, 0.03),
    (SELU, "xavier_normal", UNIT, 1.034, 1.295, 0.03),
]


def measured_decay(run: Callable[..., Result], *arguments: object, seeds: int = 1) -> float:
    """Geometric mean over seeds of the factor per row, from the command line, in float64."""
    decays = []
    for seed in range(seeds):
        ended = run("probe", *arguments, "--seed", seed, "--dtype", "float64", "--format", "json")
        assert ended.code in (0, 1), ended.err
        decays.append(json.loads(ended.out)["decay"])
    return math.exp(sum(map(math.log, decays)) / seeds)


@pytest.mark.parametrize("stack", ["plain", "residual"])
@pytest.mark.parametrize("case", TABLE, ids=lambda case: f"{case[0].name}-{case[1]}")
def test_the_factor_per_row_is_mean_field_s(
    run: Callable[..., Result], stack: str, case: tuple
) -> None:
    activation, init, variances, plain, residual, tolerance = case
    theory = mean_field(activation, *variances, DEPTH, stack == "residual")
    options = ["--activation", activation.name, "--init", init]
    decay = measured_decay(run, stack, "--depth", DEPTH, "--width", WIDTH, *options)
    assert decay == pytest.approx(theory, rel=tolerance)
    assert decay == pytest.approx(residual if stack == "residual" else plain, rel=tolerance)


@pytest.mark.parametrize(
    ("theory", "closed_form"),
    [
        (mean_field(NONE, 1 / 3, 0, 9, False), 1 / math.sqrt(3)),
        (mean_field(NONE, 1 / 3, 0, 9, True), math.sqrt(4 / 3)),
        (mean_field(RELU, 1 / 3, 0, 9, False), 1 / math.sqrt(6)),
        (mean_field(RELU, 2, 0, 9, True), math.sqrt(2)),
        (mean_field(SIGMOID, 1e-9, 0, 9, False), math.sqrt(1e-9) / 4),
    ],
)
def test_the_quadrature_itself_is_right(theory: float, closed_form: float) -> None:
    assert theory == pytest.approx(closed_form, rel=1e-3)


def test_a_plain_relu_stack_with_torch_s_default_init_vanishes_by_one_over_root_six(
    run: Callable[..., Result],
) -> None:
    arguments = ["plain", "--depth", 20, "--activation", "relu", "--width", 512]
    ended = run("probe", *arguments, "--format", "json")
    answer = json.loads(ended.out)
    assert ended.code == 1
    assert answer["verdict"] == "vanishing"
    assert answer["decay"] == pytest.approx(1 / math.sqrt(6), rel=0.03)
    assert "vanishing" in run("probe", *arguments).out


@pytest.mark.parametrize(
    ("arguments", "factor", "tolerance"),
    [
        # Yang et al. 2019, arXiv 1902.08129
        (
            "--norm batch --activation relu --depth 60 --width 128 --batch-size 128",
            math.sqrt(math.pi / (math.pi - 1)),
            0.03,
        ),
        ("--activation relu --depth 20 --width 64 --init normal", math.sqrt(64 / 2), 0.05),
        (
            f"--activation tanh --depth {DEPTH} --width 512 --init variance_scaling:{{scale:9}}",
            mean_field(TANH, 9, 0, DEPTH, False),
            0.03,
        ),
    ],
    ids=["batch-norm", "normal", "tanh"],
)
def test_plain_stacks_that_explode_do_so_by_the_published_factor(
    run: Callable[..., Result], arguments: str, factor: float, tolerance: float
) -> None:
    words = [word.replace(":", ": ") for word in arguments.split()]
    assert measured_decay(run, "plain", *words) == pytest.approx(factor, rel=tolerance)


def test_tanh_at_sigma_three_grows_by_1_36_per_row() -> None:
    assert mean_field(TANH, 9, 0, 200, False) == pytest.approx(1.36, rel=0.01)


# ---- chains and scalar blocks, by hand


class Times(nn.Module):
    """x → c x"""

    def __init__(self, c: float) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.tensor([c], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.c * x


class Skip(nn.Module):
    """x → x + f(x)"""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f(x)


class Power(nn.Module):
    """x → x ** p"""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x**self.p


def diagonal(*values: float) -> nn.Linear:
    layer = nn.Linear(len(values), len(values), bias=False, dtype=torch.float64)
    layer.weight.data = torch.diag(torch.tensor(values, dtype=torch.float64))
    return layer


def rotation(angle: float) -> nn.Linear:
    layer = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    s, c = math.sin(angle), math.cos(angle)
    layer.weight.data = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return layer


def norms_of(*layers: nn.Module, x: list[list[float]]) -> tuple[gradprobe.GradientProfile, list]:
    """The profile of a chain under the loss Σ output, and its gradient norms."""
    inputs = torch.tensor(x, dtype=torch.float64)
    measured = gradprobe.probe(nn.Sequential(*layers), inputs, loss=lambda y: y.sum()).profile
    return measured, [r.gradient_norm for r in measured.rows]


def test_a_chain_of_factors_multiplies_them() -> None:
    factors = [2.0, 0.5, 3.0, 0.25, 5.0]
    measured, norms = norms_of(*map(Times, factors), x=[[1.0], [2.0]])
    # ∂L/∂x_k = the product of the later factors, once for each of the two samples
    expected = [math.prod(factors[k + 1 :]) * math.sqrt(2) for k in range(5)]
    assert norms == pytest.approx(expected, rel=1e-15)
    # ∂L/∂c_k = Σ_samples x · the product of all other factors
    weights = [abs(r.weight_gradient_norm or 0) for r in measured.rows]
    assert weights == pytest.approx([3 * math.prod(factors) / c for c in factors], rel=1e-15)
    assert [r.weight_norm for r in measured.rows] == factors
    assert measured.reach == pytest.approx(0.5 * 3 * 0.25)  # row 0 / row 3, which feeds the head
    assert measured.steps == 3
    assert measured.decay == pytest.approx((0.5 * 3 * 0.25) ** (1 / 3))


def test_a_halving_chain_has_a_half_life_of_one_row() -> None:
    measured, _ = norms_of(*(Times(0.5) for _ in range(12)), x=[[1.0]])
    assert measured.decay == pytest.approx(0.5, rel=1e-14)
    assert measured.half_life == pytest.approx(1.0, rel=1e-13)
    assert measured.reach == pytest.approx(0.5**10, rel=1e-14)


def test_a_chain_reaches_far_below_float32_and_float64_squares() -> None:
    _, norms = norms_of(*(Times(1e-20) for _ in range(12)), x=[[1.0]])
    assert norms == pytest.approx([10.0 ** (-20 * k) for k in range(11, -1, -1)], rel=1e-12)


def test_a_skip_adds_one_to_each_factor() -> None:
    factors = [0.5, -0.25, 2.0, 0.1]
    measured, norms = norms_of(*(Skip(Times(c)) for c in factors), x=[[3.0]])
    assert norms == pytest.approx([0.75 * 3 * 1.1, 3 * 1.1, 1.1, 1.0], rel=1e-15)
    assert measured.reach == pytest.approx(0.75 * 3.0, rel=1e-15)


def test_a_zero_branch_is_a_clean_highway() -> None:
    _, norms = norms_of(*(Skip(Times(0.0)) for _ in range(50)), x=[[1.0, 1.0]])
    assert norms == [math.sqrt(2)] * 50


def test_a_diagonal_chain_keeps_each_direction_s_own_factor() -> None:
    _, norms = norms_of(*(diagonal(2.0, 0.5) for _ in range(3)), x=[[1.0, 1.0]])
    expected = [math.hypot(2.0**k, 0.5**k) for k in (2, 1, 0)]
    assert norms == pytest.approx(expected, rel=1e-15)


def test_rotations_lose_nothing() -> None:
    measured, norms = norms_of(*(rotation(0.7) for _ in range(30)), x=[[1.0, 2.0]])
    assert norms == pytest.approx([math.sqrt(2)] * 30, rel=1e-13)
    assert measured.decay == pytest.approx(1.0, rel=1e-14)


def test_powers_follow_the_chain_rule_at_the_point() -> None:
    # x, x², x⁶: d(x⁶)/dx² = 3 (x²)², at x = 1.5; Times(1) stands before, between and behind
    x = 1.5
    chain = [Times(1.0), Power(2), Times(1.0), Power(3), Times(1.0)]
    _, norms = norms_of(*chain, x=[[x]])
    inner = 3 * x**4
    assert norms == pytest.approx([2 * x * inner, inner, inner, 1.0, 1.0], rel=1e-14)


def test_tanh_at_zero_passes_the_gradient_unchanged() -> None:
    layers = [layer for _ in range(5) for layer in (Times(1.0), nn.Tanh())]
    _, norms = norms_of(*layers, x=[[0.0]])
    assert norms == [1.0] * 10


def test_a_sigmoid_at_zero_passes_a_quarter() -> None:
    class Centred(nn.Module):
        """x → sigmoid(c x) − ½, which maps 0 to 0"""

        def __init__(self) -> None:
            super().__init__()
            self.times = Times(1.0)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.times(x)) - 0.5

    measured, norms = norms_of(*(Centred() for _ in range(8)), x=[[0.0]])
    assert norms == pytest.approx([0.25**k for k in range(7, -1, -1)], rel=1e-14)
    assert measured.decay == pytest.approx(0.25, rel=1e-14)
