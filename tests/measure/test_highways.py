"""Highways of rows that split, permute or concatenate, project, or are skipped from outside."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradprobe.measure.second_look import second_look
from gradprobe.model.losses import loss_of
from gradprobe.model.subject import subject_of

WIDTH = 8
Map = Callable[[Tensor], Tensor]
Apply = Callable[[Map, Tensor], Tensor]


class Branch(nn.Module):
    """A matrix, a tanh and a matrix of zeros, or of half the identity."""

    def __init__(self, inside: int, outside: int, scale: float = 0.0) -> None:
        super().__init__()
        self.map, self.out = nn.Linear(inside, 9), nn.Linear(9, outside, bias=False)
        nn.init.normal_(self.out.weight, std=scale)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.tanh(self.map(x)))
        return out


class Row(nn.Module):
    def __init__(self, apply: Apply, inside: int, outside: int, scale: float = 0.0) -> None:
        super().__init__()
        self.apply_, self.branch = apply, Branch(inside, outside, scale)
        self.project = nn.Linear(WIDTH, 2 * WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.apply_ is project:
            return torch.add(self.project(x), self.branch(x))
        return self.apply_(self.branch, x)


def project(branch: Map, x: Tensor) -> Tensor:
    raise NotImplementedError


def dense(branch: Map, x: Tensor) -> Tensor:
    return torch.cat([branch(x), x], -1)


def turned(branch: Map, x: Tensor) -> Tensor:
    """One half of the channels goes through, and the two halves are interleaved."""
    first, second = x.chunk(2, -1)
    both = torch.stack([branch(first), F.relu(second) - F.relu(-second)], -1)
    return both.flatten(-2)


def permuted(branch: Map, x: Tensor) -> Tensor:
    return (0.5 * x + branch(x))[:, [3, 1, 4, 0, 5, 7, 2, 6]]


def doubled(branch: Map, x: Tensor) -> Tensor:
    return x * 0.5 + x * 0.25 + branch(x)


def rolled(branch: Map, x: Tensor) -> Tensor:
    return x.roll(1, -1) + branch(x).flip(-1)


def a_third(branch: Map, x: Tensor) -> Tensor:
    """Six of eight numbers go through, and noughts are put beside them."""
    return F.pad(x[:, :6], (1, 3)) + branch(x)


def same() -> nn.Module:
    """A matrix that hands on what it gets."""
    layer = nn.Linear(WIDTH, WIDTH, bias=False)
    nn.init.eye_(layer.weight)
    return layer


def highways(model: nn.Module, x: Tensor) -> dict[str, float]:
    subject = subject_of(model.double(), x.double(), loss_of("projection", None, 0))
    return dict(second_look(subject).highways)


@pytest.mark.parametrize(
    ("apply", "inside", "outside", "expected"),
    [
        (dense, WIDTH, 3, 1.0),
        (turned, WIDTH // 2, WIDTH // 2, 0.5),
        (permuted, WIDTH, WIDTH, 0.5),
        (doubled, WIDTH, WIDTH, 0.75),
        (rolled, WIDTH, WIDTH, 1.0),
        (a_third, WIDTH, 10, 0.75),
    ],
)
def test_what_comes_through_counts_wherever_it_lands(
    apply: Apply, inside: int, outside: int, expected: float
) -> None:
    """The branch is zero, so that nothing but the way through is left."""
    row = Row(apply, inside, outside)
    width = row(torch.ones(2, WIDTH)).shape[-1]
    model = nn.Sequential(nn.Linear(3, WIDTH), row, nn.Linear(width, 2))
    assert highways(model, torch.randn(4, 3)) == {"1": pytest.approx(expected, rel=1e-12)}


def test_a_permuted_highway_is_the_mean_of_the_jacobian_where_inputs_land() -> None:
    """Beside a branch of some size: the dense Jacobian, weighted as the estimate weighs it."""
    torch.manual_seed(0)
    row = Row(permuted, WIDTH, WIDTH, 0.3).double()
    x = torch.randn(512, WIDTH, dtype=torch.float64, requires_grad=True)
    model = nn.Sequential(same(), row, nn.Linear(WIDTH, 2))
    y = row(x)
    backs = [torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)[0] for i in range(WIDTH)]
    jacobians = torch.stack(backs, 1)
    places = permuted(lambda x: 0 * x, torch.arange(WIDTH)[None])[0] * 2
    weights = y.detach().square()
    slopes = torch.stack([jacobians[:, i, int(j)] for i, j in enumerate(places)], 1)
    exact = float((slopes * weights).sum() / weights.sum())
    error = math.sqrt(float(jacobians.square().sum()) / 512 / WIDTH) / math.sqrt(512 * WIDTH)
    assert highways(model, x.detach())["1"] == pytest.approx(exact, abs=5 * error)
    assert exact != pytest.approx(0.5, abs=5 * error)


def test_a_linear_map_beside_a_branch_counts_by_its_gain() -> None:
    row = Row(project, WIDTH, 2 * WIDTH)
    model = nn.Sequential(nn.Linear(3, WIDTH), row, nn.Linear(2 * WIDTH, 2))
    nn.init.orthogonal_(row.project.weight)  # 16 × 8: ‖Sᵀv‖² is half of ‖v‖², more or less
    torch.manual_seed(0)
    [(name, value)] = highways(model, torch.randn(512, 3)).items()
    assert name == "1"
    assert value == pytest.approx(math.sqrt(0.5), rel=0.1)
    row.project.weight.data *= 3
    assert highways(model, torch.randn(512, 3))["1"] == pytest.approx(3 * math.sqrt(0.5), rel=0.1)


class Loop(nn.Module):
    """Rows without a skip of their own, which the model puts around them."""

    def __init__(self, step: Callable[[Loop, int, Tensor], Tensor], scale: float = 0.0) -> None:
        super().__init__()
        self.step = step
        self.embed, self.norm = nn.Linear(3, WIDTH), nn.LayerNorm(WIDTH)
        self.rows = nn.ModuleList(Branch(WIDTH, WIDTH, scale) for _ in range(4))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for index in range(0, 4, 2):
            x = self.step(self, index, x)
        out: Tensor = self.head(self.norm(x))
        return out


def in_turn(model: Loop, index: int, x: Tensor) -> Tensor:
    for row in model.rows[index : index + 2]:
        x = x + row(x)
    return x


def behind_norms(model: Loop, index: int, x: Tensor) -> Tensor:
    for row in model.rows[index : index + 2]:
        x = x + row(F.layer_norm(x, (WIDTH,)))
    return x


def side_by_side(model: Loop, index: int, x: Tensor) -> Tensor:
    h = F.layer_norm(x, (WIDTH,))
    out: Tensor = x + model.rows[index](h) + model.rows[index + 1](h)
    return out


@pytest.mark.parametrize("step", [in_turn, behind_norms, side_by_side])
def test_a_skip_around_a_row_is_its_highway(step: Callable[[Loop, int, Tensor], Tensor]) -> None:
    values = highways(Loop(step), torch.randn(6, 3))
    assert {f"rows.{i}" for i in range(4)} <= values.keys()
    assert [values[f"rows.{i}"] for i in range(4)] == pytest.approx([1.0] * 4, rel=1e-12)


def plain(model: Loop, index: int, x: Tensor) -> Tensor:
    inside = torch.tanh(model.rows[index](x))
    return torch.tanh(model.rows[index + 1](inside))


def two_readers(model: Loop, index: int, x: Tensor) -> Tensor:
    """Each row reads the same, and neither is added to it."""
    out: Tensor = torch.tanh(model.rows[index](x) * model.rows[index + 1](x))
    return out


@pytest.mark.parametrize("step", [plain, two_readers])
def test_rows_without_a_skip_have_no_highway(step: Callable[[Loop, int, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    values = highways(Loop(step, 0.4), torch.randn(256, 3))
    assert all(abs(values[f"rows.{i}"]) < 0.6 for i in range(4))


@pytest.mark.parametrize("outside", [5, WIDTH])
def test_two_matrices_side_by_side_are_one_matrix(outside: int) -> None:
    """As in RepVGG behind a change of width: a sum of two linear maps is no shortcut."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(WIDTH, outside), nn.Linear(WIDTH, outside)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = F.relu(self.a(x) + self.b(x))
            return out

    torch.manual_seed(0)
    values = highways(nn.Sequential(same(), Sum(), nn.Linear(outside, 2)), torch.randn(256, WIDTH))
    assert abs(values.get("1", 0.0)) < 0.6


