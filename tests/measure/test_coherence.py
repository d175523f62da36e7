"""Coherence and highways against closed forms, and the model left as it was."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.oracle import network_of
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradprobe.errors import ModelError
from gradprobe.measure.blocks.jacobian import jacobians
from gradprobe.measure.second_look import SecondLook, second_look
from gradprobe.measure.small_step import STEP
from gradprobe.model.losses import projection
from gradprobe.model.subject import subject_of

Matrix = np.ndarray[Any, np.dtype[np.float64]]


def total(output: Tensor) -> Tensor:
    return output.sum()


def look(model: nn.Module, args: tuple[Tensor, ...], seed: int = 0, **kwargs: Tensor) -> SecondLook:
    """The second look at a module with the sum of its output as the loss."""
    return second_look(subject_of(model, (args, kwargs), total, projection=total, seed=seed))


def coherence(
    model: nn.Module,
    args: list[Tensor],
    loss: Callable[[Tensor], Tensor] = total,
    step: float = STEP,
) -> float | None:
    return second_look(subject_of(model, tuple(args), loss, projection=loss), step).coherence


def highways(model: nn.Module, args: list[Tensor], **kwargs: Tensor) -> dict[str, float]:
    return look(model, tuple(args), **kwargs).highways


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def chain(*weights: Matrix) -> nn.Sequential:
    """Linear layers without bias, in float64, that hold these matrices."""
    model = nn.Sequential()
    for weight in weights:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
        layer.weight.data = torch.from_numpy(weight.copy())
        model.append(layer)
    return model


def by_hand(first: Matrix, second: Matrix, x: Matrix, step: float) -> float:
    """The coherence of L = Σ second·first·xᵀ: each gradient is linear in the other matrix."""
    ones = np.ones((len(x), len(second)))

    def gradients(a: Matrix, b: Matrix) -> tuple[Matrix, Matrix]:
        return b.T @ ones.T @ x, ones.T @ (x @ a.T)

    def moved(weight: Matrix, gradient: Matrix) -> Matrix:
        singular = np.linalg.svd(weight, compute_uv=False)
        length = step * np.sqrt(np.mean(singular**2))
        return weight - length * gradient / np.linalg.norm(gradient)

    before = gradients(first, second)
    after = gradients(moved(first, before[0]), moved(second, before[1]))
    alike = [
        1 - np.linalg.norm(g - h) / (np.linalg.norm(g) + np.linalg.norm(h))
        for g, h in zip(before, after, strict=True)
    ]
    return float(np.quantile(alike, 0.25))


@pytest.mark.parametrize("step", [STEP, 0.1, 0.5])
def test_coherence_of_two_linear_layers_is_what_the_algebra_says(step: float) -> None:
    draw = np.random.default_rng(0)
    first, second, x = (draw.normal(size=shape) for shape in ((5, 4), (3, 5), (7, 4)))
    expected = by_hand(first, second, x, step)
    found = coherence(chain(first, second), [torch.from_numpy(x)], step=step)
    assert found == pytest.approx(expected, rel=1e-12)
    assert 1 - expected > 1e-4  # or the test could not fail


def test_one_weight_in_ten_that_is_another_does_not_decide_and_one_in_two_does() -> None:
    """The others' gradients never change: each layer reads its input alone."""

    class Branches(nn.Module):
        def __init__(self, steady: int, chaotic: int) -> None:
            super().__init__()
            self.steady = nn.ModuleList(nn.Linear(6, 3) for _ in range(steady))
            self.chaotic = nn.ModuleList(nn.Linear(6, 3) for _ in range(chaotic))

        def forward(self, x: Tensor) -> Tensor:
            sums = [layer(x).sum() for layer in self.steady]
            return torch.stack(
                [*sums, *(torch.sin(1e5 * layer(x)).sum() for layer in self.chaotic)]
            )

    torch.manual_seed(0)
    assert coherence(Branches(9, 1), [normal(8, 6).float()]) == pytest.approx(1, abs=1e-6)
    mixed = coherence(Branches(5, 5), [normal(8, 6).float()])
    assert mixed is not None
    assert mixed < 0.5


