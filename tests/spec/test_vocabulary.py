"""The tables of the spec language, held against the installed torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import nn

import gradprobe
from gradprobe.model.build import build
from gradprobe.model.layers import LAYER_CLASSES, layer_class
from gradprobe.spec.layers import LAYERS
from gradprobe.spec.network import NetworkSpec
from gradprobe.spec.vocabulary import (
    ACTIVATIONS,
    COMBINATORS,
    INITS,
    LOSSES,
    THRESHOLDS,
    TYPES,
    arguments_of,
    layer_arguments,
)

# What torch's signatures say and a spec does not: where a layer lives, and what the builder sets.
OMITTED = {"self", "device", "dtype", "args", "kwargs"}

# Every torch.nn layer that is not in LAYERS, and why.
EXCLUDED = {
    "takes two inputs": "Bilinear CosineSimilarity PairwiseDistance",
    "takes a second input beside the first": (
        "Transformer TransformerDecoder TransformerDecoderLayer MaxUnpool1d MaxUnpool2d MaxUnpool3d"
    ),
    "hands on a tuple of states": "LSTMCell",
    "is a loss": (
        "AdaptiveLogSoftmaxWithLoss BCELoss BCEWithLogitsLoss CTCLoss CosineEmbeddingLoss "
        "CrossEntropyLoss GaussianNLLLoss HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss MSELoss "
        "MarginRankingLoss MultiLabelMarginLoss MultiLabelSoftMarginLoss MultiMarginLoss NLLLoss "
        "NLLLoss2d PoissonNLLLoss SmoothL1Loss SoftMarginLoss TripletMarginLoss "
        "TripletMarginWithDistanceLoss LinearCrossEntropyLoss"
    ),
    "is a base or a container, for which a spec has words of its own": (
        "Container Module ModuleDict ModuleList ParameterDict ParameterList RNNBase RNNCellBase "
        "Sequential"
    ),
    "is built from a layer object": "TransformerEncoder",
    "runs in several processes": "DataParallel SyncBatchNorm",
    "fills its sizes in when it runs, as a spec does for the layer itself": (
        "LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d LazyConv1d LazyConv2d LazyConv3d "
        "LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d LazyInstanceNorm1d "
        "LazyInstanceNorm2d LazyInstanceNorm3d LazyLinear"
    ),
}
EXCLUDED_NAMES = {name for names in EXCLUDED.values() for name in names.split()}


def torch_layers() -> dict[str, type[nn.Module]]:
    return {
        name: found
        for name, found in vars(nn).items()
        if inspect.isclass(found) and issubclass(found, nn.Module) and not name.startswith("_")
    }


def parameters_of(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(function).parameters)
    # Conv and BatchNorm hand on what they do not name; the recurrent layers name nothing at all.
    for base in getattr(function, "__mro__", ())[1:]:
        if any(p.kind is p.VAR_KEYWORD for p in found.values()) and issubclass(base, nn.Module):
            found = {**inspect.signature(base).parameters, **found}
    return {name: p for name, p in found.items() if name not in OMITTED}


# ---- against torch


def test_every_torch_layer_is_in_the_vocabulary_or_left_out_for_a_reason() -> None:
    known = set(torch_layers())
    newer_or_older = {"LinearCrossEntropyLoss", "NLLLoss2d", "Container"}  # not in every torch
    assert set(LAYERS) <= known
    assert known - set(LAYERS) - EXCLUDED_NAMES == set()
    assert EXCLUDED_NAMES - known <= newer_or_older
    assert not EXCLUDED_NAMES & set(LAYERS)


RECURRENT = {"RNN", "LSTM", "GRU"}


@pytest.mark.parametrize("kind", LAYERS)
def test_the_arguments_of_a_layer_are_torch_s(kind: str) -> None:
    theirs = parameters_of(getattr(nn, kind))
    ours = layer_arguments(kind)
    own = {"causal"} if kind in ("MultiheadAttention", "TransformerEncoderLayer") else set()
    assert set(ours) - own <= set(theirs) | (set(ours) if kind in RECURRENT else set())
    assert set(theirs) - set(ours) <= set(LEFT_OUT.get(kind, "").split())


# Arguments of torch's that a spec cannot say: tensors, second outputs, old names, what the builder
# sets, and the normalisations' `bias`, which is younger than the oldest torch that will do.
LEFT_OUT: dict[str, str] = {
    "Embedding": "_weight _freeze sparse",
    "EmbeddingBag": "_weight sparse include_last_offset",
    "MultiheadAttention": "kdim vdim",
    "RNN": "mode input_size proj_size",
    "LSTM": "mode",
    "GRU": "mode proj_size",
    "Hardtanh": "min_value max_value",
    "GroupNorm": "bias",
    **{f"{kind}Norm{n}d": "bias" for kind in ("Batch", "Instance") for n in (1, 2, 3)},
    **{f"{kind}Pool{n}d": "return_indices" for kind in ("Max", "AdaptiveMax") for n in (1, 2, 3)},
    **{f"FractionalMaxPool{n}d": "return_indices _random_samples" for n in (2, 3)},
}


@pytest.mark.parametrize("kind", sorted(set(LAYERS) - RECURRENT))
def test_the_required_arguments_are_those_without_a_default(kind: str) -> None:
    theirs = {
        name
        for name, p in parameters_of(getattr(nn, kind)).items()
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD
    }
    ours = {a.name for a in layer_arguments(kind).values() if a.required or a.inferred}
    assert ours == theirs


@pytest.mark.parametrize("kind", sorted(RECURRENT))
def test_recurrent_layers_take_what_the_table_says(kind: str) -> None:
    values = {"size": 3, "count": 0, "float": 0.0, "bool": False, "str": "tanh"}
    arguments = {
        a.name: values[a.types[0]]
        for a in layer_arguments(kind).values()
        if a.name not in ("num_layers", "batch_first")
    }
    layer_class(kind)(**arguments)
    with pytest.raises(TypeError):
        getattr(nn, kind)()


@pytest.mark.parametrize("kind", LAYERS)
def test_the_types_of_a_layer_s_arguments_fit_its_defaults(kind: str) -> None:
    fits = {
        "size": lambda v: type(v) is int and v >= 1,
        "count": lambda v: type(v) is int and v >= 0,
        "int": lambda v: type(v) is int,
        "float": lambda v: type(v) in (int, float),
        "bool": lambda v: type(v) is bool,
        "str": lambda v: type(v) is str,
        "null": lambda v: v is None,
        "sizes": lambda v: isinstance(v, tuple),
        "counts": lambda v: isinstance(v, tuple),
        "ints": lambda v: isinstance(v, tuple),
        "floats": lambda v: isinstance(v, tuple),
    }
    theirs = parameters_of(getattr(nn, kind))
    for argument in layer_arguments(kind).values():
        assert set(argument.types) <= set(fits) == set(TYPES)
        default = theirs[argument.name].default if argument.name in theirs else inspect._empty
        if default is inspect._empty or (default is None and argument.inferred):
            continue
        if default is None or callable(default):  # leaving the argument out says it too
            continue
        assert any(fits[name](default) for name in argument.types), (argument, default)


def test_every_init_is_torch_s_and_so_are_its_arguments() -> None:
    for name, entry in INITS.items():
        if name == "variance_scaling":
            continue
        theirs = dict(inspect.signature(getattr(nn.init, f"{name}_")).parameters)
        theirs = {k: p for k, p in theirs.items() if k not in ("tensor", "generator")}
        ours = arguments_of(entry)
        assert set(ours) == set(theirs)
        required = {k for k, p in theirs.items() if p.default is p.empty}
        assert {a.name for a in ours.values() if a.required} == required


def test_every_init_of_torch_is_in_the_vocabulary() -> None:
    theirs = {
        name.removesuffix("_")
        for name, found in vars(nn.init).items()
        if inspect.isfunction(found) and name.endswith("_") and not name.startswith("_")
    }
    assert theirs == set(INITS) - {"variance_scaling"}


# ---- each layer builds and runs from the fewest words

VECTOR, SIGNAL, IMAGE, VOLUME = "[8]", "[4, 8]", "[4, 8, 8]", "[4, 8, 8, 8]"
BY_DIMENSION = {"1d": SIGNAL, "2d": IMAGE, "3d": VOLUME}
MINIMAL = {  # arguments and input, where they are not "" and what `shape_for` says
    "Linear": ("out_features: 3", VECTOR),
    "Embedding": ("embedding_dim: 3", "[5], tokens: 9"),
    "EmbeddingBag": ("embedding_dim: 3", "[5], tokens: 9"),
    **{f"Conv{n}d": ("out_channels: 3, kernel_size: 3", "") for n in (1, 2, 3)},
    **{f"ConvTranspose{n}d": ("out_channels: 3, kernel_size: 3", "") for n in (1, 2, 3)},
    "Fold": ("output_size: [3, 5], kernel_size: 2", "[8, 8]"),
    "Unfold": ("kernel_size: 2", IMAGE),
    **dict.fromkeys(("RNN", "LSTM", "GRU"), ("hidden_size: 3", SIGNAL)),
    **dict.fromkeys(("RNNCell", "GRUCell"), ("hidden_size: 3", VECTOR)),
    "MultiheadAttention": ("num_heads: 2", SIGNAL),
    "TransformerEncoderLayer": ("nhead: 2", SIGNAL),
    "GroupNorm": ("num_groups: 2", IMAGE),
    "LocalResponseNorm": ("size: 2", IMAGE),
    "CrossMapLRN2d": ("size: 3", IMAGE),
    "Threshold": ("threshold: 0.1, value: 0.0", VECTOR),
    "GLU": ("", VECTOR),
    "Softmax": ("dim: -1", VECTOR),
    "Softmin": ("dim: -1", VECTOR),
    "LogSoftmax": ("dim: -1", VECTOR),
    **{f"{kind}Pool{n}d": ("kernel_size: 2", "") for kind in ("Max", "Avg") for n in (1, 2, 3)},
    **{f"LPPool{n}d": ("norm_type: 2, kernel_size: 2", "") for n in (1, 2, 3)},
    **{f"FractionalMaxPool{n}d": ("kernel_size: 2, output_size: 4", "") for n in (2, 3)},
    **{f"Adaptive{k}Pool{n}d": ("output_size: 2", "") for k in ("Avg", "Max") for n in (1, 2, 3)},
    "Unflatten": ("dim: 1, unflattened_size: [2, 4]", VECTOR),
    "PixelShuffle": ("upscale_factor: 2", IMAGE),
    "PixelUnshuffle": ("downscale_factor: 2", IMAGE),
    "ChannelShuffle": ("groups: 2", IMAGE),
    "Upsample": ("scale_factor: 2.0", IMAGE),
    "UpsamplingNearest2d": ("scale_factor: 2.0", IMAGE),
    "UpsamplingBilinear2d": ("size: [4, 4]", IMAGE),
    **{f"{k}Pad{n}d": ("padding: 1", "") for n in (1, 2, 3) for k in
       ("Zero", "Reflection", "Replication", "Circular")},
    **{f"ConstantPad{n}d": ("padding: 1, value: 0.5", "") for n in (1, 2, 3)},
}  # fmt: skip


def minimal(kind: str) -> str:
    arguments, shape = MINIMAL.get(kind, ("", ""))
    shape = shape or BY_DIMENSION.get(kind[-2:], VECTOR)
    layer = f"{kind}: {{{arguments}}}" if arguments else kind
    tail = "Flatten, Linear: {out_features: 2}"
    # A layer in front, so that a gradient has to pass the layer itself.
    front = "" if "tokens" in shape else "Linear: {out_features: 8}, "
    return f"input: {{shape: {shape}}}\nlayers: [{front}{layer}, {tail}]"


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_builds_and_runs_from_the_fewest_words(
    parse: Callable[[str], NetworkSpec], kind: str
) -> None:
    report = gradprobe.probe(parse(minimal(kind)))
    row = report.rows[-3]
    assert row.kind == kind
    assert row.activation_rms > 0
    assert row.gradient_norm > 0
    assert report.verdict != "disconnected"
    if "tokens" not in minimal(kind):
        assert report.rows[0].gradient_norm > 0


def test_the_table_of_fewest_words_has_no_more_than_it_needs() -> None:
    assert set(MINIMAL) <= set(LAYERS)
    required = {k for k in LAYERS if any(a.required for a in layer_arguments(k).values())}
    assert required <= set(MINIMAL)


@pytest.mark.parametrize("kind", sorted(set(LAYERS) - set(LAYER_CLASSES)))
def test_a_layer_is_torch_s_own_class_but_for_those_with_one_of_ours(
    parse: Callable[[str], NetworkSpec], kind: str
) -> None:
    text = minimal(kind)
    network = build(parse(text))
    layer = network.get_submodule("0" if "tokens" in text else "1")
    assert type(layer) is getattr(nn, kind)


# ---- the other tables


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_needs_no_argument_and_keeps_the_shape(name: str) -> None:
    kind = ACTIVATIONS[name]
    assert kind in LAYERS
    x = torch.randn(3, 4)
    assert getattr(nn, kind)()(x).shape == x.shape
    assert name == name.lower()


def test_the_losses_are_those_that_there_are() -> None:
    from gradprobe.model.losses import LOSSES as FUNCTIONS

    assert tuple(FUNCTIONS) == LOSSES


def test_the_thresholds_ascend() -> None:
    assert list(THRESHOLDS.values()) == sorted(THRESHOLDS.values())


def test_combinations_are_lower_case_and_layers_are_not() -> None:
    assert all(kind.islower() for kind in COMBINATORS)
    assert all(kind[0].isupper() for kind in LAYERS)