def test_earlier_inputs_of_a_recurrent_layer_are_no_branch_beside_its_matrix() -> None:
    layer = nn.RNN(WIDTH, WIDTH, batch_first=True)

    class Row(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = layer

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.rnn(x)[0]
            return out

    torch.manual_seed(0)
    model = nn.Sequential(same(), Row(), nn.Linear(WIDTH, 2))
    assert abs(highways(model, torch.randn(32, 6, WIDTH))["1"]) < 0.3


def test_a_sum_behind_a_norm_keeps_what_the_norm_takes() -> None:
    """Post-norm, y = LN(x + F(x)) with F about as large as x: 1/√2 a block."""

    class Post(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(64, 64, bias=False)
            nn.init.orthogonal_(self.map.weight)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = F.layer_norm(x + self.map(x), (64,))
            return out

    torch.manual_seed(0)
    head = nn.Linear(64, 2)
    values = highways(nn.Sequential(nn.LayerNorm(64), Post(), Post(), head), torch.randn(64, 64))
    assert values["1"] == pytest.approx(math.sqrt(0.5), abs=0.05)


class Gated(nn.Module):
    """A block whose branch has a gate for each channel, as squeeze-excite has, and a projection."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, padding=1)
        self.conv = nn.Conv2d(outside, outside, 3, padding=1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(outside, outside, 1))
        self.project = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.conv(torch.relu(self.first(x))))
        return self.project(x) + h * torch.sigmoid(self.gate(h))


def test_a_factor_that_is_broadcast_is_summed_again() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), Gated(4, 8), Gated(8, 8), nn.Flatten(), nn.Linear(128, 2)
    )
    subject = subject_of(model, torch.randn(3, 3, 4, 4), loss_of("projection", None, 0))
    highways = second_look(subject).highways
    assert highways["1"] > 0
    assert highways["2"] == pytest.approx(1, abs=0.2)
