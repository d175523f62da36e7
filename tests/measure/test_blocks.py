"""A block taken apart: held against a dense Jacobian, autograd by hand, and closed forms."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import Result
from helpers.oracle import Layer, dense_jacobian, gradient, links, network_of, pull, spec_of, values
from helpers.oracle import run as run_chain
from torch import Tensor

from gradprobe.errors import InputError
from gradprobe.measure.blocks.chain import Element
from gradprobe.measure.blocks.jacobian import EXACT_FEATURES, jacobian, jacobians
from gradprobe.measure.blocks.profile import BlockProfile, Estimate, JacobianProfile
from gradprobe.model.make import make
from gradprobe.model.seeds import derive
from gradprobe.model.subject import subject_of
from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.tasks.probe import block as take_apart
from gradprobe.tasks.targets import load_spec

FLOAT64 = ProbeOptions(dtype="float64", batch_size=4)


def linear(width: int, **arguments: Any) -> Layer:
    return {"Linear": {"out_features": width, **arguments}}


def conv(channels: int, **arguments: Any) -> Layer:
    return {
        "Conv2d": {"out_channels": channels, "kernel_size": 3, "padding": 1, "bias": False}
        | arguments
    }


def batch_of(shape: list[int], batch: int = 4, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *shape, generator=generator, dtype=torch.float64)


def of_dense(dense: Tensor, scale: float) -> dict[str, float]:
    """The three quantities by their definitions; E over ±1 vectors of ‖Aᵀv‖² is ‖A‖²_F."""
    n = len(dense)
    rest = dense - scale * torch.eye(n, dtype=dense.dtype)
    return {
        "highway": float(dense.trace()) / n,
        "branch": float(torch.linalg.matrix_norm(rest)) / math.sqrt(n),
        "gain": float(torch.linalg.matrix_norm(dense)) / math.sqrt(n),
    }


# ---- against the dense Jacobian of the whole batch

ATTENTION = {"MultiheadAttention": {"num_heads": 2, "causal": True}}

# Blocks whose samples do not depend on each other, of few features: exact.
EXACT: dict[str, tuple[Layer, list[int], float]] = {
    "residual": ({"residual": [linear(6), "Tanh"]}, [6], 1.0),
    "plain": ({"sequential": [linear(6), "ReLU"]}, [6], 1.0),
    "one layer": ("GELU", [5], 1.0),
    "scaled": (
        {"residual": {"layers": [linear(6), "GELU"], "skip_scale": 0.5, "branch_scale": -2}},
        [6],
        0.5,
    ),
    "no skip left": ({"residual": {"layers": [linear(6)], "skip_scale": 0}}, [6], 0.0),
    "shortcut": ({"residual": {"layers": [linear(4), "Tanh"], "shortcut": [linear(4)]}}, [4], 1.0),
    "pre-norm": ({"residual": ["LayerNorm", linear(9), "SiLU", linear(6)]}, [6], 1.0),
    "attention": ({"residual": ["LayerNorm", ATTENTION]}, [5, 4], 1.0),
    "recurrent": ({"residual": [{"GRU": {"hidden_size": 3}}]}, [4, 3], 1.0),
    "recurrent, plain": ({"RNN": {"hidden_size": 3}}, [4, 3], 1.0),
    "64 features": ({"residual": [linear(64), "Tanh"]}, [64], 1.0),
    "image": ({"residual": [conv(2), "ReLU", conv(2)]}, [2, 4, 4], 1.0),
    "group norm": (
        {"residual": [conv(2), {"GroupNorm": {"num_groups": 2}}, "ReLU"]},
        [2, 4, 4],
        1.0,
    ),
}

# Blocks whose samples depend on each other, or of many features: estimated.
ESTIMATED: dict[str, tuple[Layer, list[int], float]] = {
    "residual with BatchNorm": ({"residual": [linear(6), "BatchNorm1d", "Tanh"]}, [6], 1.0),
    "plain with BatchNorm": ({"sequential": [linear(6), "BatchNorm1d", "ReLU"]}, [6], 1.0),
    "pre-activation": ({"residual": ["BatchNorm2d", "ReLU", conv(2)]}, [2, 4, 4], 1.0),
    "BatchNorm last": ({"sequential": [conv(2), "BatchNorm2d"]}, [2, 4, 4], 1.0),
    "BatchNorm on the skip": (
        {"residual": {"layers": [linear(6), "Tanh"], "shortcut": ["BatchNorm1d"]}},
        [6],
        1.0,
    ),
    "scaled, with BatchNorm": (
        {
            "residual": {
                "layers": [linear(6), "BatchNorm1d", "Tanh"],
                "skip_scale": 0.8,
                "branch_scale": 0.3,
            }
        },
        [6],
        0.8,
    ),
    "65 features": ({"residual": [linear(65), "Tanh"]}, [65], 1.0),
    "65 features, plain": ({"sequential": [linear(65), "Tanh"]}, [65], 1.0),
    "wide": ({"residual": ["LayerNorm", linear(20), "GELU", linear(90)]}, [90], 1.0),
    "long": ({"residual": ["LayerNorm", ATTENTION]}, [12, 6], 1.0),
    "large image": ({"residual": [conv(4), "ReLU", conv(4)]}, [4, 5, 5], 1.0),
}


def taken(layer: Layer, shape: list[int], seed: int = 0) -> tuple[JacobianProfile, Tensor]:
    """The profile of a network of this one row, and its dense Jacobian by torch's own means."""
    network = network_of([layer, linear(2)], shape)
    x = batch_of(shape)
    chain = links(network, [layer])
    return jacobians(subject_of(network, x, torch.sum, seed=seed))["0"], dense_jacobian(
        lambda x: run_chain(chain, x), x
    )


