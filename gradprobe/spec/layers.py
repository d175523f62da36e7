"""The layers of the spec language: each with its arguments and its traits, in one table.

``LAYERS`` has every ``torch.nn`` layer that maps one tensor to one tensor, with the arguments of
its constructor, so that a misspelt word is found without importing torch (a test holds the table
against the installed torch). The arguments are ``argument:type`` pairs. Before an argument, ``*``
says that it is required and ``~`` that it follows from the input where it is left out.
"""

from __future__ import annotations

from enum import Flag, auto
from functools import cache
from typing import NamedTuple


class Trait(Flag):
    """What is asked of a layer's kind elsewhere; no other place lists kinds by such a property."""

    NONE = 0
    ACTIVATION = auto()  # it acts on each number alone, and `--activation` knows its name
    SAME_SHAPE = auto()  # its output has its input's shape, whatever that is
    RECTIFIES = auto()  # it lets about half of its input through: kaiming_normal fits
    HALF_LINEAR = auto()  # it is linear on each side of 0, or nearly
    DIES = auto()  # a unit may be 0 for every input: a leaky slope mends that
    SATURATES = auto()  # it lets little gradient through, or makes inputs look alike
    OFFSET = auto()  # it has no parameters and does not map 0 to 0
    NORM = auto()  # it normalises
    WEIGHTED = auto()  # it sums its input with random weights, whose init mean-field theory reads
    RECURRENT = auto()  # it carries a state from position to position
    SEQUENCE = auto()  # one position's output depends on another position's input


class LayerKind(NamedTuple):
    """One class of ``torch.nn``: the arguments of its constructor, and its traits."""

    arguments: str
    traits: Trait = Trait.NONE


_ELEMENTWISE = Trait.ACTIVATION | Trait.SAME_SHAPE
_MEMORY = Trait.RECURRENT | Trait.SEQUENCE

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


def _in_dimensions(name: str, kind: LayerKind) -> dict[str, LayerKind]:
    """The same for 1, 2 and 3 dimensions: ``Conv1d``, ``Conv2d``, ``Conv3d``."""
    return {f"{name}{n}d": kind for n in (1, 2, 3)}