def test_a_gradient_that_does_not_depend_on_the_weights_is_coherent() -> None:
    model = nn.Linear(6, 3, dtype=torch.float64)
    x = normal(4, 6)
    assert coherence(model, [x]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, -1.0, 1e20])
def test_coherence_does_not_depend_on_the_scale_of_the_loss(scale: float) -> None:
    network = network_of(["Tanh", {"Linear": {"out_features": 8}}, "Tanh", "Softsign"] * 3, [8])
    x = normal(16, 8)
    plain = coherence(network, [x])
    scaled = coherence(network, [x], lambda out: scale * total(out))
    assert plain is not None
    if scale > 0:
        assert scaled == pytest.approx(plain, rel=1e-9)
    else:  # the step goes the other way
        assert scaled is not None
        assert scaled != plain


def test_a_weight_that_is_zero_or_gets_no_gradient_has_no_say() -> None:
    draw = np.random.default_rng(2)
    x = torch.from_numpy(draw.normal(size=(4, 5)))
    model = chain(draw.normal(size=(5, 5)), np.zeros((3, 5)))  # a head that starts at zero
    # The first weight's gradient is zero, the second cannot move: nobody has a say.
    assert coherence(model, [x]) is None


def test_biases_and_scales_have_no_say() -> None:
    network = network_of([{"Linear": {"out_features": 8}}, "LayerNorm", "Tanh"] * 3, [8])
    every = coherence(network, [normal(16, 8)])
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.dim() > 1)
    assert coherence(network, [normal(16, 8)]) == every