@pytest.mark.parametrize("name", EXACT)
def test_small_blocks_agree_with_the_dense_jacobian(name: str) -> None:
    layer, shape, scale = EXACT[name]
    found, dense = taken(layer, shape)
    for quantity, value in of_dense(dense, scale).items():
        estimate: Estimate = getattr(found, quantity)
        assert estimate.error == 0
        assert estimate.value == pytest.approx(value, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("name", ESTIMATED)
def test_other_blocks_agree_within_three_standard_errors(name: str) -> None:
    layer, shape, scale = ESTIMATED[name]
    found, dense = taken(layer, shape)
    for quantity, value in of_dense(dense, scale).items():
        estimate: Estimate = getattr(found, quantity)
        assert 0 < estimate.error < 0.1
        assert abs(estimate.value - value) <= 3 * estimate.error


@pytest.mark.parametrize(
    "layers",
    [
        [linear(6), {"Dropout": {"p": 0.5}}],
        [linear(6), "RReLU"],
        [linear(6), {"AlphaDropout": {"p": 0.3}}],
    ],
)
def test_a_block_that_draws_at_random_is_judged_at_one_draw(layers: list[Layer]) -> None:
    """The draw is that of the forward pass, and the same for all vectors."""
    layer = {"residual": layers}
    network = network_of([layer, linear(2)], [6])
    x = batch_of([6])

    def function(x: Tensor) -> Tensor:
        torch.manual_seed(derive(9, "forward/0"))
        return network.get_submodule("0")(x)

    found = jacobians(subject_of(network, x, torch.sum, seed=9))["0"]
    for quantity, value in of_dense(dense_jacobian(function, x), 1.0).items():
        estimate: Estimate = getattr(found, quantity)
        assert abs(estimate.value - value) <= 3 * estimate.error + 1e-12


@pytest.mark.parametrize(
    "layer",
    [
        {"MultiheadAttention": {"num_heads": 2, "dropout": 0.5}},
        {"LSTM": {"hidden_size": 4, "num_layers": 2, "dropout": 0.5}},
        {"TransformerEncoderLayer": {"nhead": 2, "dim_feedforward": 8, "dropout": 0.3}},
    ],
)
def test_dropout_inside_a_layer_counts_too(layer: Layer) -> None:
    network = network_of([{"residual": [layer]}, linear(2)], [5, 4])
    x = batch_of([5, 4])

    def function(x: Tensor) -> Tensor:
        torch.manual_seed(derive(9, "forward/0"))
        return network.get_submodule("0")(x)

    found = jacobians(subject_of(network, x, torch.sum, seed=9))["0"]
    for quantity, value in of_dense(dense_jacobian(function, x), 1.0).items():
        estimate: Estimate = getattr(found, quantity)
        assert abs(estimate.value - value) <= 3 * estimate.error + 1e-12


HONEST: dict[str, tuple[Layer, list[int], int]] = {
    "many features": ({"residual": [linear(70), "Tanh"]}, [70], 2),
    "many features, plain": ({"sequential": [linear(70), "ReLU"]}, [70], 3),
    "coupled samples": ({"residual": [linear(5), "BatchNorm1d", "ReLU"]}, [5], 6),
    # Of three samples BatchNorm leaves one direction: what is found in each is nearly the same.
    "samples in one direction": ("BatchNorm1d", [6], 3),
}


@pytest.mark.parametrize("name", HONEST)
def test_standard_errors_are_honest(name: str) -> None:
    """Over many draws of the vectors, (estimate - truth) / error has mean 0 and deviation 1."""
    layer, shape, batch = HONEST[name]
    network = network_of([layer], shape, batch=batch)
    x = batch_of(shape, batch)
    element = Element("0", 0, network.rows[0].module)
    truth = of_dense(dense_jacobian(network, x), 1.0)
    found = [jacobian(element, x, seed) for seed in range(80)]
    for quantity, value in truth.items():
        estimates: list[Estimate] = [getattr(one, quantity) for one in found]
        scores = [(estimate.value - value) / estimate.error for estimate in estimates]
        assert 0.75 < statistics.stdev(scores) < 1.33
        assert abs(statistics.fmean(scores)) < 0.4


# ---- closed forms


@pytest.mark.parametrize(
    ("skip", "branch"), [(1.0, 1.0), (0.5, 1.0), (1.0, -0.3), (0.0, 1.0), (-1.0, 2.0)]
)
def test_a_linear_block_by_hand(skip: float, branch: float) -> None:
    """J = s·1 + b·W: tr(J)/n = s + b·tr(W)/n, and the Frobenius norms of b·W and of J."""
    block = {"layers": [linear(7)], "skip_scale": skip, "branch_scale": branch}
    network = network_of([{"residual": block}, linear(2)], [7])
    weight = network.get_submodule("0.0").weight.detach()
    found = jacobians(subject_of(network, batch_of([7]), torch.sum))["0"]
    whole = skip * torch.eye(7, dtype=torch.float64) + branch * weight
    highway = skip + branch * float(weight.trace()) / 7
    assert found.highway.value == pytest.approx(highway, rel=1e-12)
    size = abs(branch) * float(weight.square().sum().sqrt())
    assert found.branch.value == pytest.approx(size / math.sqrt(7), rel=1e-12)
    gain = float(whole.square().sum().sqrt()) / math.sqrt(7)
    assert found.gain.value == pytest.approx(gain, rel=1e-12)
    assert found.highway.error == found.branch.error == found.gain.error == 0


def test_gain_is_the_root_mean_square_singular_value() -> None:
    network = network_of([linear(9), linear(2)], [9])
    found = jacobians(subject_of(network, batch_of([9]), torch.sum))["0"]
    singular = torch.linalg.svdvals(network.get_submodule("0").weight.detach())
    assert found.gain.value == pytest.approx(float(singular.square().mean().sqrt()), rel=1e-12)


@pytest.mark.parametrize("width", [6, 64, 65, 200])
@pytest.mark.parametrize("skip", [1.0, 0.5])
@pytest.mark.parametrize("norm", [[], ["BatchNorm1d"], ["LayerNorm"]])
def test_a_zero_initialised_block_is_exactly_its_skip(
    width: int, skip: float, norm: list[Layer]
) -> None:
    block = {"layers": [linear(width), *norm, "Tanh"], "zero_init": True, "skip_scale": skip}
    network = network_of([{"residual": block}, linear(2)], [width])
    found = jacobians(subject_of(network, batch_of([width]), torch.sum))["0"]
    assert found == JacobianProfile(Estimate(skip), Estimate(0.0), Estimate(skip))


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_the_highway_is_near_1_with_a_skip_and_near_0_without(norm: str) -> None:
    """tr(∂F/∂x)/n of independent weights has mean 0 and a deviation of about 1/n."""
    for stack, expected in (("residual", 1.0), ("plain", 0.0)):
        options = StackOptions(depth=3, width=64, norm=norm)
        subject = make(load_spec(stack, options), FLOAT64)
        network, x = subject.model, subject.args[0]
        found = jacobians(subject_of(network, x, torch.sum))
        for name in ("1.0", "1.1", "1.2"):
            assert found[name].highway.value == pytest.approx(expected, abs=0.08)


def test_the_branch_of_a_residual_block_is_the_gain_of_its_plain_twin() -> None:
    """The same weights at the same input: J = 1 + ∂F/∂x."""
    plain = network_of([{"sequential": [linear(6), "Tanh"]}, linear(2)], [6])
    residual = network_of([{"residual": [linear(6), "Tanh"]}, linear(2)], [6])
    x = batch_of([6])
    twin, found = (
        jacobians(subject_of(network, x, torch.sum))["0"] for network in (plain, residual)
    )
    assert found.branch.value == pytest.approx(twin.gain.value, rel=1e-12)
    assert found.highway.value == pytest.approx(1 + twin.highway.value, rel=1e-12)


def test_the_limit_of_the_exact_way() -> None:
    assert EXACT_FEATURES == 64


def test_only_rows_that_keep_the_shape_have_a_jacobian() -> None:
    layers = [
        {"Embedding": {"embedding_dim": 4}},
        {"residual": [linear(4)]},
        linear(4),
        linear(3),
        "Tanh",
        "Flatten",
        linear(15),
    ]
    network = network_of(layers, [5], tokens=7)
    tokens = torch.zeros(4, 5, dtype=torch.int64)
    assert set(jacobians(subject_of(network, tokens, torch.sum))) == {"1", "2", "4", "6"}


# ---- one block, step by step

STAGE = {
    "residual": {
        "layers": [conv(4, stride=2), "BatchNorm2d"],
        "shortcut": [{"Conv2d": {"out_channels": 4, "kernel_size": 1, "stride": 2}}],
    }
}
NETWORKS: dict[str, tuple[list[Layer], list[int], str, int]] = {
    # layers, shape, the block's name, its place in the chain
    "tanh": (
        [linear(6), {"repeat": {"times": 3, "layers": [{"residual": [linear(6), "Tanh"]}]}}],
        [4],
        "1.1",
        2,
    ),
    "scaled": (
        [
            linear(6),
            {
                "residual": {
                    "layers": ["LayerNorm", linear(6)],
                    "skip_scale": 0.5,
                    "branch_scale": 3,
                }
            },
            linear(3),
        ],
        [4],
        "1",
        1,
    ),
    "image": (
        [conv(2), {"residual": [conv(2), "BatchNorm2d"]}, "ReLU", STAGE, "ReLU", "Flatten"],
        [3, 4, 4],
        "1",
        1,
    ),
    "stage": (
        [conv(2), {"residual": [conv(2), "BatchNorm2d"]}, "ReLU", STAGE, "ReLU", "Flatten"],
        [3, 4, 4],
        "3",
        3,
    ),
    "feed-forward": (
        [
            linear(4),
            {
                "repeat": {
                    "times": 2,
                    "layers": [
                        {"residual": ["LayerNorm", ATTENTION]},
                        {"residual": ["LayerNorm", linear(8), "GELU", linear(4)]},
                    ],
                }
            },
            "LayerNorm",
        ],
        [5, 3],
        "1.0.1",
        2,
    ),
}


def sizes(*tensors: Tensor) -> list[float]:
    return [float(torch.linalg.vector_norm(tensor)) for tensor in tensors]


def rms(x: Tensor) -> float:
    return float(x.detach().square().mean().sqrt())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_block_step_by_step(name: str) -> None:
    layers, shape, row, index = NETWORKS[name]
    spec = spec_of(layers, shape)
    block = take_apart(spec, FLOAT64, row)
    prepared = make(spec, FLOAT64)
    chain = links(prepared.model, layers)
    at = values(chain, prepared.args[0])
    x, y, link = at[index], at[index + 1], chain[index]
    assert link.skip is not None

    arriving = gradient(chain[index + 1 :], y, prepared.loss)
    through_skip, through_branch = (pull(part, x, arriving) for part in (link.skip, link.branch))
    total = gradient(chain[index:], x, prepared.loss)
    found = [block.arriving, block.skip_part, block.branch_part, block.total]
    assert found == pytest.approx(sizes(arriving, through_skip, through_branch, total), rel=1e-12)
    # The two parts are all of the gradient: in gradprobe's hands and in ours.
    assert block.error <= 1e-12
    [difference, whole] = sizes(through_skip + through_branch - total, total)
    assert difference <= 1e-12 * whole
    assert block.cosine is not None
    inner = float((through_skip * through_branch).sum())
    assert block.cosine == pytest.approx(inner / (found[1] * found[2]), rel=1e-11, abs=1e-13)
    assert block.angle == pytest.approx(math.degrees(math.acos(block.cosine)), rel=1e-12)
    squares = found[1] ** 2 + found[2] ** 2 + 2 * block.cosine * found[1] * found[2]
    assert found[3] ** 2 == pytest.approx(squares, rel=1e-11)

    assert (block.name, block.residual) == (row, True)
    assert block.input_rms == pytest.approx(rms(x), rel=1e-12)
    assert block.output_rms == pytest.approx(rms(y), rel=1e-12)
    assert block.skip_rms == pytest.approx(rms(link.skip(x)), rel=1e-12)
    assert block.branch_rms == pytest.approx(rms(link.branch(x)), rel=1e-12)
    if x.shape == y.shape:
        assert block.jacobian is not None
        scale = 0.5 if name == "scaled" else 1.0
        for quantity, value in of_dense(dense_jacobian(link.run, x), scale).items():
            estimate: Estimate = getattr(block.jacobian, quantity)
            assert abs(estimate.value - value) <= 3 * estimate.error + 1e-12
    else:
        assert block.jacobian is None


def test_the_layers_of_the_branch() -> None:
    layers, shape, row, index = NETWORKS["feed-forward"]
    spec = spec_of(layers, shape)
    block = take_apart(spec, FLOAT64, row)
    assert [(layer.name, layer.kind) for layer in block.layers] == [
        ("1.0.1.0", "LayerNorm"),
        ("1.0.1.1", "Linear"),
        ("1.0.1.2", "GELU"),
        ("1.0.1.3", "Linear"),
    ]
    prepared = make(spec, FLOAT64)
    x = values(links(prepared.model, layers), prepared.args[0])[index]
    for layer in block.layers:
        x = prepared.model.get_submodule(layer.name)(x)
        assert layer.rms == pytest.approx(rms(x), rel=1e-12)
    assert block.branch_rms == pytest.approx(rms(x), rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("MultiheadAttention", ATTENTION),
        ("LSTM", {"LSTM": {"hidden_size": 4}}),
        ("TransformerEncoderLayer", {"TransformerEncoderLayer": {"nhead": 1}}),
        ("sequential", {"sequential": ["Tanh", linear(4)]}),
        ("residual", {"residual": [linear(4)]}),
        ("concat", {"concat": {"branches": [[linear(1)], [linear(3)]], "dim": -1}}),
    ],
)
def test_the_kinds_are_the_words_of_the_spec(kind: str, layer: Layer) -> None:
    spec = spec_of([{"residual": [linear(4), layer]}, linear(2)], [5, 4])
    block = take_apart(spec, FLOAT64, "0")
    assert [layer.kind for layer in block.layers] == ["Linear", kind]