LAYERS: dict[str, LayerKind] = {
    # linear
    "Identity": LayerKind("", _ELEMENTWISE),
    "Linear": LayerKind("~in_features:size *out_features:size bias:bool", Trait.WEIGHTED),
    "Embedding": LayerKind(
        "~num_embeddings:size *embedding_dim:size padding_idx:int|null max_norm:float|null "
        "norm_type:float scale_grad_by_freq:bool"
    ),
    "EmbeddingBag": LayerKind(
        "~num_embeddings:size *embedding_dim:size max_norm:float|null norm_type:float "
        "scale_grad_by_freq:bool mode:str padding_idx:int|null"
    ),
    # convolution
    **_in_dimensions("Conv", LayerKind(_CONV_FORWARD, Trait.WEIGHTED)),
    **_in_dimensions("ConvTranspose", LayerKind(_CONV_TRANSPOSE)),
    "Fold": LayerKind("*output_size:size|sizes " + _WINDOW),
    "Unfold": LayerKind(_WINDOW),
    # recurrent: hand on their sequence output
    "RNN": LayerKind(_RECURRENT + " nonlinearity:str", _MEMORY),
    "LSTM": LayerKind(_RECURRENT + " proj_size:count", _MEMORY),
    "GRU": LayerKind(_RECURRENT, _MEMORY),
    "RNNCell": LayerKind(_CELL + " nonlinearity:str"),
    "GRUCell": LayerKind(_CELL),
    # attention: self-attention; `causal` is gradprobe's own argument
    "MultiheadAttention": LayerKind(
        "~embed_dim:size *num_heads:size dropout:float bias:bool add_bias_kv:bool "
        "add_zero_attn:bool batch_first:bool causal:bool",
        Trait.SEQUENCE,
    ),
    "TransformerEncoderLayer": LayerKind(
        "~d_model:size *nhead:size dim_feedforward:size dropout:float activation:str "
        "layer_norm_eps:float batch_first:bool norm_first:bool bias:bool causal:bool",
        Trait.SEQUENCE,
    ),
    # normalisation
    **_in_dimensions("BatchNorm", LayerKind(_BATCH_NORM, Trait.NORM)),
    **_in_dimensions("InstanceNorm", LayerKind(_BATCH_NORM, Trait.NORM)),
    "LayerNorm": LayerKind(
        "~normalized_shape:size|sizes eps:float elementwise_affine:bool bias:bool",
        Trait.SAME_SHAPE | Trait.NORM,
    ),
    "RMSNorm": LayerKind(
        "~normalized_shape:size|sizes eps:float|null elementwise_affine:bool",
        Trait.SAME_SHAPE | Trait.NORM,
    ),
    "GroupNorm": LayerKind("*num_groups:size ~num_channels:size eps:float affine:bool", Trait.NORM),
    "LocalResponseNorm": LayerKind("*size:size alpha:float beta:float k:float", Trait.NORM),
    "CrossMapLRN2d": LayerKind("*size:size alpha:float beta:float k:float"),
    # activation
    "ReLU": LayerKind(_INPLACE, _ELEMENTWISE | Trait.RECTIFIES | Trait.HALF_LINEAR | Trait.DIES),
    "ReLU6": LayerKind(_INPLACE, _ELEMENTWISE | Trait.RECTIFIES | Trait.HALF_LINEAR | Trait.DIES),
    "LeakyReLU": LayerKind(
        "negative_slope:float " + _INPLACE, _ELEMENTWISE | Trait.RECTIFIES | Trait.HALF_LINEAR
    ),
    "PReLU": LayerKind(
        "num_parameters:size init:float", Trait.ACTIVATION | Trait.RECTIFIES | Trait.HALF_LINEAR
    ),
    "RReLU": LayerKind("lower:float upper:float " + _INPLACE, _ELEMENTWISE | Trait.RECTIFIES),
    "ELU": LayerKind("alpha:float " + _INPLACE, _ELEMENTWISE | Trait.RECTIFIES),
    "CELU": LayerKind("alpha:float " + _INPLACE, _ELEMENTWISE | Trait.RECTIFIES),
    "SELU": LayerKind(_INPLACE, _ELEMENTWISE),
    "GELU": LayerKind("approximate:str", _ELEMENTWISE | Trait.RECTIFIES),
    "SiLU": LayerKind(_INPLACE, _ELEMENTWISE | Trait.RECTIFIES),
    "Mish": LayerKind(_INPLACE, _ELEMENTWISE | Trait.RECTIFIES),
    "Tanh": LayerKind("", _ELEMENTWISE),
    "Sigmoid": LayerKind("", _ELEMENTWISE | Trait.SATURATES | Trait.OFFSET),
    "LogSigmoid": LayerKind("", _ELEMENTWISE | Trait.SATURATES | Trait.OFFSET),
    "Softplus": LayerKind(
        "beta:float threshold:float", _ELEMENTWISE | Trait.SATURATES | Trait.OFFSET
    ),
    "Softsign": LayerKind("", _ELEMENTWISE | Trait.SATURATES),
    "Softshrink": LayerKind("lambd:float", _ELEMENTWISE | Trait.SATURATES),
    "Hardshrink": LayerKind("lambd:float", _ELEMENTWISE | Trait.SATURATES),
    "Hardsigmoid": LayerKind(_INPLACE, _ELEMENTWISE | Trait.SATURATES | Trait.OFFSET),
    "Hardswish": LayerKind(_INPLACE, _ELEMENTWISE | Trait.RECTIFIES),
    "Hardtanh": LayerKind("min_val:float max_val:float " + _INPLACE, _ELEMENTWISE),
    "Tanhshrink": LayerKind("", _ELEMENTWISE | Trait.SATURATES),
    "Threshold": LayerKind(
        "*threshold:float *value:float " + _INPLACE, Trait.SAME_SHAPE | Trait.OFFSET
    ),
    "GLU": LayerKind("dim:int"),
    "Softmax": LayerKind("dim:int", Trait.OFFSET),
    "Softmin": LayerKind("dim:int", Trait.OFFSET),
    "LogSoftmax": LayerKind("dim:int", Trait.OFFSET),
    "Softmax2d": LayerKind("", Trait.OFFSET),
    # dropout
    "Dropout": LayerKind(_DROPOUT, Trait.SAME_SHAPE),
    "Dropout1d": LayerKind(_DROPOUT),
    "Dropout2d": LayerKind(_DROPOUT),
    "Dropout3d": LayerKind(_DROPOUT),
    "AlphaDropout": LayerKind(_DROPOUT, Trait.OFFSET),
    "FeatureAlphaDropout": LayerKind(_DROPOUT, Trait.OFFSET),
    # pooling
    **_in_dimensions("MaxPool", LayerKind(_MAX_POOL)),
    "AvgPool1d": LayerKind(_AVG_POOL),
    "AvgPool2d": LayerKind(_AVG_POOL_ND),
    "AvgPool3d": LayerKind(_AVG_POOL_ND),
    **_in_dimensions("LPPool", LayerKind(_LP_POOL)),
    "FractionalMaxPool2d": LayerKind(_FRACTIONAL),
    "FractionalMaxPool3d": LayerKind(_FRACTIONAL),
    **_in_dimensions("AdaptiveAvgPool", LayerKind(_ADAPTIVE)),
    **_in_dimensions("AdaptiveMaxPool", LayerKind(_ADAPTIVE)),
    # shape
    "Flatten": LayerKind("start_dim:int end_dim:int"),
    "Unflatten": LayerKind("*dim:int *unflattened_size:ints"),
    "PixelShuffle": LayerKind("*upscale_factor:size"),
    "PixelUnshuffle": LayerKind("*downscale_factor:size"),
    "ChannelShuffle": LayerKind("*groups:size"),
    "Upsample": LayerKind(
        "size:size|sizes|null scale_factor:float|floats|null mode:str align_corners:bool|null "
        "recompute_scale_factor:bool|null"
    ),
    "UpsamplingNearest2d": LayerKind("size:size|sizes|null scale_factor:float|floats|null"),
    "UpsamplingBilinear2d": LayerKind("size:size|sizes|null scale_factor:float|floats|null"),
    # padding
    **_in_dimensions("ZeroPad", LayerKind(_PAD)),
    **_in_dimensions("ConstantPad", LayerKind(_PAD + " *value:float", Trait.OFFSET)),
    **_in_dimensions("ReflectionPad", LayerKind(_PAD)),
    **_in_dimensions("ReplicationPad", LayerKind(_PAD)),
    **_in_dimensions("CircularPad", LayerKind(_PAD)),
}


@cache
def kinds(trait: Trait) -> frozenset[str]:
    """The names of the layers that have ``trait``."""
    return frozenset(name for name, kind in LAYERS.items() if trait in kind.traits)


# Modules of Python models: one step of such a layer, called once for each position. The last is
# what torch's are made from, and a user's own.
RECURRENT_CELLS = frozenset({*(f"{kind}Cell" for kind in kinds(Trait.RECURRENT)), "RNNCellBase"})
