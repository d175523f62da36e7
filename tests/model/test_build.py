"""From spec to module: seeds, initialisation, semantics against hand-written torch, caps."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.commands import Result
from torch import Tensor, nn

import gradprobe
from gradprobe.errors import InputError, ModelError
from gradprobe.model.build import Network, build
from gradprobe.model.layers import LAYER_CLASSES
from gradprobe.model.plan import INFERENCES, plan
from gradprobe.spec.layers import LAYERS
from gradprobe.spec.network import NetworkSpec
from gradprobe.spec.options import Limits
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.spec.sources.stack import load as load_stack
from gradprobe.spec.vocabulary import INITS, layer_arguments

F64 = torch.float64
Parse = Callable[[str], NetworkSpec]


def net(parse: Parse, layers: str, shape: str = "[8]", top: str = "", **options: Any) -> Network:
    return build(parse(f"input: {{shape: {shape}}}\nlayers: {layers}\n{top}"), **options)


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in network.named_parameters()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=F64)


# ---- seeds

MIXED = """[
  Linear: {out_features: 8, init: {weight: orthogonal}},
  repeat: {times: 3, layers: [residual: [LayerNorm, Linear: {out_features: 8}, GELU]]},
  concat: [[Linear: {out_features: 4}], [Linear: {out_features: 4, init: {weight: sparse_}}]],
  Linear: {out_features: 3}]""".replace("sparse_", "{sparse: {sparsity: 0.5}}")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(parse: Parse) -> None:
    one, again, other = (weights(net(parse, MIXED, seed=seed)) for seed in (7, 7, 8))
    assert same(one, again)
    assert not any(torch.equal(w, other[name]) for name, w in one.items() if w.dim() > 1)


def test_the_same_seed_gives_the_same_bytes_in_threads(parse: Parse) -> None:
    spec = parse(f"input: {{shape: [8]}}\nlayers: {MIXED}")
    expected = {seed: weights(build(spec, seed=seed)) for seed in range(4)}
    found: dict[int, dict[str, Tensor]] = {}

    def work(seed: int) -> None:
        found[seed] = weights(build(spec, seed=seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(found[seed], expected[seed]) for seed in expected)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_in_another_process(
    run: Callable[..., Result], run_process: Callable[..., Result]
) -> None:
    arguments = ["probe", "residual", "--depth", "3", "--seed", "5", "--format", "json"]
    assert run_process(*arguments).out == run(*arguments).out


def test_building_neither_uses_nor_heeds_the_global_random_state(parse: Parse) -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        results.append(weights(net(parse, MIXED)))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert same(*results)


def test_an_init_without_memory_is_no_fault_of_the_specs(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*arguments: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(torch.nn.init, "orthogonal_", no_memory)
    spec = parse(
        "input: {shape: [8]}\nlayers: [Linear: {out_features: 8, init: {weight: orthogonal}}]"
    )
    with pytest.raises(ModelError, match=r"could not be built: .*memory"):
        gradprobe.probe(spec)


def test_a_build_that_fails_hands_the_random_state_back(parse: Parse) -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(gradprobe.InputError):
        net(parse, "[Linear: {out_features: 8, init: {bias: orthogonal}}]")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_layer_added_at_the_end_changes_no_earlier_weight(parse: Parse) -> None:
    head = "Linear: {out_features: 3}"
    short = weights(net(parse, MIXED))
    long = weights(net(parse, MIXED.replace(head, f"{head}, Tanh, Linear: {{out_features: 5}}")))
    assert same(short, {name: long[name] for name in short})


def test_more_blocks_leave_the_first_ones_alone(parse: Parse) -> None:
    few, many = (weights(net(parse, MIXED.replace("times: 3", f"times: {n}"))) for n in (3, 9))
    blocks = [name for name in few if name.startswith("1.")]
    assert blocks
    assert all(torch.equal(few[name], many[name]) for name in blocks)


def test_blocks_do_not_share_their_draws(parse: Parse) -> None:
    network = net(parse, "[repeat: {times: 3, layers: [Linear: {out_features: 8}]}]")
    first, second, third = (w for n, w in weights(network).items() if "weight" in n)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "rms"])
@pytest.mark.parametrize("activation", ["relu", "prelu"])
def test_plain_and_residual_share_their_weights(norm: str, activation: str) -> None:
    options = StackOptions(depth=4, width=8, activation=activation, norm=norm)
    plain, residual = (weights(build(load_stack(n, options))) for n in ("plain", "residual"))
    assert same(plain, residual)
    assert "1.3.0.weight" in plain


@pytest.mark.parametrize("dtype", [F64, torch.bfloat16])
def test_another_dtype_is_a_cast_of_the_same_weights(parse: Parse, dtype: torch.dtype) -> None:
    single, other = weights(net(parse, MIXED)), weights(net(parse, MIXED, dtype=dtype))
    assert all(w.dtype is dtype for w in other.values())
    assert same({name: w.to(dtype) for name, w in single.items()}, other)


def test_the_global_default_dtype_does_not_show(parse: Parse) -> None:
    expected = weights(net(parse, MIXED))
    torch.set_default_dtype(F64)
    try:
        assert same(weights(net(parse, MIXED)), expected)
    finally:
        torch.set_default_dtype(torch.float32)


# ---- initialisation

WIDE = "Linear: {out_features: 400}"


def moments(w: Tensor) -> tuple[float, float]:
    return float(w.mean()), float(w.std())


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("Linear", "out_features: 200"),
        ("Conv2d", "out_channels: 40, kernel_size: 3"),
        ("Embedding", "embedding_dim: 50"),
        ("LSTM", "hidden_size: 60"),
        ("MultiheadAttention", "num_heads: 4"),
        ("LayerNorm", "eps: 1.0e-5"),
        ("BatchNorm2d", "eps: 1.0e-5"),
    ],
)
def test_without_an_init_the_distribution_is_torch_s_own(
    parse: Parse, kind: str, arguments: str
) -> None:
    shapes = {"Conv2d": "[16, 8, 8]", "LSTM": "[5, 64]", "MultiheadAttention": "[5, 64]"}
    shape = shapes.get(kind, "[16, 8, 8]" if "2d" in kind else "[64]")
    tokens = ", tokens: 300" if kind == "Embedding" else ""
    text = f"input: {{shape: {shape}{tokens}}}\nlayers: [{kind}: {{{arguments}}}]"
    network = build(parse(text))
    torch.manual_seed(0)
    built = network.get_submodule("0")
    resolved = plan(parse(text), 2).layers[0].arguments
    twin = getattr(nn, kind)(**{k: v for k, v in resolved.items() if k != "causal"})
    theirs = weights(twin)
    assert weights(built).keys() == theirs.keys()
    for name, w in weights(built).items():
        mean, std = moments(theirs[name])
        assert moments(w) == pytest.approx((mean, std), rel=0.12, abs=0.03 + 0.12 * std)
        assert float(w.abs().max()) == pytest.approx(float(theirs[name].abs().max()), rel=0.25)


def test_torch_s_default_for_linear_is_uniform_within_one_over_root_n(parse: Parse) -> None:
    network = net(parse, f"[{WIDE}]", "[300]")
    for w in weights(network).values():
        assert float(w.abs().max()) == pytest.approx(1 / math.sqrt(300), rel=0.02)
        assert float(w.std()) == pytest.approx(1 / math.sqrt(3 * 300), rel=0.05)


N, M = 300, 400  # fan in, fan out
MOMENTS: dict[str, tuple[str, Callable[[Tensor], bool]]] = {
    "zeros": ("zeros", lambda w: not w.any()),
    "ones": ("ones", lambda w: bool((w == 1).all())),
    "constant": ("{constant: {val: 0.25}}", lambda w: bool((w == 0.25).all())),
    "uniform": (
        "{uniform: {a: -2, b: 4}}",
        lambda w: near(w, 1, math.sqrt(3)) and w.min() >= -2 and w.max() <= 4,
    ),
    "normal": ("{normal: {mean: 0.5, std: 0.1}}", lambda w: near(w, 0.5, 0.1)),
    "trunc_normal": (
        "{trunc_normal: {std: 1.0, a: -0.5, b: 0.5}}",
        lambda w: near(w, 0, 0.283) and w.abs().max() <= 0.5,
    ),
    "xavier_uniform": (
        "xavier_uniform",
        lambda w: near(w, 0, math.sqrt(2 / (N + M))) and w.abs().max() <= math.sqrt(6 / (N + M)),
    ),
    "xavier_normal": (
        "{xavier_normal: {gain: 2}}",
        lambda w: near(w, 0, 2 * math.sqrt(2 / (N + M))),
    ),
    "kaiming_uniform": (
        "{kaiming_uniform: {mode: fan_out}}",
        lambda w: near(w, 0, math.sqrt(2 / M)) and w.abs().max() <= math.sqrt(6 / M),
    ),
    "kaiming_normal": ("kaiming_normal", lambda w: near(w, 0, math.sqrt(2 / N))),
    "orthogonal": (
        "{orthogonal: {gain: 3}}",
        lambda w: torch.allclose(w.T @ w, 9 * torch.eye(N, dtype=w.dtype), atol=1e-4),
    ),
    "eye": ("eye", lambda w: torch.equal(w, torch.eye(M, N, dtype=w.dtype))),
    "sparse": (
        "{sparse: {sparsity: 0.25, std: 2}}",
        lambda w: bool(((w == 0).sum(0) == M // 4).all()) and near(w[w != 0], 0, 2),
    ),
    "dirac": ("dirac", lambda w: True),  # of convolutions: below
    "variance_scaling": ("variance_scaling", lambda w: near(w, 0, math.sqrt(1 / N))),
}


def near(w: Tensor, mean: float, std: float) -> bool:
    found = moments(w)
    return found == pytest.approx((mean, std), rel=0.03, abs=0.03 * std)


@pytest.mark.parametrize("name", sorted(set(INITS) - {"dirac"}))
def test_every_init_does_what_it_is_named_for(parse: Parse, name: str) -> None:
    text, holds = MOMENTS[name]
    network = net(parse, f"[Linear: {{out_features: {M}, init: {{weight: {text}}}}}]", f"[{N}]")
    assert holds(network.get_submodule("0").weight.detach())


def test_every_init_is_tried() -> None:
    assert set(MOMENTS) == set(INITS)


def test_a_dirac_convolution_is_the_identity(parse: Parse) -> None:
    conv = (
        "Conv2d: {out_channels: 3, kernel_size: 3, padding: 1, init: {weight: dirac, bias: zeros}}"
    )
    network = net(parse, f"[{conv}]", "[3, 6, 6]", dtype=F64)
    x = randn(2, 3, 6, 6)
    assert torch.equal(network(x), x)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize(("mode", "fan"), [("fan_in", N), ("fan_out", M), ("fan_avg", (N + M) / 2)])
@pytest.mark.parametrize("scale", [0.5, 9.0])
def test_variance_scaling_has_the_variance_that_keras_says(
    parse: Parse, distribution: str, mode: str, fan: float, scale: float
) -> None:
    init = f"{{variance_scaling: {{scale: {scale}, mode: {mode}, distribution: {distribution}}}}}"
    network = net(parse, f"[Linear: {{out_features: {M}, init: {{weight: {init}}}}}]", f"[{N}]")
    w = network.get_submodule("0").weight.detach().double()
    std = math.sqrt(scale / fan)
    assert near(w, 0, std)
    kurtosis = float((w**4).mean() / (w**2).mean() ** 2)
    assert kurtosis == pytest.approx(3 if distribution == "normal" else 9 / 5, rel=0.05)
    if distribution == "uniform":
        assert float(w.abs().max()) <= math.sqrt(3) * std


def test_variance_scaling_counts_a_convolution_s_fans_with_its_kernel(parse: Parse) -> None:
    init = "{variance_scaling: {scale: 2, mode: fan_out}}"
    conv = f"Conv2d: {{out_channels: 64, kernel_size: 3, init: {{weight: {init}}}}}"
    network = net(parse, f"[{conv}]", "[32, 8, 8]")
    assert near(network.get_submodule("0").weight.detach(), 0, math.sqrt(2 / (64 * 9)))


def test_an_init_by_class_holds_for_each_of_its_layers_and_a_layer_s_own_wins(parse: Parse) -> None:
    layers = f"[{WIDE}, Linear: {{out_features: 9, init: {{weight: ones}}}}, LayerNorm]"
    top = "init: {Linear: {weight: {constant: {val: 3}}, bias: zeros}, LayerNorm: {bias: ones}}"
    w = weights(net(parse, layers, "[8]", top))
    assert {name: float(p.flatten()[0]) for name, p in w.items()} == {
        "0.weight": 3.0,
        "0.bias": 0.0,
        "1.weight": 1.0,
        "1.bias": 0.0,
        "2.weight": 1.0,
        "2.bias": 1.0,
    }


def test_an_init_names_a_parameter_or_a_word_of_it_and_the_longest_name_wins(parse: Parse) -> None:
    inits = "weight: zeros, weight_hh: ones, bias_ih_l0: {constant: {val: 2}}"
    w = weights(net(parse, f"[LSTM: {{hidden_size: 3, init: {{{inits}}}}}]", "[4, 8]"))
    assert not w["0.weight_ih_l0"].any()
    assert (w["0.weight_hh_l0"] == 1).all()
    assert (w["0.bias_ih_l0"] == 2).all()
    assert w["0.bias_hh_l0"].any()


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("{weigth: zeros}", ["weigth", "weight, bias"]),
        ("{bias: orthogonal}", ["orthogonal", "0.bias"]),
        ("{weight: {variance_scaling: {mode: fan_on}}}", ["fan_on", "fan_in"]),
        ("{weight: {variance_scaling: {distribution: gauss}}}", ["gauss", "normal"]),
        ("{weight: {variance_scaling: {scale: -1}}}", ["negative"]),
        ("{weight: {kaiming_normal: {nonlinearity: nonsense}}}", ["nonsense"]),
    ],
)
def test_an_init_that_torch_refuses_is_an_error_with_its_place(
    parse: Parse, init: str, words: list[str]
) -> None:
    with pytest.raises(gradprobe.InputError) as caught:
        net(parse, f"\n  - Linear: {{out_features: 4, init: {init}}}")
    assert str(caught.value).startswith("net.yaml:3:")
    assert all(word in str(caught.value) for word in words)


# ---- zero_init: the identity, bit for bit

LIN = "Linear: {out_features: 8}"
VECTORS, SEQUENCE, IMAGES = "[8]", "[5, 8]", "[4, 6, 6]"
CONV = "Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}"
BRANCHES = {
    "Linear": (VECTORS, "[Linear: {out_features: 16}, GELU, Linear: {out_features: 8}]"),
    "ends in Tanh": (VECTORS, "[Linear: {out_features: 8}, Tanh]"),
    "ends in ReLU": (VECTORS, "[LayerNorm, Linear: {out_features: 8}, ReLU, Dropout]"),
    "ends in BatchNorm": (VECTORS, "[Linear: {out_features: 8}, BatchNorm1d]"),
    "BatchNorm, ReLU": (VECTORS, "[Linear: {out_features: 8}, BatchNorm1d, ReLU]"),
    "ends in LayerNorm": (VECTORS, "[Linear: {out_features: 8}, LayerNorm]"),
    "norm without weights": (
        VECTORS,
        "[Linear: {out_features: 8}, LayerNorm: {elementwise_affine: false}]",
    ),
    "attention": (SEQUENCE, "[LayerNorm, MultiheadAttention: {num_heads: 2}]"),
    "encoder layer": (SEQUENCE, "[TransformerEncoderLayer: {nhead: 2, dim_feedforward: 8}]"),
    "LSTM": (SEQUENCE, "[LSTM: {hidden_size: 8}]"),
    "GRU": (SEQUENCE, "[GRU: {hidden_size: 8}]"),
    "convolution": (IMAGES, f"[{CONV}, ReLU, {CONV}]"),
    "BatchNorm2d": (IMAGES, f"[{CONV}, BatchNorm2d, ReLU, {CONV}, BatchNorm2d]"),
    "GroupNorm": (IMAGES, f"[{CONV}, GroupNorm: {{num_groups: 2}}]"),
    "nested": (VECTORS, f"[sequential: [{LIN}, repeat: {{times: 2, layers: [{LIN}]}}]]"),
    "residual inside": (VECTORS, f"[{LIN}, residual: [{LIN}], {LIN}]"),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_a_zero_branch_passes_output_and_gradient_bit_for_bit(parse: Parse, name: str) -> None:
    shape, branch = BRANCHES[name]
    network = net(parse, f"[residual: {{layers: {branch}, zero_init: true}}]", shape)
    x = torch.randn(3, *(int(n) for n in shape[1:-1].split(",")), requires_grad=True)
    arriving = torch.randn_like(x)
    out = network(x)
    assert torch.equal(out, x)
    (gradient,) = torch.autograd.grad(out, x, arriving)
    assert torch.equal(gradient, arriving)


def test_zero_init_touches_nothing_but_what_comes_last(parse: Parse) -> None:
    layers = "[residual: {layers: [LayerNorm, MultiheadAttention: {num_heads: 2}], ZERO}]"
    zeroed = weights(net(parse, layers.replace("ZERO", "zero_init: true"), SEQUENCE))
    plain = weights(net(parse, layers.replace("ZERO", "skip_scale: 1"), SEQUENCE))
    changed = {name for name, w in zeroed.items() if not torch.equal(w, plain[name])}
    assert changed == {"0.1.out_proj.weight"}
    assert not zeroed["0.1.out_proj.weight"].any()


def test_a_deep_stack_of_zero_branches_has_a_reach_of_exactly_one() -> None:
    options = StackOptions(depth=60, width=16, activation="tanh", zero_init=True)
    report = gradprobe.probe(load_stack("residual", options))
    assert {report.profile.reach_of(r) for r in report.profile.trunk} == {1.0}


@pytest.mark.parametrize("ending", ["Sigmoid", "Softplus", "Softmax: {dim: -1}", "LogSigmoid"])
def test_a_branch_that_cannot_end_in_zero_is_refused(parse: Parse, ending: str) -> None:
    branch = f"[Linear: {{out_features: 8}}, {ending}]"
    with pytest.raises(gradprobe.InputError, match=ending.split(":")[0]):
        net(
            parse, f"[residual: {{layers: {branch}, zero_init: true}}, Linear: {{out_features: 2}}]"
        )


def test_zero_init_of_a_branch_without_parameters_is_refused(parse: Parse) -> None:
    with pytest.raises(gradprobe.InputError, match="no parameters"):
        net(parse, "[Linear: {out_features: 8}, residual: {layers: [ReLU, Tanh], zero_init: true}]")


# What may stand behind the last layer with weights without changing shapes.
FOLLOWERS = sorted(
    kind
    for kind in set(LAYERS) - {"Flatten", "GLU", "Embedding", "RNNCell", "GRUCell"}
    if not any(a.required or a.inferred for a in layer_arguments(kind).values())
    and kind not in ("Softmax2d", "Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d")
)


@pytest.mark.filterwarnings("ignore")  # of torch, about shapes and dimensions
@pytest.mark.parametrize("kind", FOLLOWERS)
def test_zero_init_refuses_exactly_the_layers_that_do_not_map_zero_to_zero(
    parse: Parse, kind: str
) -> None:
    text = f"[residual: {{layers: [{LIN}, {kind}], zero_init: true}}]"
    torch.manual_seed(0)
    if getattr(nn, kind)()(torch.zeros(2, 6, 8)).any():
        with pytest.raises(gradprobe.InputError, match=kind):
            net(parse, text, "[6, 8]")
    else:
        x = torch.randn(2, 6, 8)
        assert torch.equal(net(parse, text, "[6, 8]")(x), x)


# ---- what the combinations mean, against hand-written torch


def test_a_network_is_its_layers_one_after_another(parse: Parse) -> None:
    network = net(
        parse,
        "[Linear: {out_features: 5}, Tanh, Linear: {out_features: 2, bias: false}]",
        dtype=F64,
    )
    x, w = randn(3, 8), weights(network)
    hidden = torch.tanh(F.linear(x, w["0.weight"], w["0.bias"]))
    assert torch.equal(network(x), F.linear(hidden, w["2.weight"]))


@pytest.mark.parametrize(
    ("options", "by_hand"),
    [
        ("", lambda x, f: x + f),
        ("skip_scale: 0.5", lambda x, f: 0.5 * x + f),
        ("branch_scale: 0.25", lambda x, f: x + 0.25 * f),
        ("skip_scale: 0.7, branch_scale: -2", lambda x, f: 0.7 * x - 2 * f),
        ("skip_scale: 0", lambda x, f: f),
        ("branch_scale: 0", lambda x, f: x),
    ],
)
def test_a_residual_is_the_scaled_skip_plus_the_scaled_branch(
    parse: Parse, options: str, by_hand: Callable[[Tensor, Tensor], Tensor]
) -> None:
    keys = f", {options}" if options else ""
    layers = f"[residual: {{layers: [Linear: {{out_features: 8}}, Tanh]{keys}}}]"
    network = net(parse, layers, dtype=F64)
    x, w = randn(3, 8), weights(network)
    branch = torch.tanh(F.linear(x, w["0.0.weight"], w["0.0.bias"]))
    assert torch.allclose(network(x), by_hand(x, branch), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "shortcut", ["{Linear: {out_features: 3}}", "[Tanh, Linear: {out_features: 3}]"]
)
def test_a_shortcut_stands_in_for_the_skip(parse: Parse, shortcut: str) -> None:
    layers = f"[residual: {{layers: [Linear: {{out_features: 3}}], shortcut: {shortcut}}}]"
    network = net(parse, layers, dtype=F64)
    x, w = randn(4, 8), weights(network)
    through = torch.tanh(x) if "Tanh" in shortcut else x
    name = "0.shortcut.1" if "Tanh" in shortcut else "0.shortcut"
    skip = F.linear(through, w[f"{name}.weight"], w[f"{name}.bias"])
    branch = F.linear(x, w["0.0.weight"], w["0.0.bias"])
    assert torch.allclose(network(x), skip + branch, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("dim", "axis"), [("", 1), (", dim: 2", 2), (", dim: -1", -1)])
def test_concat_joins_the_branches_and_an_empty_one_is_the_input(
    parse: Parse, dim: str, axis: int
) -> None:
    layers = f"[concat: {{branches: [[Linear: {{out_features: 8}}], []]{dim}}}]"
    network = net(parse, layers, "[3, 8]", dtype=F64)
    x, w = randn(2, 3, 8), weights(network)
    [weight, bias] = w.values()
    assert torch.equal(network(x), torch.cat([F.linear(x, weight, bias), x], axis))


def test_sizes_follow_through_a_concat(parse: Parse) -> None:
    network = net(parse, "[concat: [[Linear: {out_features: 3}], []], Linear: {out_features: 2}]")
    assert network.get_submodule("1").in_features == 11


def test_repeats_nest_and_number_their_rows(parse: Parse) -> None:
    inner = "repeat: {times: 2, layers: [Linear: {out_features: 8}, Tanh]}"
    network = net(
        parse, f"[repeat: {{times: 3, layers: [{inner}, ReLU]}}, Linear: {{out_features: 2}}]"
    )
    assert [row.name for row in network.rows] == ["0.0", "0.1", "0.2", "1"]
    names = [name for name in weights(network) if "weight" in name]
    assert names[:3] == ["0.0.0.0.0.weight", "0.0.0.1.0.weight", "0.1.0.0.0.weight"]
    x = torch.randn(2, 8)
    expected = x
    for name in names[:-1]:
        layer = network.get_submodule(name.removesuffix(".weight"))
        expected = torch.tanh(layer(expected))
        expected = torch.relu(expected) if name.endswith("0.1.0.weight") else expected
    assert torch.allclose(network(x), network.get_submodule("1")(expected))


def test_a_repeat_that_changes_the_shape_is_planned_anew_each_time(parse: Parse) -> None:
    branch = "concat: [[Linear: {out_features: 2}], []]"
    network = net(parse, f"[repeat: {{times: 3, layers: [{branch}]}}]", "[4]")
    sizes = [p.shape[1] for name, p in network.named_parameters() if "weight" in name]
    assert sizes == [4, 6, 8]


def test_a_layer_s_name_is_its_path(parse: Parse) -> None:
    layers = """[Linear: {out_features: 8, name: stem}, repeat: {name: body, times: 2, layers: [
      residual: {name: mix, layers: [Linear: {out_features: 8, name: fc}]}]},
      sequential: {name: tail, layers: [Tanh, Linear: {out_features: 2}]}]"""
    network = net(parse, layers)
    assert [row.name for row in network.rows] == ["stem", "body.0", "body.1", "tail"]
    assert list(weights(network))[2] == "body.0.mix.fc.weight"
    assert network.get_submodule("tail.1").out_features == 2


def test_each_row_and_each_leaf_knows_its_line(parse: Parse) -> None:
    text = """input: {shape: [8]}