@pytest.mark.parametrize("layers", [[linear(6), "Tanh"], ["BatchNorm1d", linear(6)]])
def test_a_zero_initialised_block_step_by_step(layers: list[Layer]) -> None:
    block = {"residual": {"layers": layers, "zero_init": True}}
    spec = spec_of([linear(6), block, linear(3)], [4])
    taken_apart = take_apart(spec, FLOAT64, None)
    assert taken_apart.name == "1"
    assert taken_apart.branch_rms == taken_apart.branch_part == 0
    assert taken_apart.input_rms == taken_apart.skip_rms == taken_apart.output_rms
    assert taken_apart.arriving == taken_apart.skip_part == taken_apart.total
    assert taken_apart.cosine is None
    assert taken_apart.angle is None
    assert taken_apart.error == 0
    assert taken_apart.jacobian == JacobianProfile(Estimate(1.0), Estimate(0.0), Estimate(1.0))


def test_a_block_without_a_skip() -> None:
    layers = [linear(6), {"repeat": {"times": 3, "layers": [linear(6), "Tanh"]}}, linear(2)]
    spec = spec_of(layers, [4])
    block = take_apart(spec, FLOAT64, None)
    prepared = make(spec, FLOAT64)
    chain = links(prepared.model, layers)
    at = values(chain, prepared.args[0])
    assert (block.name, block.residual, block.skip_scale) == ("1.1", False, 0.0)
    assert block.arriving == pytest.approx(
        sizes(gradient(chain[5:], at[5], prepared.loss))[0], rel=1e-12
    )
    total = sizes(gradient(chain[3:], at[3], prepared.loss))[0]
    assert [block.total, block.branch_part] == pytest.approx([total, total], rel=1e-12)
    assert block.skip_part == block.skip_rms == 0
    assert (block.cosine, block.angle) == (None, None)
    assert [layer.kind for layer in block.layers] == ["Linear", "Tanh"]


