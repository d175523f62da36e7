"""A network as data: what a spec file, a built-in stack or any other source comes down to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from gradprobe.errors import InputError, Place, located

Value: TypeAlias = "bool | int | float | str | tuple[Value, ...] | Mapping[str, Value] | None"

MAX_LAYERS = 50_000  # after `repeat` is unrolled; 100,000 take 20 s to build
MAX_STACKED = 400  # inside one recurrent layer
MAX_DEPTH = 64  # of nesting


class Idiom(NamedTuple):
    """What a network was made of, in whose language advice on it is given."""

    language: Literal["spec", "code", "config"] = "spec"
    # Of a Python model, the class behind a row and where it stands: ``Block (net.py:12)``.
    classes: Mapping[str, str] = {}
    # Of a Hugging Face configuration, the keys that advice may name, with their values.
    settings: Mapping[str, bool | int | float | str] = {}


A_SPEC = Idiom()


@dataclass(frozen=True, slots=True)
class InitSpec:
    """One initialisation of one parameter: a name from ``vocabulary.INITS`` and its arguments."""

    name: str
    arguments: Mapping[str, Value] = field(default_factory=dict)
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """A layer, or a combination of layers (``repeat``, ``residual``, ``concat``, ``sequential``).

    ``branches`` holds the layers inside: one branch, several for ``concat``, and for ``residual``
    the branch F followed by the shortcut where there is one.
    """

    kind: str
    arguments: Mapping[str, Value] = field(default_factory=dict)
    branches: tuple[tuple[LayerSpec, ...], ...] = ()
    init: Mapping[str, InitSpec] = field(default_factory=dict)
    name: str | None = None
    place: Place | None = None

    @property
    def is_leaf(self) -> bool:
        return self.kind[0].isupper()

    @property
    def times(self) -> int:
        """How often the layer stands in the network: ``repeat`` unrolls, all else is once."""
        times = self.arguments.get("times", 1) if self.kind == "repeat" else 1
        assert isinstance(times, int)
        return times


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One sample's shape, without the batch; ``tokens`` is the vocabulary size of integer input."""

    shape: tuple[int, ...]
    tokens: int | None = None
    batch_size: int | None = None
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Ignore:
    """A rule that does not count for this network, and why; ``place`` is where a spec says so."""

    rule: str
    reason: str
    place: Place | None = None
    rule_place: Place | None = None  # of the rule's own word


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """A spec's own ``check:`` section."""

    thresholds: Mapping[str, float] = field(default_factory=dict)
    ignore: tuple[Ignore, ...] = ()


