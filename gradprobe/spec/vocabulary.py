"""The words of the spec language, as tables; the parser, the builder and the JSON Schema read them.

``LAYERS`` has every ``torch.nn`` layer that maps one tensor to one tensor, with the arguments of
its constructor, so that a misspelt word is found without importing torch (a test holds the table
against the installed torch). One entry is ``argument:type`` pairs. Before an argument, ``*`` says
that it is required and ``~`` that it follows from the input where it is left out.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

MAX_SIZE = 2**31 - 1  # of one dimension


class Argument(NamedTuple):
    """One argument of a layer: its types (names in ``TYPES``), and whether it must be given."""

    name: str
    types: tuple[str, ...]
    required: bool = False
    inferred: bool = False


class ScalarType(NamedTuple):
    """A type of the spec language: what it accepts, in words, and its JSON Schema."""

    words: str
    schema: dict[str, object]


def _integers(low: int) -> dict[str, object]:
    return {"type": "integer", "minimum": low, "maximum": MAX_SIZE}


def _list_of(schema: dict[str, object]) -> dict[str, object]:
    return {"type": "array", "items": schema, "minItems": 1}


TYPES: dict[str, ScalarType] = {
    "size": ScalarType("an integer of at least 1", _integers(1)),
    "count": ScalarType("an integer of at least 0", _integers(0)),
    "int": ScalarType("an integer", _integers(-MAX_SIZE)),
    "float": ScalarType("a number", {"type": "number"}),
    "bool": ScalarType("true or false", {"type": "boolean"}),
    "str": ScalarType("a string", {"type": "string"}),
    "null": ScalarType("null", {"type": "null"}),
    "sizes": ScalarType("a list of integers of at least 1", _list_of(_integers(1))),
    "counts": ScalarType("a list of integers of at least 0", _list_of(_integers(0))),
    "ints": ScalarType("a list of integers", _list_of(_integers(-MAX_SIZE))),
    "floats": ScalarType("a list of numbers", _list_of({"type": "number"})),
}

_INPLACE = "inplace:bool"
_CONV = (
    "~in_channels:size *out_channels:size *kernel_size:size|sizes stride:size|sizes "
    "padding:count|counts{} dilation:size|sizes groups:size bias:bool padding_mode:str"
)
_CONV_FORWARD = _CONV.format("|str")
_CONV_TRANSPOSE = _CONV.format("") + " output_padding:count|counts"
_BATCH_NORM = (
    "~num_features:size eps:float momentum:float|null affine:bool track_running_stats:bool"
)
_MAX_POOL = (
    "*kernel_size:size|sizes stride:size|sizes|null padding:count|counts dilation:size|sizes "
    "ceil_mode:bool"
)
_AVG_POOL = (
    "*kernel_size:size|sizes stride:size|sizes|null padding:count|counts ceil_mode:bool "
    "count_include_pad:bool"
)
_AVG_POOL_ND = _AVG_POOL + " divisor_override:size|null"
_LP_POOL = "*norm_type:float *kernel_size:size|sizes stride:size|sizes|null ceil_mode:bool"
_FRACTIONAL = "*kernel_size:size|sizes output_size:size|sizes|null output_ratio:float|floats|null"
_ADAPTIVE = "*output_size:size|sizes"
_PAD = "*padding:int|ints"
_WINDOW = "*kernel_size:size|sizes dilation:size|sizes padding:count|counts stride:size|sizes"
_DROPOUT = "p:float " + _INPLACE
_RECURRENT = (
    "~input_size:size *hidden_size:size num_layers:size bias:bool batch_first:bool dropout:float "
    "bidirectional:bool"
)
_CELL = "~input_size:size *hidden_size:size bias:bool"

LAYERS: dict[str, str] = {
    # linear
    "Identity": "",
    "Linear": "~in_features:size *out_features:size bias:bool",
    "Embedding": (
        "~num_embeddings:size *embedding_dim:size padding_idx:int|null max_norm:float|null "
        "norm_type:float scale_grad_by_freq:bool"
    ),
    "EmbeddingBag": (
        "~num_embeddings:size *embedding_dim:size max_norm:float|null norm_type:float "
        "scale_grad_by_freq:bool mode:str padding_idx:int|null"
    ),
    # convolution
    "Conv1d": _CONV_FORWARD,
    "Conv2d": _CONV_FORWARD,
    "Conv3d": _CONV_FORWARD,
    "ConvTranspose1d": _CONV_TRANSPOSE,
    "ConvTranspose2d": _CONV_TRANSPOSE,
    "ConvTranspose3d": _CONV_TRANSPOSE,
    "Fold": "*output_size:size|sizes " + _WINDOW,
    "Unfold": _WINDOW,
    # recurrent: hand on their sequence output
    "RNN": _RECURRENT + " nonlinearity:str",
    "LSTM": _RECURRENT + " proj_size:count",
    "GRU": _RECURRENT,
    "RNNCell": _CELL + " nonlinearity:str",
    "GRUCell": _CELL,
    # attention: self-attention; `causal` is gradprobe's own argument
    "MultiheadAttention": (
        "~embed_dim:size *num_heads:size dropout:float bias:bool add_bias_kv:bool "
        "add_zero_attn:bool batch_first:bool causal:bool"
    ),
    "TransformerEncoderLayer": (
        "~d_model:size *nhead:size dim_feedforward:size dropout:float activation:str "
        "layer_norm_eps:float batch_first:bool norm_first:bool bias:bool causal:bool"
    ),
    # normalisation
    "BatchNorm1d": _BATCH_NORM,
    "BatchNorm2d": _BATCH_NORM,
    "BatchNorm3d": _BATCH_NORM,
    "InstanceNorm1d": _BATCH_NORM,
    "InstanceNorm2d": _BATCH_NORM,
    "InstanceNorm3d": _BATCH_NORM,
    "LayerNorm": "~normalized_shape:size|sizes eps:float elementwise_affine:bool bias:bool",
    "RMSNorm": "~normalized_shape:size|sizes eps:float|null elementwise_affine:bool",
    "GroupNorm": "*num_groups:size ~num_channels:size eps:float affine:bool",
    "LocalResponseNorm": "*size:size alpha:float beta:float k:float",
    "CrossMapLRN2d": "*size:size alpha:float beta:float k:float",
    # activation
    "ReLU": _INPLACE,
    "ReLU6": _INPLACE,
    "LeakyReLU": "negative_slope:float " + _INPLACE,
    "PReLU": "num_parameters:size init:float",
    "RReLU": "lower:float upper:float " + _INPLACE,
    "ELU": "alpha:float " + _INPLACE,
    "CELU": "alpha:float " + _INPLACE,
    "SELU": _INPLACE,
    "GELU": "approximate:str",
    "SiLU": _INPLACE,
    "Mish": _INPLACE,
    "Tanh": "",
    "Sigmoid": "",
    "LogSigmoid": "",
    "Softplus": "beta:float threshold:float",
    "Softsign": "",
    "Softshrink": "lambd:float",
    "Hardshrink": "lambd:float",
    "Hardsigmoid": _INPLACE,
    "Hardswish": _INPLACE,
    "Hardtanh": "min_val:float max_val:float " + _INPLACE,
    "Tanhshrink": "",
    "Threshold": "*threshold:float *value:float " + _INPLACE,
    "GLU": "dim:int",
    "Softmax": "dim:int",
    "Softmin": "dim:int",
    "LogSoftmax": "dim:int",
    "Softmax2d": "",
    # dropout
    "Dropout": _DROPOUT,
    "Dropout1d": _DROPOUT,
    "Dropout2d": _DROPOUT,
    "Dropout3d": _DROPOUT,
    "AlphaDropout": _DROPOUT,
    "FeatureAlphaDropout": _DROPOUT,
    # pooling
    "MaxPool1d": _MAX_POOL,
    "MaxPool2d": _MAX_POOL,
    "MaxPool3d": _MAX_POOL,
    "AvgPool1d": _AVG_POOL,
    "AvgPool2d": _AVG_POOL_ND,
    "AvgPool3d": _AVG_POOL_ND,
    "LPPool1d": _LP_POOL,
    "LPPool2d": _LP_POOL,
    "LPPool3d": _LP_POOL,
    "FractionalMaxPool2d": _FRACTIONAL,
    "FractionalMaxPool3d": _FRACTIONAL,
    "AdaptiveAvgPool1d": _ADAPTIVE,
    "AdaptiveAvgPool2d": _ADAPTIVE,
    "AdaptiveAvgPool3d": _ADAPTIVE,
    "AdaptiveMaxPool1d": _ADAPTIVE,
    "AdaptiveMaxPool2d": _ADAPTIVE,
    "AdaptiveMaxPool3d": _ADAPTIVE,
    # shape
    "Flatten": "start_dim:int end_dim:int",
    "Unflatten": "*dim:int *unflattened_size:ints",
    "PixelShuffle": "*upscale_factor:size",
    "PixelUnshuffle": "*downscale_factor:size",
    "ChannelShuffle": "*groups:size",
    "Upsample": (
        "size:size|sizes|null scale_factor:float|floats|null mode:str align_corners:bool|null "
        "recompute_scale_factor:bool|null"
    ),
    "UpsamplingNearest2d": "size:size|sizes|null scale_factor:float|floats|null",
    "UpsamplingBilinear2d": "size:size|sizes|null scale_factor:float|floats|null",
    # padding
    "ZeroPad1d": _PAD,
    "ZeroPad2d": _PAD,
    "ZeroPad3d": _PAD,
    "ConstantPad1d": _PAD + " *value:float",
    "ConstantPad2d": _PAD + " *value:float",
    "ConstantPad3d": _PAD + " *value:float",
    "ReflectionPad1d": _PAD,
    "ReflectionPad2d": _PAD,
    "ReflectionPad3d": _PAD,
    "ReplicationPad1d": _PAD,
    "ReplicationPad2d": _PAD,
    "ReplicationPad3d": _PAD,
    "CircularPad1d": _PAD,
    "CircularPad2d": _PAD,
    "CircularPad3d": _PAD,
}

# Layers that combine: their keys beside the layers inside.
COMBINATORS: dict[str, str] = {
    "repeat": "*times:size",
    "residual": "skip_scale:float branch_scale:float zero_init:bool",
    "concat": "dim:int",
    "sequential": "",
}

# torch.nn.init without the trailing underscore, and Keras' variance_scaling.
INITS: dict[str, str] = {
    "zeros": "",
    "ones": "",
    "constant": "*val:float",
    "uniform": "a:float b:float",
    "normal": "mean:float std:float",
    "trunc_normal": "mean:float std:float a:float b:float",
    "xavier_uniform": "gain:float",
    "xavier_normal": "gain:float",
    "kaiming_uniform": "a:float mode:str nonlinearity:str",
    "kaiming_normal": "a:float mode:str nonlinearity:str",
    "orthogonal": "gain:float",
    "eye": "",
    "dirac": "groups:size",
    "sparse": "*sparsity:float std:float",
    "variance_scaling": "scale:float mode:str distribution:str",
}

RECURRENT_LAYERS = frozenset({"RNN", "LSTM", "GRU"})
# Modules of Python models: one step of such a layer, called once for each position. The last is
# what torch's are made from, and a user's own.
RECURRENT_CELLS = frozenset({*(f"{kind}Cell" for kind in RECURRENT_LAYERS), "RNNCellBase"})

# Layers through which one position's output depends on another position's input.
SEQUENCE_LAYERS = RECURRENT_LAYERS | {"MultiheadAttention", "TransformerEncoderLayer"}

# What an input tensor of a Python model may be made of, and its bytes per element.
TENSOR_DTYPES: dict[str, int] = {
    "float32": 4,
    "float64": 8,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "uint8": 1,
    "bool": 1,
}
MODES = ("train", "eval")

LOSSES: tuple[str, ...] = ("projection", "cross_entropy", "mse")

THRESHOLDS: dict[str, float] = {
    "vanishing": 1e-4,  # reach below it: vanishing
    "weak_low": 1e-2,  # reach below it: weak
    "weak_high": 1e2,  # reach above it: weak
    "exploding": 1e4,  # reach above it: exploding
}

# What `--activation` accepts beside the class names: lower case, and two common other names.
ACTIVATIONS: dict[str, str] = {
    **{
        name.lower(): name
        for name in (
            "Identity ReLU ReLU6 LeakyReLU PReLU RReLU ELU CELU SELU GELU SiLU Mish Tanh Sigmoid "
            "LogSigmoid Softplus Softsign Softshrink Hardshrink Hardsigmoid Hardswish Hardtanh "
            "Tanhshrink"
        ).split()
    },
    "leaky_relu": "LeakyReLU",
    "none": "Identity",
    "linear": "Identity",
    "swish": "SiLU",
}


@cache
def arguments_of(entry: str) -> dict[str, Argument]:
    """The arguments that a table entry lists, by name."""
    found: dict[str, Argument] = {}
    for word in entry.split():
        name, types = word.lstrip("*~").split(":")
        found[name] = Argument(name, tuple(types.split("|")), word[0] == "*", word[0] == "~")
    return found


def layer_arguments(kind: str) -> dict[str, Argument]:
    """The arguments of a layer or combination, by name."""
    return arguments_of(LAYERS[kind] if kind in LAYERS else COMBINATORS[kind])