def test_what_acts_in_place_at_the_head_of_a_branch_does_not_reach_the_skip() -> None:
    """y = x + F(x): the parts add up to the gradient whatever F does to its own copy."""
    layers = [linear(6), {"residual": [{"ReLU": {"inplace": True}}, linear(6)]}, linear(2)]
    block = take_apart(spec_of(layers, [4]), FLOAT64, "1")
    assert block.error <= 1e-12
    other = take_apart(
        spec_of([linear(6), {"residual": ["ReLU", linear(6)]}, linear(2)], [4]), FLOAT64, "1"
    )
    assert block.output_rms == pytest.approx(other.output_rms, rel=1e-12)


def test_what_acts_in_place_in_one_branch_of_a_concat_does_not_reach_the_others() -> None:
    x = batch_of([4])
    outputs = []
    for relu in ("ReLU", {"ReLU": {"inplace": True}}):
        network = network_of([{"concat": [[relu], [linear(3)]]}, linear(2)], [4])
        outputs.append(network(x.clone()))
    assert torch.equal(*outputs)


# ---- which block

TRANSFORMER = [
    {"Embedding": {"embedding_dim": 4}},
    {
        "repeat": {
            "times": 3,
            "layers": [
                {"residual": ["LayerNorm", ATTENTION]},
                {"residual": ["LayerNorm", linear(8), "GELU", linear(4)]},
            ],
        }
    },
    "LayerNorm",
    linear(7),
]