class Weights(NamedTuple):
    """A checkpoint to load into a network, and what to take off the beginning of its keys."""

    file: str
    prefix: str = ""
    name: str = ""  # as the user named the file; empty: as it is


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A whole network: input, layers, loss, and what its author said about the check."""

    input: InputSpec
    layers: tuple[LayerSpec, ...]
    name: str | None = None
    loss: str = "projection"
    init: Mapping[str, Mapping[str, InitSpec]] = field(default_factory=dict)
    check: CheckSpec = field(default_factory=CheckSpec)
    source: str = "spec"  # the target as the user named it
    lines: tuple[str, ...] = ()  # of the source file, for the excerpts in errors
    weights: Weights | None = None  # None: as the inits draw them

    def error(self, message: str, place: Place | None, hint: str = "") -> InputError:
        """An ``InputError`` that shows the line of ``place``."""
        return located(message, place, self.lines, hint)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor to be drawn at random, the batch included in its shape.

    Floating tensors are standard normal; integers are drawn uniformly from 0 to ``high`` - 1.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"  # a key of ``vocabulary.TENSOR_DTYPES``
    high: int | None = None  # of integers


@dataclass(frozen=True, slots=True)
class CodeSpec:
    """A network that only running Python code can build.

    ``target`` and, where they are names, ``inputs`` and ``loss`` are ``package.module:name``.
    """

    target: str
    arguments: Mapping[str, Value] = field(default_factory=dict)
    path: str = "."  # the folder where imports begin; empty: what is installed alone
    inputs: tuple[TensorSpec, ...] | str | None = None
    mode: str | None = None  # train or eval; None: as it was built
    changes: tuple[str, ...] = ()  # made in the model once it is built, see ``worker.changes``
    library: str | None = None  # the prefix of the installed package that has it: no code of yours
    loss: str = "projection"
    name: str | None = None
    check: CheckSpec = field(default_factory=CheckSpec)
    source: str = "model"  # the target as the user named it
    lines: tuple[str, ...] = ()
    place: Place | None = None  # of ``model:`` in a spec file; None: named on the command line
    weights: Weights | None = None  # None: as it was built

    def error(self, message: str, place: Place | None, hint: str = "") -> InputError:
        """An ``InputError`` that shows the line of ``place``."""
        return located(message, place, self.lines, hint)


@dataclass(frozen=True, slots=True)
class ArchitectureSpec:
    """A network that the transformers library builds from a configuration."""

    values: Mapping[str, object]  # the configuration, without what would run code
    class_name: str | None = None  # the first of its ``architectures``
    set_keys: tuple[str, ...] = ()  # which of the values were set on the command line
    mode: str | None = None  # train or eval; None: train
    own_code: bool = False  # whether the file asks for code that is not the library's
    source: str = "config.json"  # the target as the user named it
    weights: Weights | None = None  # None: as the library draws them


def walk(layers: tuple[LayerSpec, ...], times: int = 1) -> Iterator[tuple[LayerSpec, int]]:
    """Every layer, outermost first, with how often it stands in the unrolled network."""
    for layer in layers:
        yield layer, times
        for branch in layer.branches:
            yield from walk(branch, times * layer.times)


def check_layer_count(spec: NetworkSpec) -> None:
    """Refuse a network of more than ``MAX_LAYERS`` layers, by arithmetic alone.

    Raises:
        InputError: too many layers.
    """
    total = 0
    for layer, times in walk(spec.layers):
        stacked = layer.arguments.get("num_layers", 1)  # of a recurrent layer
        stacked = stacked if isinstance(stacked, int) else 1
        if stacked > MAX_STACKED:
            message = f"num_layers {stacked:,}: a recurrent layer has at most {MAX_STACKED:,}"
            raise spec.error(message, layer.place, "repeat it")
        total += times * stacked
        if layer.kind == "repeat":
            total += times * (layer.times - 1)
        if total > MAX_LAYERS:
            message = f"the network has more than {MAX_LAYERS:,} layers"
            raise spec.error(message, layer.place, "lower 'times', 'num_layers' or the depth")


# ---- the names of Python code

_SCRIPT = re.compile(r"(.*?)([^/\\]+)\.py:(.+)")


def is_target(text: str) -> bool:
    """Whether ``text`` has the form ``package.module:name``, and is not a file's name."""
    module, colon, name = text.partition(":")
    dotted = [*module.split("."), *name.split(".")]
    named = bool(colon) and all(map(str.isidentifier, dotted)) and not module.endswith(".py")
    return named and module != "hf" and not os.path.exists(text)


def is_script(text: str) -> bool:
    """Whether ``text`` names a file of Python code where a module is to be named."""
    return bool(_SCRIPT.fullmatch(text)) and not os.path.exists(text)


def script_of(text: str) -> tuple[Path, str] | None:
    """File and name of ``file.py:name``; ``None`` where ``text`` has another form."""
    match = _SCRIPT.fullmatch(text) if is_script(text) else None
    return (Path(f"{match[1]}{match[2]}.py"), match[3]) if match else None


def split(target: str) -> tuple[str, str]:
    """Module and name of ``package.module:name``.

    Raises:
        InputError: it has another form.
    """
    if not is_target(target):
        raise InputError(f"'{target}' is not of the form package.module:name")
    module, _, name = target.partition(":")
    return module, name