layers:
  - Linear: {out_features: 8}
  - repeat:
      times: 2
      layers:
        - residual:
            - LayerNorm
            - Linear: {out_features: 8}
  - Linear: {out_features: 2}
"""
    network = build(parse(text))
    assert [(row.name, row.line) for row in network.rows] == [
        ("0", 3),
        ("1.0", 7),
        ("1.1", 7),
        ("2", 10),
    ]
    rows = gradprobe.probe(network, torch.randn(2, 8), level="leaves").rows
    assert {r.name: r.line for r in rows}["1.1.1"] == 9


# ---- attention and recurrent layers

CAUSAL = {
    "attention": "MultiheadAttention: {num_heads: 2, causal: true}",
    "encoder": "TransformerEncoderLayer: {nhead: 2, dim_feedforward: 8, causal: true}",
    "RNN": "RNN: {hidden_size: 8}",
    "LSTM": "LSTM: {hidden_size: 8, num_layers: 2}",
    "GRU": "GRU: {hidden_size: 8}",
}
NOT_CAUSAL = {
    "attention": "MultiheadAttention: {num_heads: 2}",
    "encoder": "TransformerEncoderLayer: {nhead: 2, dim_feedforward: 8}",
    "both ways": "GRU: {hidden_size: 4, bidirectional: true}",
}


def influence(network: nn.Module, position: int) -> list[bool]:
    """Which positions of the output depend on one position of the input."""
    x, direction = randn(1, 5, 8).requires_grad_(), randn(3, 8)[2]  # not the sum: a norm fixes it
    influences = []
    for value in network(x)[0] @ direction:
        (gradient,) = torch.autograd.grad(value, x, retain_graph=True)
        influences.append(bool(gradient[0, position].abs().max() > 1e-12))
    return influences


@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_layer_sees_nothing_to_come(parse: Parse, name: str) -> None:
    network = net(parse, f"[{CAUSAL[name]}]", "[5, 8]", dtype=F64)
    assert influence(network, 2) == [False, False, True, True, True]


@pytest.mark.parametrize("name", NOT_CAUSAL)
def test_without_causal_all_positions_see_each_other(parse: Parse, name: str) -> None:
    network = net(parse, f"[{NOT_CAUSAL[name]}]", "[5, 8]", dtype=F64)
    assert influence(network, 2) == [True] * 5


def test_attention_is_torch_s_own_of_a_sequence_with_itself(parse: Parse) -> None:
    network = net(parse, "[MultiheadAttention: {num_heads: 2}]", "[5, 8]", dtype=F64)
    twin = nn.MultiheadAttention(8, 2, batch_first=True, dtype=F64)
    twin.load_state_dict(network.get_submodule("0").state_dict())
    x = randn(3, 5, 8)
    assert torch.allclose(network(x), twin(x, x, x)[0], rtol=1e-12)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_recurrent_layer_hands_on_its_sequence(parse: Parse, kind: str) -> None:
    network = net(parse, f"[{kind}: {{hidden_size: 6}}]", "[5, 8]", dtype=F64)
    twin = getattr(nn, kind)(8, 6, batch_first=True, dtype=F64)
    twin.load_state_dict(network.get_submodule("0").state_dict())
    x = randn(3, 5, 8)
    assert torch.equal(network(x), twin(x)[0])


# ---- sizes that follow from the input

INFERRED = {  # argument: layer, shape of the input, value
    "in_features": ("Linear: {out_features: 3}", "[5, 7]", 7),
    "in_channels": ("Conv1d: {out_channels: 3, kernel_size: 2}", "[5, 7]", 5),
    "num_features": ("BatchNorm1d", "[5, 7]", 5),
    "num_channels": ("GroupNorm: {num_groups: 5}", "[5, 7]", 5),
    "normalized_shape": ("LayerNorm", "[5, 7]", 7),
    "embed_dim": ("MultiheadAttention: {num_heads: 2}", "[5, 8]", 8),
    "d_model": ("TransformerEncoderLayer: {nhead: 2}", "[5, 8]", 8),
    "input_size": ("GRU: {hidden_size: 3}", "[5, 7]", 7),
    "num_embeddings": ("Embedding: {embedding_dim: 3}", "[5], tokens: 11", 11),
}


@pytest.mark.parametrize("argument", INFERRED)
def test_a_size_that_was_left_out_follows_from_the_input(parse: Parse, argument: str) -> None:
    layer, shape, value = INFERRED[argument]
    spec = parse(f"input: {{shape: {shape}}}\nlayers: [{layer}]")
    assert plan(spec, 2).layers[0].arguments[argument] == value
    build(spec)


@pytest.mark.parametrize("layer", ["BatchNorm1d", "GroupNorm: {num_groups: 7}"])
def test_vectors_have_as_many_channels_as_features(parse: Parse, layer: str) -> None:
    """A batch of them has two dimensions, and no other that would be the channels'."""
    build(parse(f"input: {{shape: [7]}}\nlayers: [{layer}]"))