def test_what_the_forward_pass_draws_is_drawn_again() -> None:
    """The gradient of a linear layer behind the same dropout is the same."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 8, dtype=torch.float64))
    assert coherence(model, [normal(4, 8)]) == pytest.approx(1, abs=1e-12)


def test_no_coherence_without_weights_and_of_what_is_not_finite() -> None:
    x = torch.ones(2, 3)
    assert coherence(nn.LayerNorm(3), [x]) is None
    model = nn.Linear(3, 3)
    assert coherence(model, [x * math.nan]) is None
    model.requires_grad_(False)
    assert coherence(model, [x]) is None


def test_a_chaotic_network_is_less_coherent_than_an_orderly_one() -> None:
    def of(gain: float) -> float:
        init = {"variance_scaling": {"scale": gain**2, "mode": "fan_in"}}
        layer = {"Linear": {"out_features": 32, "init": {"weight": init, "bias": "zeros"}}}
        network = network_of([{"repeat": {"times": 30, "layers": [layer, "Tanh"]}}], [32])
        x = normal(16, 32)
        found = coherence(network, [x], lambda out: projection(out, None, 0))
        assert found is not None
        return found

    assert of(1.0) > 0.8
    assert of(3.0) < 1 - math.sqrt(0.5)  # less than two at a right angle: lengths change too


def test_coherence_and_highways_leave_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ReLU(inplace=True),  # it would overwrite what it is given
        nn.Linear(6, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(6, 6),
        nn.ReLU(inplace=True),
    )
    model[5].eval()
    x = torch.randn(8, 6)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    versions = [p._version for p in model.parameters()]
    given, modes = x.clone(), [m.training for m in model.modules()]
    random = torch.random.get_rng_state()
    once, again = (look(model, (x,), seed=3) for _ in range(2))
    assert once == again
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert versions == [p._version for p in model.parameters()]
    assert torch.equal(given, x)
    assert modes == [m.training for m in model.modules()]
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_the_model_raises_is_a_model_error() -> None:
    model, x = nn.Linear(3, 3), torch.ones(2, 5)
    with pytest.raises(ModelError):
        coherence(model, [x])
    with pytest.raises(ModelError):
        highways(nn.Sequential(model, nn.ReLU()), [x])


# ---- highways


def test_the_highway_of_a_branch_that_is_zero_is_the_skip_scale() -> None:
    block = {
        "residual": {
            "layers": [{"Linear": {"out_features": 9}}],
            "zero_init": True,
            "skip_scale": 0.5,
        }
    }
    network = network_of([{"repeat": {"times": 3, "layers": [block]}}], [9])
    assert highways(network, [normal(4, 9)]) == {"0.0": 0.5, "0.1": 0.5, "0.2": 0.5}


def test_the_highway_of_a_diagonal_map_is_its_mean_exactly() -> None:
    """vᵀDv is the same for every choice of signs in v, so one probe is exact."""
    layers = nn.Identity(), nn.ReLU(inplace=True), nn.LeakyReLU(0.5), nn.Linear(8, 2)
    model = nn.Sequential(*layers)
    x = normal(16, 8).float()
    found = highways(model, [x])
    assert found == {"0": 1.0, "1": 1.0, "2": 1.0}  # behind a ReLU what is let through alone counts
    up, down = (float(part.clamp_min(0).double().square().sum()) for part in (x, -x))
    expected = (up + 0.5 * 0.25 * down) / (up + 0.25 * down)
    assert highways(nn.Sequential(layers[2], layers[3]), [x]) == {"0": pytest.approx(expected)}


@pytest.mark.parametrize("norm", ["LayerNorm", "BatchNorm1d"])
@pytest.mark.parametrize("residual", [True, False])
def test_highways_agree_with_the_jacobian(norm: str, residual: bool) -> None:
    inside = [norm, {"Linear": {"out_features": 16}}, "Tanh", {"Linear": {"out_features": 16}}]
    block = [{"residual": inside}] if residual else inside
    network = network_of([{"repeat": {"times": 4, "layers": block}}], [16])
    x = normal(64, 16)
    found, exact = highways(network, [x]), jacobians(subject_of(network, x, total))
    assert found.keys() == exact.keys()
    for name, value in found.items():
        gain, highway = exact[name].gain, exact[name].highway
        assert abs(value - highway.value) < 5 * (gain.value / math.sqrt(x.numel()) + highway.error)


def test_rows_that_change_the_shape_have_no_highway() -> None:
    network = network_of([{"Linear": {"out_features": 5}}, "ReLU"], [9])
    assert list(highways(network, [normal(4, 9)])) == ["1"]


def test_highways_of_a_model_that_is_called_with_keywords_and_has_frozen_rows() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Linear(4, 4).requires_grad_(False)
            self.drop = nn.Identity()

        def forward(self, *, x: Tensor) -> Tensor:
            out: Tensor = self.drop(self.frozen(x))
            return out

    found = highways(Model(), [], x=torch.ones(3, 4))
    assert list(found) == ["frozen", "drop"]
    assert found["drop"] == 1


# ---- modules that are used in their own ways


class Shared(nn.Module):
    """One module under six names, and an embedding whose weight is the head's too."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(5, 8), nn.Linear(8, 5, bias=False)
        self.head.weight = self.table.weight
        self.blocks = nn.Sequential(*[nn.Linear(8, 8)] * 6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.blocks(self.table(x))))
        return out


def test_weights_that_are_shared_move_together_and_stay_what_they_are() -> None:
    model, x = Shared(), torch.arange(5)
    block = model.blocks[0]
    before = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    found = look(model, (x,))
    assert found.coherence is not None
    for name, parameter in model.named_parameters():
        assert parameter is before[name][0]
        assert torch.equal(parameter, before[name][1])
    assert all(each is block for each in model.blocks)
    assert model.head.weight is model.table.weight
    assert found.coherence == pytest.approx(by_stepping(model, x), abs=1e-6)


