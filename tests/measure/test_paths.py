"""The product expanded: held against every path taken one by one, and against closed forms."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import Result
from helpers.oracle import (
    Layer,
    Link,
    all_paths,
    gradient,
    grouped,
    links,
    network_of,
    spec_of,
    values,
)
from helpers.places import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradprobe.measure.blocks.paths import expand as expand_network
from gradprobe.measure.blocks.paths import expand_groups
from gradprobe.measure.blocks.profile import PathProfile
from gradprobe.model.build import Network
from gradprobe.model.make import make
from gradprobe.model.subject import subject_of
from gradprobe.spec.options import ProbeOptions
from gradprobe.tasks.probe import paths as expand

BATCH = 4
FLOAT64 = ProbeOptions(dtype="float64", batch_size=BATCH)


def linear(width: int, **arguments: Any) -> Layer:
    return {"Linear": {"out_features": width, **arguments}}


def loss_of(network: Network) -> Callable[[Tensor], Tensor]:
    """A loss that is not linear, so that its own gradient depends on where it is taken."""

    def loss(out: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        direction = torch.randn(out.shape, generator=generator, dtype=out.dtype)
        return (direction * out + 0.1 * out.square()).sum()

    return loss


def batch_of(shape: list[int], batch: int = BATCH) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(batch, *shape, generator=generator, dtype=torch.float64)


def blocks_in(layers: list[Layer]) -> int:
    """Residual blocks that do not lie inside another one."""
    count = 0
    for layer in layers:
        [(kind, inside)] = layer.items() if isinstance(layer, dict) else [(layer, None)]
        if kind == "residual":
            count += 1
        elif kind == "sequential":
            count += blocks_in(inside)
        elif kind == "repeat":
            count += inside["times"] * blocks_in(inside["layers"])
    return count


# ---- random residual networks

ACTIVATIONS = st.sampled_from(["Tanh", "ReLU", "GELU", "Sigmoid", "SiLU", "ELU", "Identity"])
SCALES = st.sampled_from([1, 1, 0.5, -0.7, 1.5, 0])


@st.composite
def vector_blocks(draw: st.DrawFn, width: int, out: int) -> Layer:
    """A residual block from ``width`` to ``out`` features, projected where they differ."""
    inner = draw(st.integers(1, 5))
    norm = draw(st.sampled_from([[], [], ["BatchNorm1d"], ["LayerNorm"]]))
    layers = [*norm, linear(inner), draw(ACTIVATIONS)]
    if draw(st.booleans()):
        layers += [{"residual": [linear(inner), "Tanh"]}]  # a block inside the branch
    layers += [linear(out)]
    if draw(st.booleans()):
        layers = [{"sequential": layers[:2]}, *layers[2:]]
    block = {"layers": layers, "skip_scale": draw(SCALES), "branch_scale": draw(SCALES)}
    if width != out:
        block["shortcut"] = [linear(out)] if draw(st.booleans()) else ["Tanh", linear(out)]
    elif draw(st.integers(0, 4)) == 0:
        block["shortcut"] = ["BatchNorm1d"]
    return {"residual": block}


@st.composite
def vector_networks(draw: st.DrawFn, most: int) -> tuple[list[Layer], list[int]]:
    """Up to ``most`` blocks in stages, with plain rows between and at the ends."""
    width = draw(st.integers(1, 5))
    layers: list[Layer] = [linear(width)]
    left = draw(st.integers(1, most))
    while left > 0:
        kind = draw(st.sampled_from(["block", "block", "stage", "repeat", "pair", "plain"]))
        if kind == "plain":
            plain = ["Tanh", "GELU", linear(width), "LayerNorm", "BatchNorm1d"]
            layers.append(draw(st.sampled_from(plain)))
            continue
        out = draw(st.integers(1, 5)) if kind == "stage" else width
        block = draw(vector_blocks(width, out))
        if kind == "repeat" and left >= 2:
            body = [block, "Tanh"] if draw(st.booleans()) else [block]
            layers.append({"repeat": {"times": 2, "layers": body}})
            left -= 2
        elif kind == "pair":
            layers.append({"sequential": [block, "ELU"]})
            left -= 1
        else:
            layers.append(block)
            left -= 1
        width = out
    if draw(st.booleans()):
        layers.append(linear(3))
    return layers, [draw(st.integers(1, 4))]


@st.composite
def sequence_networks(draw: st.DrawFn, most: int) -> tuple[list[Layer], list[int]]:
    """Transformer-like: attention and feed-forward blocks in one row, before or after the norm."""
    width = 4
    attention = {"MultiheadAttention": {"num_heads": 2, "causal": draw(st.booleans())}}
    forward = [linear(6), draw(ACTIVATIONS), linear(width)]
    if draw(st.booleans()):
        row = [{"residual": ["LayerNorm", attention]}, {"residual": ["LayerNorm", *forward]}]
    else:
        row = [{"residual": [attention]}, "LayerNorm", {"residual": forward}, "LayerNorm"]
    times = draw(st.integers(1, most // 2))
    between = [linear(width), "GELU"] if draw(st.booleans()) else []
    rows = [{"repeat": {"times": times, "layers": row}}]
    return [linear(width), *between, *rows, "LayerNorm", linear(3)], [3, 2]


def networks(most: int) -> st.SearchStrategy[tuple[list[Layer], list[int]]]:
    return st.one_of(vector_networks(most), vector_networks(most), sequence_networks(most))


def thorough(examples: int) -> Callable[..., Any]:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def size(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor))


@thorough(24)
@given(networks(6))
def test_the_groups_are_those_of_all_paths_taken_one_by_one(
    drawn: tuple[list[Layer], list[int]],
) -> None:
    layers, shape = drawn
    network = network_of(layers, shape, batch=BATCH)
    loss = loss_of(network)
    x = batch_of(shape)
    groups, total = expand_groups(subject_of(network, x, loss), "0")

    chain = links(network, layers)
    start = values(chain, x)[1]
    paths = all_paths(chain[1:], start, loss)
    blocks = blocks_in(layers)
    assert len(paths) == 2**blocks
    scale = sum(size(path) for path in paths.values())
    expected = grouped(paths)
    assert len(groups) == blocks + 1
    for group, sum_of_paths in zip(groups, expected, strict=True):
        assert size(group - sum_of_paths) <= 1e-12 * scale
    assert size(total - gradient(chain[1:], start, loss)) <= 1e-12 * scale


@thorough(12)
@given(networks(16))
def test_the_groups_sum_to_the_gradient(drawn: tuple[list[Layer], list[int]]) -> None:
    layers, shape = drawn
    network = network_of(layers, shape, batch=BATCH)
    loss = loss_of(network)
    x = batch_of(shape)
    groups, _ = expand_groups(subject_of(network, x, loss), "0")

    chain = links(network, layers)
    whole = gradient(chain[1:], values(chain, x)[1], loss)
    assert len(groups) == blocks_in(layers) + 1
    assert size(groups.sum(0) - whole) <= 1e-10 * size(whole)


@thorough(10)
@given(networks(6), st.data())
def test_shorter_paths_alone_are_the_same_and_the_rest_is_told(
    drawn: tuple[list[Layer], list[int]], data: st.DataObject
) -> None:
    layers, shape = drawn
    network = network_of(layers, shape, batch=BATCH)
    loss = loss_of(network)
    x = batch_of(shape)
    groups, total = expand_groups(subject_of(network, x, loss), "0")
    scale = sum(map(size, groups))
    most = data.draw(st.integers(1, len(groups)), label="max_paths")

    fewer, same_total = expand_groups(subject_of(network, x, loss), "0", most)
    assert len(fewer) == min(most + 1, len(groups))
    assert size(fewer - groups[: most + 1]) <= 1e-13 * scale
    assert torch.equal(total, same_total)

    profile = expand_network(subject_of(network, x, loss), "0", most)
    if most + 1 < len(groups):
        assert profile.error is None
        assert profile.left_out == pytest.approx(size(groups[most + 1 :].sum(0)), abs=1e-12 * scale)
    else:
        assert profile.left_out is None
        assert profile.error is not None
        assert profile.error * size(total) <= 1e-10 * scale


@pytest.mark.parametrize("most", [0, 1, 2, 3, 4, 9])
def test_every_limit_on_the_branches_of_a_path(most: int) -> None:
    layers = [linear(3), {"repeat": {"times": 3, "layers": [{"residual": [linear(3), "Tanh"]}]}}]
    network = network_of(layers, [3])
    loss = loss_of(network)
    full = expand_network(subject_of(network, batch_of([3]), loss), "0")
    profile = expand_network(subject_of(network, batch_of([3]), loss), "0", most)
    assert profile.blocks == 3
    assert profile.norms == pytest.approx(full.norms[: most + 1], rel=1e-12)
    assert (profile.left_out is None) == (most >= 3)


# ---- closed forms


def test_scalar_linear_blocks_give_the_elementary_symmetric_polynomials() -> None:
    """∏(1 + w_k) = Σ_j e_j(w), and the group j of one sample is e_j(w) times the loss's slope."""
    weights = [0.5, -0.25, 2.0, 0.125, 1.5]

    def scalar(w: float) -> Layer:
        return linear(1, bias=False, init={"weight": {"constant": {"val": w}}})

    blocks = [{"residual": [scalar(w)]} for w in weights]
    identity = scalar(1.0)
    network = network_of([identity, *blocks, identity], [1], batch=1)
    x = torch.ones(1, 1, dtype=torch.float64)
    groups, total = expand_groups(subject_of(network, x, lambda out: 3.0 * out.sum()), "0")
    expected = [
        3.0 * math.fsum(math.prod(chosen) for chosen in combinations(weights, j))
        for j in range(len(weights) + 1)
    ]
    assert groups.flatten().tolist() == pytest.approx(expected, rel=1e-13)
    assert float(total) == pytest.approx(3.0 * math.prod(1 + w for w in weights), rel=1e-13)