@pytest.mark.parametrize(
    ("row", "name", "kind"),
    [
        (None, "1.1.1", "residual"),  # of six residual blocks the fourth
        ("1.0.0", "1.0.0", "residual"),
        ("1.2.1", "1.2.1", "residual"),
        ("1.2", "1.2.0", "residual"),  # the first in that row
        ("2", "2", "LayerNorm"),
        ("3", "3", "Linear"),
    ],
)
def test_the_row_that_is_meant(row: str | None, name: str, kind: str) -> None:
    block = take_apart(spec_of(TRANSFORMER, [5], tokens=7), FLOAT64, row)
    assert (block.name, block.kind) == (name, kind)


def test_the_default_is_the_middle_block() -> None:
    for stack in ("plain", "residual"):
        for depth, name in ((1, "1.0"), (5, "1.2"), (21, "1.10")):
            spec = load_spec(stack, StackOptions(depth=depth, width=3))
            assert take_apart(spec, FLOAT64, None).name == name


def test_a_row_of_tokens_has_no_gradient() -> None:
    with pytest.raises(InputError, match="tokens"):
        take_apart(spec_of(TRANSFORMER, [5], tokens=7), FLOAT64, "0")


# ---- the commands


@pytest.mark.parametrize("row", ["9", "1.99", "1.0.7", "", "nix"])
def test_an_unknown_row(run: Callable[..., Result], row: str) -> None:
    done = run("block", "residual", "--depth", "3", "--row", row)
    assert done.code == 2
    assert done.out == ""
    assert f"no row '{row}'" in done.err
    assert "1.0" in done.err  # what there is