def test_every_inferred_argument_is_tried() -> None:
    inferred = {a.name for kind in LAYERS for a in layer_arguments(kind).values() if a.inferred}
    assert set(INFERRED) == inferred == set(INFERENCES) | {"num_embeddings"}


@pytest.mark.parametrize("argument", sorted(set(INFERRED) - {"num_embeddings"}))
def test_a_size_that_contradicts_the_input_is_refused(parse: Parse, argument: str) -> None:
    layer, shape, value = INFERRED[argument]
    kind, _, body = layer.partition(": ")
    wrong = f"{kind}: {{{argument}: {value + 1}{', ' + body[1:-1] if body else ''}}}"
    with pytest.raises(gradprobe.InputError) as caught:
        build(parse(f"input: {{shape: {shape}}}\nlayers: [{wrong}]"))
    assert f"{argument} is {value + 1}" in str(caught.value)
    assert f"gives {value}" in str(caught.value)


def test_a_size_that_agrees_with_the_input_may_be_written_out(parse: Parse) -> None:
    network = net(
        parse, "[Linear: {in_features: 8, out_features: 3}, LayerNorm: {normalized_shape: 3}]"
    )
    assert network.get_submodule("0").in_features == 8
    conv = "Conv2d: {out_channels: 2, kernel_size: 1}"
    net(parse, f"[{conv}, LayerNorm: {{normalized_shape: [2, 4, 4]}}]", "[3, 4, 4]")