def by_stepping(model: nn.Module, x: Tensor) -> float:
    """The coherence as it is defined, on a copy that is really moved."""
    moved = copy.deepcopy(model)
    weights = [p for p in moved.parameters() if p.dim() > 1]
    before = torch.autograd.grad(total(moved(x)), weights)
    with torch.no_grad():
        for weight, gradient in zip(weights, before, strict=True):
            length = STEP * weight.norm() / math.sqrt(min(weight.shape))
            weight -= length * gradient / gradient.norm()
    after = torch.autograd.grad(total(moved(x)), weights)
    alike = [
        1 - float((a - b).norm() / (a.norm() + b.norm()))
        for a, b in zip(before, after, strict=True)
    ]
    return float(np.quantile(alike, 0.25))


class Blocks(nn.Module):
    """Residual blocks, and how they are called."""

    def __init__(self, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call
        self.blocks = nn.ModuleList([Block() for _ in range(5)])
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.call(block, x)
        out: Tensor = self.head(x)
        return out


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(8, 8), nn.Tanh())

    def forward(self, x: Any) -> Tensor:
        x = x[0] if isinstance(x, tuple) else x
        out: Tensor = x + self.branch(x)
        return out


CALLS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "keyword": lambda block, x: block(x=x),
    "tuple": lambda block, x: block((x, 0)),
    "checkpoint": lambda block, x: checkpoint(block, x, use_reentrant=False),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_row_has_its_highway_however_it_is_called(name: str) -> None:
    plain, other = Blocks(lambda block, x: block(x)), Blocks(CALLS[name])
    other.load_state_dict(plain.state_dict())
    x = normal(16, 8).float()
    expected, found = (look(model, (x,)) for model in (plain, other))
    assert list(found.highways) == [f"blocks.{i}" for i in range(5)]
    assert found.highways == pytest.approx(expected.highways, rel=1e-5)
    assert found.coherence == pytest.approx(expected.coherence, rel=1e-4)