def test_rows_inside_a_row(run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "transformer.yaml"
    file.write_text(json.dumps({"input": {"shape": [5], "tokens": 7}, "layers": TRANSFORMER}))
    done = run("block", file, "--row", "1.1.0")
    assert done.code == 0
    assert "block 1.1.0" in done.out.splitlines()[0]
    assert re.search(r"│   MultiheadAttention +rms ", done.out)
    tokens = run("block", file, "--row", "0")
    assert (tokens.code, tokens.out) == (2, "")


@pytest.mark.parametrize("target", ["plain", "residual"])
def test_step_waits_for_nobody_when_piped(run: Callable[..., Result], target: str) -> None:
    whole = run("block", target, "--depth", "3", "--width", "5")
    stepped = run("block", target, "--depth", "3", "--width", "5", "--step")
    assert (whole.code, stepped.code) == (0, 0)
    assert stepped.out == whole.out
    assert "--step waits at a terminal" in stepped.err
    assert "--step" not in whole.err
    for heading in ("forward", "backward", "Jacobian"):
        assert f"\n{heading}\n" in stepped.out


def test_the_block_goes_to_a_file(run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "block.txt"
    shown = run("block", "residual", "--depth", "3")
    done = run("block", "residual", "--depth", "3", "-o", file)
    assert (done.code, done.out) == (0, "")
    assert file.read_text() == shown.out


MIXED = [
    linear(4),
    {"residual": {"layers": [linear(4), "Tanh"], "skip_scale": 0.5}},
    {"sequential": [linear(4), "BatchNorm1d", "ReLU"]},
    linear(3),
]


def test_blocks_in_json(run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "mixed.yaml"
    file.write_text(json.dumps({"input": {"shape": [3]}, "layers": MIXED}))
    options = ["probe", file, "--dtype", "float64", "--format", "json", "--exit-zero"]
    body = json.loads(run(*options, "--blocks").out)
    found = {row["name"]: row["jacobian"] for row in body["rows"]}
    assert list(found) == ["0", "1", "2", "3"]
    assert found["0"] is None  # 3 → 4
    assert found["3"] is None
    prepared = make(spec_of(MIXED, [3]), ProbeOptions(dtype="float64"))
    chain = links(prepared.model, MIXED)
    at = values(chain, prepared.args[0])
    for name, link, x, scale in (("1", chain[1], at[1], 0.5), ("2", None, at[2], 1.0)):
        module = prepared.model.get_submodule(name) if link is None else link.run
        for quantity, value in of_dense(dense_jacobian(module, x), scale).items():
            shown = found[name][quantity]
            assert list(shown) == ["value", "error"]
            assert abs(shown["value"] - value) <= 3 * shown["error"] + 1e-12
    assert found["1"]["gain"]["error"] == 0
    assert found["2"]["gain"]["error"] > 0
    without = json.loads(run(*options).out)
    assert all("jacobian" not in row for row in without["rows"])
    for row in body["rows"]:
        del row["jacobian"]
    assert body == without


@pytest.mark.parametrize("width", ["80", "120"])
def test_blocks_in_text(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    file = tmp_path / "mixed.yaml"
    file.write_text(json.dumps({"input": {"shape": [3]}, "layers": MIXED}))
    done = run("probe", file, "--blocks", "--exit-zero")
    lines = done.out.splitlines()
    [header] = [line for line in lines if line.startswith("row ")]
    ends = [header.index(word) + len(word) for word in ("highway", "branch", "gain")]
    body = json.loads(run("probe", file, "--blocks", "--exit-zero", "--format", "json").out)
    rows = lines[lines.index(header) + 1 : lines.index(header) + 5]
    for line, row in zip(rows, body["rows"], strict=True):
        shown = [line[:end].split()[-1] for end in ends]
        jacobian = row["jacobian"]
        if jacobian is None:
            assert shown == ["-", "-", "-"]
        else:
            for text, quantity in zip(shown, jacobian.values(), strict=True):
                assert float(text) == pytest.approx(quantity["value"], rel=6e-3)
    assert all(len(line) <= int(width) for line in lines)
    assert "highway" not in run("probe", file, "--exit-zero").out


def test_positions_have_no_jacobian(run: Callable[..., Result], tmp_path: Path) -> None:
    """Position 0 is not row 0: the blocks of the network say nothing about its positions."""
    file = tmp_path / "rnn.yaml"
    layers = [{"RNN": {"hidden_size": 4}}, linear(4)]
    file.write_text(json.dumps({"input": {"shape": [6, 4]}, "layers": layers}))
    options = ["probe", file, "--by", "position", "--blocks", "--format", "json", "--exit-zero"]
    done = run(*options)
    assert done.code in (0, 2), done.err
    if done.code == 0:
        assert all(row.get("jacobian") is None for row in json.loads(done.out)["rows"])


def test_the_same_seed_gives_the_same_bytes(run: Callable[..., Result]) -> None:
    options = ["block", "residual", "--norm", "batch", "--depth", "3", "--width", "9"]
    assert run(*options, "--seed", "4").out == run(*options, "--seed", "4").out
    assert run(*options, "--seed", "4").out != run(*options, "--seed", "5").out


def test_the_network_is_left_as_it_was() -> None:
    """No trace in the global random state, although dropout draws from it."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    spec = spec_of([linear(4), {"residual": [linear(4), "Dropout"]}, linear(2)], [3])
    block: BlockProfile = take_apart(spec, FLOAT64, None)
    assert block.error <= 1e-12
    assert torch.equal(torch.random.get_rng_state(), before)