def test_an_embedding_may_hold_more_tokens_than_the_input_draws(parse: Parse) -> None:
    network = net(parse, "[Embedding: {num_embeddings: 20, embedding_dim: 3}]", "[5], tokens: 11")
    assert network.get_submodule("0").num_embeddings == 20
    with pytest.raises(gradprobe.InputError, match="num_embeddings is 10"):
        net(parse, "[Embedding: {num_embeddings: 10, embedding_dim: 3}]", "[5], tokens: 11")


@pytest.mark.parametrize("kind", [k for k in LAYERS if k.startswith(("BatchNorm", "InstanceNorm"))])
def test_channels_come_first_for_norms_over_the_batch(parse: Parse, kind: str) -> None:
    shape = [5, 4, 3, 2][: 1 + int(kind[-2])]
    network = net(parse, f"[Identity, {kind}: {{affine: true}}]", str(shape))
    assert network.get_submodule("1").num_features == 5


# ---- errors that name both layers and their lines

ERRORS = [
    (
        "[8]",
        "\n  - Linear: {out_features: 5}\n  - Tanh\n  - Linear: {in_features: 6, out_features: 2}",
        ["net.yaml:5:", "Linear: in_features is 6", "Tanh (line 4) gives 5", "leave 'in_features'"],
    ),
    (
        "[8]",
        "\n  - Linear: {out_features: 5}\n  - Conv2d: {out_channels: 2, kernel_size: 3}",
        ["net.yaml:4:", "Conv2d", "Linear (line 3)", "shape [5]"],
    ),
    (
        "[8]",
        "\n  - residual:\n    - Linear: {out_features: 5}\n  - Linear: {out_features: 2}",
        ["net.yaml:3:", "Linear ends in shape [5]", "the skip in shape [8]", "shortcut"],
    ),
    (
        "[3, 8, 8]",
        "\n  - concat: [[Conv2d: {out_channels: 2, kernel_size: 3}], []]\n  - Flatten",
        ["net.yaml:3:", "concat", "[2, 6, 6]", "[3, 8, 8]", "dim 1"],
    ),
    (
        "[3, 4, 4]",
        "\n  - Conv2d: {out_channels: 2, kernel_size: 5}",
        ["net.yaml:3:", "Conv2d", "the input", "shape [3, 4, 4]"],
    ),
    (
        "[5, 8]",
        "\n  - MultiheadAttention: {num_heads: 3}",
        ["net.yaml:3:", "MultiheadAttention", "divisible"],
    ),
    (
        "[8], tokens: 9",
        "\n  - Linear: {out_features: 2}",
        ["net.yaml:3:", "floating point", "Embedding"],
    ),
    ("[8]", "\n  - Embedding: {embedding_dim: 2}", ["net.yaml:3:", "integer tokens", "tokens: "]),
    ("[8]", "\n  - ReLU\n  - Dropout", ["net.yaml:3:", "no trainable parameters"]),
    (
        "[3, 4, 4]",
        "\n  - MaxPool2d: {kernel_size: 2, stride: 2}\n  - AvgPool2d: {kernel_size: 4}",
        ["net.yaml:4:", "AvgPool2d", "MaxPool2d (line 3)"],
    ),
]