def test_sparse_gradients_count_as_dense_ones_and_complex_weights_not_at_all() -> None:
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        table = nn.Embedding(5, 8, sparse=sparse)
        model = nn.Sequential(table, nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
        found.append(look(model, (torch.arange(5),)))
    assert found[0] == found[1]
    model.register_parameter("spectrum", nn.Parameter(torch.ones(2, 2, dtype=torch.complex64)))
    assert look(model, (torch.arange(5),)) == found[0]


# ---- how far into the past the gradient reaches


def recurrent(kind: type[nn.RNNBase], weight: Matrix, **words: Any) -> nn.RNNBase:
    """A linear-enough recurrence h′ = tanh(W·h + x), near 0 so that tanh has a slope of 1."""
    size = len(weight)
    layer = kind(size, size, bias=False, dtype=torch.float64, **words)
    layer.weight_ih_l0.data = torch.eye(size, dtype=torch.float64)
    layer.weight_hh_l0.data = torch.from_numpy(weight.copy())
    return layer


class Last(nn.Module):
    """The last position of what a recurrent layer gives."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.layer(x)
        return out[:, -1] if self.layer.batch_first and x.dim() == 3 else out[-1]


@pytest.mark.parametrize("steps", [2, 9])
@pytest.mark.parametrize("shape", ["batch first", "time first", "no batch"])
def test_the_past_is_lost_as_the_recurrent_matrix_shrinks(steps: int, shape: str) -> None:
    weight = 0.1 * np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    layer = recurrent(nn.RNN, weight, batch_first=shape == "batch first")
    sizes = {"batch first": (3, steps, 4), "time first": (steps, 3, 4), "no batch": (steps, 4)}
    x = 1e-6 * normal(*sizes[shape])
    # ∂h_T/∂x_1 = W^(T-1), and W is 0.1 times a rotation.
    found = look(Last(layer), (x,))
    assert found.lost_past == pytest.approx(steps - 1, abs=1e-6)


def test_the_layer_that_forgets_most_is_told_and_growth_is_no_loss() -> None:
    tame, wild = 0.1 * np.eye(4), 3.0 * np.eye(4)
    x = 1e-9 * normal(3, 5, 4)
    assert look(Last(recurrent(nn.RNN, wild, batch_first=True)), (x,)).lost_past == 0

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = recurrent(nn.RNN, wild, batch_first=True)
            self.last = Last(recurrent(nn.RNN, tame, batch_first=True))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.first(x)[0])
            return out

    assert look(Two(), (x,)).lost_past == pytest.approx(4, abs=1e-3)


@pytest.mark.parametrize("read", [-1, -4])
def test_the_past_is_relative_to_the_position_that_counts_most(read: int) -> None:
    """What stands behind the position that is read may be padding, and gets no gradient."""
    weight = 0.1 * np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]

    class Read(Last):
        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0][:, read]

    layer = recurrent(nn.RNN, weight, batch_first=True)
    found = look(Read(layer), (1e-6 * normal(3, 9, 4),))
    assert found.lost_past == pytest.approx(9 + read, abs=1e-6)


def test_a_warm_up_without_gradients_hides_no_past() -> None:
    layer = nn.LSTM(4, 4, batch_first=True, dtype=torch.float64)

    class WarmedUp(Last):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                _, state = self.layer(x[:, :2])
            return self.layer(x, state)[0][:, -1]

    found = look(WarmedUp(layer), (normal(3, 9, 4),)).lost_past
    assert found > 1


def test_a_recurrent_layer_of_ones_own_may_take_tokens() -> None:
    class Tokens(nn.RNN):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(nn.functional.one_hot(tokens, 4).double())[0][:, -1]

    model = Tokens(4, 4, batch_first=True, dtype=torch.float64)
    assert look(model, (torch.arange(4)[None],)).coherence is not None


def test_the_past_of_a_layer_called_by_keyword_in_a_packed_batch_or_never() -> None:
    layer = nn.GRU(4, 4, batch_first=True, dtype=torch.float64)
    x = normal(3, 6, 4)

    class Keyword(Last):
        def forward(self, x: Tensor) -> Tensor:
            out, _ = self.layer(input=x)
            return out[:, -1]

    class Packed(Last):
        def forward(self, x: Tensor) -> Tensor:
            lengths = torch.full((len(x),), x.shape[1])
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            state: Tensor = self.layer(packed)[1]
            return state[0]

    class Never(Last):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1) @ self.layer.weight_ih_l0.T

    plain = look(Last(layer), (x,)).lost_past
    assert plain > 0.5
    assert look(Keyword(layer), (x,)).lost_past == plain
    assert look(Packed(layer), (x,)).lost_past == pytest.approx(plain)
    assert look(Never(layer), (x,)).lost_past == 0
    assert look(Last(layer).requires_grad_(False), (x,)).lost_past == plain


class Loop(nn.Module):
    """A recurrent layer, written as a loop over its cell."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        kind = getattr(nn, f"{layer.mode.removesuffix('_TANH')}Cell")
        self.cell = kind(layer.input_size, layer.hidden_size, layer.bias, dtype=torch.float64)
        own = {name.removesuffix("_l0"): value for name, value in layer.state_dict().items()}
        self.cell.load_state_dict(own)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for position in x.unbind(1):
            state = self.cell(position, state)
        return state[0] if isinstance(state, tuple) else state


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_loop_over_a_cell_loses_the_past_of_its_layer(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    layer = kind(4, 4, batch_first=True, dtype=torch.float64)
    x = normal(3, 9, 4)
    expected = look(Last(layer), (x,)).lost_past
    assert expected > 1
    assert look(Loop(layer), (x,)).lost_past == pytest.approx(expected)


def test_what_every_call_of_a_cell_gets_is_another_position_in_each() -> None:
    weight = 0.1 * np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    loop = Loop(recurrent(nn.RNN, weight))

    class Context(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loop = loop
            self.scale = nn.Parameter(torch.ones(4, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.loop(torch.stack([x * self.scale] * 5, 1))
            return out

    class Same(Context):
        def forward(self, x: Tensor) -> Tensor:
            context, state = x * self.scale, None
            for _ in range(5):
                state = self.loop.cell(context, state)
            assert state is not None
            return state

    for model in (Context(), Same()):
        found = look(model, (1e-6 * normal(3, 4),))
        assert found.lost_past == pytest.approx(4, abs=1e-6)


def test_a_state_that_is_detached_begins_the_past_anew() -> None:
    weight = 0.1 * np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]

    class Truncated(Loop):
        def forward(self, x: Tensor) -> Tensor:
            state = self.cell(x[:, 0])
            for position in x[:, 1:5].unbind(1):
                state = self.cell(position, state)
            state = self.cell(x[:, 5], state.detach())
            out: Tensor = self.cell(x[:, 6], state)
            return out

    model = Truncated(recurrent(nn.RNN, weight))
    found = look(model, (1e-6 * normal(3, 7, 4),))
    assert found.lost_past == pytest.approx(1, abs=1e-6)


def test_a_recurrent_layer_of_ones_own_may_take_a_number_first() -> None:
    class Scaled(nn.GRU):
        def forward(self, scale: Tensor, x: Tensor) -> Tensor:
            return super().forward(scale * x)[0][:, -1]

    model = Scaled(4, 4, batch_first=True, dtype=torch.float64)
    found = look(
        model,
        (
            torch.tensor(2.0).double(),
            normal(3, 6, 4),
        ),
    )
    assert found.coherence is not None


def test_a_past_that_underflows_is_lost_by_a_finite_number() -> None:
    layer = recurrent(nn.RNN, 1e-30 * np.eye(2), batch_first=True)
    lost = look(Last(layer), (1e-6 * normal(2, 40, 2),)).lost_past
    assert 300 < lost < 310


def test_without_recurrent_layers_nothing_of_the_past_is_lost() -> None:
    network = network_of(["Tanh", {"Linear": {"out_features": 8}}], [8])
    assert look(network, (normal(4, 8),)).lost_past == 0


def test_what_python_and_numpy_draw_is_drawn_again() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(x) * random.random() * np.random.rand()
            return out

    states = random.getstate(), np.random.get_state()[2]
    model = Scaled(6, 3, dtype=torch.float64)
    assert coherence(model, [normal(4, 6)]) == pytest.approx(1, abs=1e-12)
    assert states == (random.getstate(), np.random.get_state()[2])


def test_how_few_values_a_batch_norm_has() -> None:
    norms = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 5), nn.BatchNorm1d(5))
    x = normal(4, 3, 3, 3).float()
    assert look(norms, (x,)).normalised == 4
    assert look(norms[:2], (x,)).normalised == 36
    assert look(norms.eval(), (x,)).normalised is None


def test_a_buffer_that_a_forward_pass_changes_is_what_it_was_in_the_second() -> None:
    class Averaged(nn.Linear):
        def __init__(self) -> None:
            super().__init__(6, 3, dtype=torch.float64)
            self.register_buffer("mean", torch.ones(3, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            self.mean.mul_(0.5).add_(0.5 * out.detach().square().mean(0))
            return out / self.mean

    assert coherence(Averaged(), [normal(4, 6)]) == pytest.approx(1, abs=1e-2)


def test_a_look_in_small_parts_sees_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large weight is compared part by part, so that no copy of it in float64 is made whole."""
    torch.manual_seed(5)
    tied = nn.Linear(9, 9)
    model = nn.Sequential(tied, nn.Tanh(), nn.Linear(9, 9), nn.Tanh(), tied, nn.Linear(9, 4))
    x = torch.randn(6, 9)
    whole = look(model, (x,))
    monkeypatch.setattr("gradprobe.measure.small_step._PART", 7)
    parts = look(model, (x,))
    assert parts.highways == whole.highways
    assert parts.coherence == pytest.approx(whole.coherence, rel=1e-12)