@pytest.mark.parametrize(("skip", "branch"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.1), (0.7, -0.3)])
def test_equal_linear_blocks_are_binomial(skip: float, branch: float) -> None:
    """n blocks s·x + b·Qx with Q orthogonal: ‖G_j‖ = C(n, j) |s|^(n-j) |b|^j ‖∂L/∂out‖."""
    inside = linear(4, bias=False)
    block = {"residual": {"layers": [inside], "skip_scale": skip, "branch_scale": branch}}
    depth = 12
    layers = [linear(4), *[block] * depth]
    network = network_of(layers, [4])
    rotation, _ = torch.linalg.qr(batch_of([4])[:4])
    with torch.no_grad():  # the same in each, so that equal powers of it add up
        for k in range(1, depth + 1):
            network.get_submodule(f"{k}.0").weight.copy_(rotation)
    profile = expand_network(subject_of(network, batch_of([4]), lambda out: out.sum()), "0")
    norm = math.sqrt(4 * BATCH)
    assert profile.norms == pytest.approx(
        [
            math.comb(depth, j) * abs(skip) ** (depth - j) * abs(branch) ** j * norm
            for j in range(depth + 1)
        ],
        rel=1e-12,
    )
    assert profile.error is not None
    assert profile.error < 1e-12


def test_a_zero_branch_leaves_the_clean_path_alone() -> None:
    block = {"residual": {"layers": [linear(5), "Tanh"], "zero_init": True}}
    network = network_of([linear(5), {"repeat": {"times": 7, "layers": [block]}}], [5])
    profile = expand_network(subject_of(network, batch_of([5]), loss_of(network)), "0")
    assert profile.norms[0] == profile.total
    assert profile.norms[1:] == (0.0,) * 7
    assert profile.error == 0
    assert profile.mean_length == 0
    assert profile.effective == (0, 0)