@pytest.mark.parametrize(("shape", "layers", "words"), ERRORS)
def test_an_error_names_the_layers_the_lines_and_the_shapes(
    parse: Parse, shape: str, layers: str, words: list[str]
) -> None:
    with pytest.raises(gradprobe.InputError) as caught:
        net(parse, layers, shape)
    text = str(caught.value)
    assert [word for word in words if word not in text] == []
    assert "^" in text.splitlines()[2]


def test_a_batch_norm_over_one_sample_says_so(parse: Parse) -> None:
    with pytest.raises(gradprobe.InputError, match="the batch has one sample"):
        net(parse, "[Linear: {out_features: 4}, BatchNorm1d]", batch_size=1)


# ---- caps


def refused(parse: Parse, layers: str, shape: str = "[64]", **limits: int) -> str:
    with pytest.raises(gradprobe.InputError) as caught:
        net(parse, layers, shape, limits=Limits(**limits))
    return str(caught.value)


def test_too_many_parameters_are_refused_with_the_count_and_the_place(parse: Parse) -> None:
    text = refused(parse, "\n  - Tanh\n  - Linear: {out_features: 1000}", parameters=64_999)
    assert "65,000 parameters" in text
    assert "net.yaml:4:" in text
    assert "--max-parameters is 64,999" in text
    net(parse, "[Linear: {out_features: 1000}]", "[64]", limits=Limits(parameters=65_000))


