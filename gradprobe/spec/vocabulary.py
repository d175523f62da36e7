"""The other words of the spec language, as tables; the parser and the JSON Schema read them."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from gradprobe.spec.layers import LAYERS, Trait

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
    **{name.lower(): name for name, kind in LAYERS.items() if Trait.ACTIVATION in kind.traits},
    "leaky_relu": "LeakyReLU",
    "none": "Identity",
    "linear": "Identity",
    "swish": "SiLU",
}


@cache
def arguments_of(entry: str) -> dict[str, Argument]:
    """The arguments that a table entry lists, by name."""
    arguments: dict[str, Argument] = {}
    for word in entry.split():
        name, types = word.lstrip("*~").split(":")
        arguments[name] = Argument(name, tuple(types.split("|")), word[0] == "*", word[0] == "~")
    return arguments


def layer_arguments(kind: str) -> dict[str, Argument]:
    """The arguments of a layer or combination, by name."""
    return arguments_of(LAYERS[kind].arguments if kind in LAYERS else COMBINATORS[kind])