# ---- blocks of every kind: what autograd cannot batch, what draws at random, what works in place

KINDS: dict[str, tuple[list[Layer], list[int]]] = {
    "convolutional, with a projection": (
        [
            {"Conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}},
            {
                "residual": [
                    {"Conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1, "bias": False}},
                    "BatchNorm2d",
                    "ReLU",
                    {"Conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1, "bias": False}},
                    "BatchNorm2d",
                ]
            },
            "ReLU",
            {
                "residual": {
                    "layers": [
                        {
                            "Conv2d": {
                                "out_channels": 5,
                                "kernel_size": 3,
                                "stride": 2,
                                "padding": 1,
                            }
                        },
                        "BatchNorm2d",
                    ],
                    "shortcut": [
                        {"Conv2d": {"out_channels": 5, "kernel_size": 1, "stride": 2}},
                        "BatchNorm2d",
                    ],
                }
            },
            "ReLU",
            {"AdaptiveAvgPool2d": {"output_size": 1}},
            "Flatten",
            linear(3),
        ],
        [2, 6, 6],
    ),
    "recurrent": (
        [
            linear(4),
            {"residual": [{"LSTM": {"hidden_size": 4}}]},
            {"residual": ["LayerNorm", {"GRU": {"hidden_size": 4}}]},
            linear(3),
        ],
        [5, 3],
    ),
    "concatenated": (
        [
            linear(4),
            {"residual": [{"concat": [[linear(1), "Tanh"], [linear(3)]]}]},
            {"concat": [[{"residual": [linear(4)]}], [linear(2)]]},
            {"residual": [linear(6), "GELU"]},
            linear(3),
        ],
        [3],
    ),
    "in place": (
        [
            linear(6),
            {"residual": [linear(6), {"ReLU": {"inplace": True}}]},
            {"residual": ["LayerNorm", {"ReLU": {"inplace": True}}, linear(6)]},
            {"ReLU": {"inplace": True}},
            linear(3),
        ],
        [3],
    ),
    "in place at once": (
        [
            linear(6),
            {"residual": [{"ReLU": {"inplace": True}}, linear(6)]},
            {"residual": [{"ELU": {"inplace": True}}, linear(6)]},
            linear(3),
        ],
        [3],
    ),
    "in place on the skip": (
        [
            linear(6),
            {"residual": {"layers": [linear(6)], "shortcut": [{"ReLU": {"inplace": True}}]}},
            linear(3),
        ],
        [3],
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_blocks_of_every_kind_agree_with_all_paths(name: str) -> None:
    layers, shape = KINDS[name]
    network = network_of(layers, shape)
    loss = loss_of(network)
    x = batch_of(shape)
    groups, _ = expand_groups(subject_of(network, x, loss), "0")

    chain = [
        Link(*(f and (lambda x, f=f: f(x.clone())) for f in link))
        for link in links(network, layers)
    ]
    start = values(chain, x)[1]
    expected = grouped(all_paths(chain[1:], start, loss))
    whole = gradient(chain[1:], start, loss)
    assert len(groups) == len(expected)
    for group, other in zip(groups, expected, strict=True):
        assert size(group - other) <= 1e-12 * size(whole)
    profile = expand_network(subject_of(network, x, loss), "0")
    assert profile.error is not None
    assert profile.error <= 1e-10


def test_what_is_drawn_at_random_is_drawn_alike_in_both_passes() -> None:
    half = {"p": 0.4}
    attention = {"MultiheadAttention": {"num_heads": 2, "dropout": 0.5}}
    layers = [
        linear(4),
        {"residual": {"layers": [attention, {"Dropout": half}], "shortcut": [{"Dropout": half}]}},
        {"Dropout": half},
        {"residual": [linear(4), "RReLU"]},
        {"residual": [{"GRU": {"hidden_size": 4, "num_layers": 2, "dropout": 0.5}}]},
        linear(3),
    ]
    network = network_of(layers, [5, 3])
    profile = expand_network(subject_of(network, batch_of([5, 3]), loss_of(network), seed=3), "0")
    assert profile.blocks == 3
    assert profile.total > 0
    assert profile.error is not None
    assert profile.error <= 1e-12


def test_a_network_that_begins_with_tokens() -> None:
    layers = [
        {"Embedding": {"embedding_dim": 4}},
        {"residual": ["LayerNorm", linear(4), "GELU"]},
        {"residual": ["LayerNorm", linear(4), "GELU"]},
        linear(3),
    ]
    profile = expand(spec_of(layers, [5], tokens=11), FLOAT64, None)
    assert (profile.row, profile.blocks) == ("0", 2)
    assert profile.error is not None
    assert profile.error <= 1e-12


def test_tokens_at_the_first_row_are_told_plainly(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    """Two rows hold weights, so the trunk is all rows, and no gradient reaches the first: tokens.

    Either another row is taken, or the message says so; it is no failure of the model.
    """
    layers = ["Identity", {"Embedding": {"embedding_dim": 4}}, {"residual": [linear(4), "Tanh"]}]
    file = tmp_path / "net.yaml"
    file.write_text(json.dumps({"input": {"shape": [5], "tokens": 11}, "layers": layers}))
    done = run("paths", file)
    assert done.code in (0, 2), done.err
    assert "the model failed" not in done.err


# ---- which row, and the profile's own arithmetic


def test_the_row_is_the_first_of_the_trunk() -> None:
    """Of three rows or more that hold weights the first; what stands before it carries no part."""
    layers = [
        "Identity",
        {"residual": ["Tanh"]},  # before the trunk
        linear(3),
        {"residual": [linear(3), "Tanh"]},
        linear(2),
    ]
    spec = spec_of(layers, [3])
    profile = expand(spec, FLOAT64, None)
    assert (profile.row, profile.blocks) == ("2", 1)

    prepared = make(spec, FLOAT64)
    chain = links(prepared.model, layers)
    start = values(chain, prepared.args[0])[3]
    whole = gradient(chain[3:], start, prepared.loss)
    assert profile.total == pytest.approx(size(whole), rel=1e-12)


def made(*norms: float, blocks: int | None = None, **fields: Any) -> PathProfile:
    given = {"total": 1.0, "error": 0.0, "left_out": None, "row": "0", **fields}
    return PathProfile(len(norms) - 1 if blocks is None else blocks, norms, **given)


@given(st.integers(0, 300), st.data())
@settings(max_examples=30, derandomize=True, deadline=None)
def test_the_number_of_paths_is_binomial(blocks: int, data: st.DataObject) -> None:
    profile = made(*[1.0] * (blocks + 1))
    j = data.draw(st.integers(0, blocks))
    pascal = 1
    for i in range(j):
        pascal = pascal * (blocks - i) // (i + 1)
    assert profile.paths(j) == pascal
    assert sum(profile.paths(i) for i in range(blocks + 1)) == 2**blocks


def test_shares_mean_length_and_range() -> None:
    profile = made(1.0, 2.0, 1.0)
    assert profile.shares == (0.25, 0.5, 0.25)
    assert profile.mean_length == 1.0
    assert profile.effective == (0, 2)
    assert made(0.0, 0.0, 4.0, 0.0).effective == (2, 2)
    assert made(0.02, 0.48, 0.48, 0.02).effective == (1, 2)
    assert made(0.03, 0.47, 0.47, 0.03).effective == (0, 3)


def test_no_gradient_at_all_has_no_length() -> None:
    profile = made(0.0, 0.0, 0.0, total=0.0)
    assert profile.shares == (0.0, 0.0, 0.0)
    assert profile.mean_length in (None, 0)
    assert profile.effective in (None, (0, 0))


# ---- the command


def test_the_command_in_json(run: Callable[..., Result]) -> None:
    done = run("paths", "residual", "--depth", "6", "--width", "5", "--format", "json")
    assert done.code == 0
    assert done.err == ""
    body = json.loads(done.out)
    assert list(body) == [
        "schema_version",
        "target",
        "row",
        "blocks",
        "gradient_norm",
        "mean_length",
        "effective",
        "error",
        "left_out",
        "groups",
        "versions",
    ]
    assert (body["target"], body["row"], body["blocks"]) == ("residual", "0", 6)
    assert [group["branches"] for group in body["groups"]] == list(range(7))
    assert [group["paths"] for group in body["groups"]] == [1, 6, 15, 20, 15, 6, 1]
    assert math.fsum(group["share"] for group in body["groups"]) == pytest.approx(1, rel=1e-12)
    mean = math.fsum(group["branches"] * group["share"] for group in body["groups"])
    assert body["mean_length"] == pytest.approx(mean, rel=1e-12)
    assert body["error"] <= 1e-12
    assert body["left_out"] is None
    again = run("paths", "residual", "--depth", "6", "--width", "5", "--format", "json")
    assert again.out == done.out


def test_the_total_is_the_gradient_that_probe_shows(run: Callable[..., Result]) -> None:
    options = ["residual", "--depth", "5", "--norm", "layer", "--format", "json"]
    paths = json.loads(run("paths", *options).out)
    probe = json.loads(run("probe", *options, "--dtype", "float64").out)
    assert probe["rows"][0]["name"] == paths["row"]
    assert paths["gradient_norm"] == pytest.approx(probe["rows"][0]["gradient_norm"], rel=1e-12)


def test_max_paths_in_json_and_text(run: Callable[..., Result]) -> None:
    options = ["paths", "residual", "--depth", "8", "--width", "6"]
    full = json.loads(run(*options, "--format", "json").out)
    some = json.loads(run(*options, "--max-paths", "3", "--format", "json").out)
    for group, same in zip(some["groups"], full["groups"], strict=False):
        assert group["norm"] == pytest.approx(same["norm"], rel=1e-12)
    assert len(some["groups"]) == 4
    assert some["error"] is None
    assert some["gradient_norm"] == full["gradient_norm"]
    assert 0 < some["left_out"] <= math.fsum(g["norm"] for g in full["groups"][4:])
    # What was left out is missing from a mean over the rest.
    assert some["mean_length"] in (None, pytest.approx(full["mean_length"]))
    assert some["effective"] in (None, full["effective"])
    text = run(*options, "--max-paths", "3").out
    assert "left out: paths through more than 3 branches" in text


def test_max_paths_of_zero_is_the_clean_path(run: Callable[..., Result]) -> None:
    options = ["paths", "residual", "--depth", "4", "--width", "6", "--format", "json"]
    done = run(*options, "--max-paths", "0")
    assert done.code == 0, done.err
    [clean] = json.loads(done.out)["groups"]
    full = json.loads(run(*options).out)["groups"][0]
    assert clean["branches"] == 0
    assert clean["norm"] == pytest.approx(full["norm"], rel=1e-12)
    assert run(*options, "--max-paths", "-1").code == 2


def test_without_a_residual_block_there_is_one_path(run: Callable[..., Result]) -> None:
    done = run("paths", "plain", "--depth", "3")
    assert done.code == 2
    assert done.out == ""
    assert "no residual block" in done.err
    assert "hint:" in done.err


def test_a_gradient_that_is_not_finite_has_no_range(run: Callable[..., Result]) -> None:
    """No length carries 95 % of a NaN: ``null``, as every number that is not there."""
    options = ["--init", "{normal: {std: 1000}}", "--activation", "relu", "--depth", "200"]
    done = run("paths", "residual", "--width", "8", *options, "--format", "json")
    assert done.code == 0
    body = json.loads(done.out)
    assert body["gradient_norm"] is None
    assert body["mean_length"] is None
    assert body["effective"] is None


PEAK = """
import resource, sys
from gradprobe.cli.main import main
from gradprobe.model.subject import subject_of
try:
    main(["paths", "residual", "--depth", "1000", "--format", "json"])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.mark.slow
def test_a_thousand_blocks_within_4_gib() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK],
        capture_output=True,
        check=False,
        timeout=1800,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stderr.split()[-1]) * unit < 4 * 2**30
    body = json.loads(done.stdout)
    assert body["blocks"] == 1000
    assert len(body["groups"]) == 1001
    assert body["groups"][500]["paths"] == math.comb(1000, 500)
    assert body["error"] < 1e-10