def test_too_much_memory_is_refused_before_it_is_allocated(parse: Parse) -> None:
    text = refused(parse, "[Linear: {out_features: 1000000}]", "[1000000]")
    assert "3.6 TiB" in text
    assert "--max-memory is 8 GiB" in text
    text = refused(parse, "[Linear: {out_features: 1000}]", memory=100_000)
    assert "need" in text


def test_activations_count_towards_memory(parse: Parse) -> None:
    conv = "Conv2d: {out_channels: 64, kernel_size: 3, padding: 1}"
    text = refused(parse, f"[{conv}, ReLU, {conv}]", "[64, 64, 64]", memory=5 * 2**20)
    assert "activations" in text


@pytest.mark.parametrize("batch", [1, 7, 32])
def test_memory_is_each_output_its_gradient_and_each_parameter_in_four_bytes(
    parse: Parse, batch: int
) -> None:
    layers = """
  - Linear: {out_features: 16}
  - residual: [Tanh, Linear: {out_features: 16}]
  - Linear: {out_features: 4}"""
    numbers = 0

    def count(module: nn.Module, arguments: object, output: Tensor) -> None:
        nonlocal numbers
        numbers += output.numel()

    network = net(parse, layers, batch_size=batch)
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    network(torch.zeros(batch, 8))
    needed = 4 * (2 * numbers + sum(p.numel() for p in network.parameters()))
    net(parse, layers, batch_size=batch, limits=Limits(memory=needed))
    with pytest.raises(gradprobe.InputError, match=f"activations of a batch of {batch} need"):
        net(parse, layers, batch_size=batch, limits=Limits(memory=needed - 1))


def test_a_local_response_norm_keeps_its_input_padded_by_its_size(parse: Parse) -> None:
    """Of 6 channels and 5 by 4 positions: 120 numbers, and 180 with 3 more channels."""
    layers = "[LocalResponseNorm: {size: 3}, Flatten, Linear: {out_features: 2}]"
    needed = 4 * (2 * 7 * (120 + 180 + 120 + 2) + 242)
    net(parse, layers, "[6, 5, 4]", batch_size=7, limits=Limits(memory=needed))
    with pytest.raises(gradprobe.InputError, match="activations of a batch of 7 need"):
        net(parse, layers, "[6, 5, 4]", batch_size=7, limits=Limits(memory=needed - 1))


@pytest.mark.parametrize(
    ("layer", "dropout"),
    [("MultiheadAttention: {num_heads: 4", 0.1), ("TransformerEncoderLayer: {nhead: 4", 0.5)],
)
def test_attention_that_drops_scores_keeps_them(parse: Parse, layer: str, dropout: float) -> None:
    """Of 4 heads and 5 positions 100 a sample, twice; torch was measured to."""
    text = "input: {{shape: [5, 8]}}\nlayers: [{}, dropout: {}}}]\n"
    without, given = (plan(parse(text.format(layer, p)), 7) for p in ("0.0", dropout))
    assert given.activations - without.activations == 7 * 2 * 100


def test_an_input_that_is_too_large_is_refused(parse: Parse) -> None:
    assert "input" in refused(parse, "[Linear: {out_features: 1}]", "[100000, 100000]")


def test_too_many_layers_are_refused_by_arithmetic(parse: Parse) -> None:
    inner = "repeat: {times: 1000, layers: [Linear: {out_features: 8}]}"
    with pytest.raises(gradprobe.InputError, match="50,000 layers"):
        net(parse, f"[repeat: {{times: 1000, layers: [{inner}]}}]")
    with pytest.raises(gradprobe.InputError, match="50,000 layers"):
        load_stack("plain", StackOptions(depth=10**9))


# ---- the module itself


def test_a_network_is_an_ordinary_module(parse: Parse) -> None:
    network = net(parse, MIXED)
    twin = copy.deepcopy(network)
    twin.load_state_dict(network.state_dict())
    x = torch.randn(4, 8)
    assert torch.equal(network(x), twin(x))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = float(network(x).square().mean().detach())
    for _ in range(20):
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()
    assert float(network(x).square().mean().detach()) < before


def test_layers_with_a_class_of_their_own_are_in_the_vocabulary() -> None:
    assert set(LAYER_CLASSES) <= set(LAYERS)


@pytest.mark.parametrize("name", ["made", "changed", "saved", "store", "work"])
def test_no_layer_takes_a_name_of_the_network_s_own(parse: Parse, name: str) -> None:
    spec = parse(f"input: {{shape: [4]}}\nlayers: [Linear: {{out_features: 4, name: {name}}}]\n")
    with pytest.raises(InputError, match="is taken by torch or gradprobe"):
        build(spec)
