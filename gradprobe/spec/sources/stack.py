"""The built-in stacks ``plain`` and ``residual`` → ``NetworkSpec``.

Both are a stem, ``depth`` blocks and a head, and differ by the skip alone: the layers of a block
stand at the same paths, so they draw the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradprobe.errors import InputError, suggestion
from gradprobe.spec.network import InitSpec, InputSpec, LayerSpec, NetworkSpec, check_layer_count
from gradprobe.spec.options import Shown, option
from gradprobe.spec.sources.yaml import parse_init
from gradprobe.spec.vocabulary import ACTIVATIONS, MAX_SIZE

STACKS = ("plain", "residual")
NORMS = {"none": None, "batch": "BatchNorm1d", "layer": "LayerNorm", "rms": "RMSNorm"}
HEAD_FEATURES = 10


def read_init(text: str) -> InitSpec | None:
    """The initialisation that ``--init`` names; ``default`` is torch's own."""
    return None if text == "default" else parse_init(text)


_INIT = Shown("Weight init, such as kaiming_normal.", read=read_init, kind=str)


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What ``--depth --width --activation --init --norm --zero-init`` say."""

    depth: int = option(20, Shown("Blocks."))
    width: int = option(64, Shown("Units per layer."))
    activation: str = option("tanh", Shown("tanh, relu, gelu, ... or none."))
    init: InitSpec | None = option(None, _INIT)  # noqa: RUF009 - frozen; None: torch's own default
    norm: str = option("none", Shown("Normalisation in each block.", choices=tuple(NORMS)))
    zero_init: bool = option(False, Shown("Start each branch at zero."))


def load(name: str, options: StackOptions) -> NetworkSpec:
    """The stack called ``name``: ``depth`` blocks of ``width`` units, ``x → act(Wx + b)`` each.

    Raises:
        InputError: an option is out of range, or a word is not known.
    """
    for flag, value in (("--depth", options.depth), ("--width", options.width)):
        if not 1 <= value <= MAX_SIZE:
            raise InputError(f"{flag} {value} is out of range (1 to {MAX_SIZE:,})")
    activation = _known("--activation", options.activation, ACTIVATIONS)
    norm = NORMS[_known("--norm", options.norm, {key: key for key in NORMS})]
    if options.zero_init and name == "plain":
        raise InputError("--zero-init is about residual branches: 'plain' has none")
    words = [f"{name} stack", f"depth {options.depth}", f"width {options.width}", activation]
    words += [f"init {options.init.name}"] if options.init else []
    words += [norm] if norm else []
    words += ["zero-init"] if options.zero_init else []
    linear = LayerSpec("Linear", {"out_features": options.width})
    middle = [LayerSpec(norm)] if norm else []
    block = (linear, *middle, LayerSpec(activation))
    if name == "residual":
        zero = {"zero_init": True} if options.zero_init else {}
        block = (LayerSpec("residual", zero, (block,)),)
    body = LayerSpec("repeat", {"times": options.depth}, (block,))
    head = LayerSpec("Linear", {"out_features": HEAD_FEATURES})
    init = {}
    if options.init is not None:
        init["Linear"] = {"weight": options.init, "bias": InitSpec("zeros")}
    spec = NetworkSpec(
        input=InputSpec((options.width,)),
        layers=(linear, body, head),
        name=", ".join(words),
        init=init,
        source=name,
    )
    check_layer_count(spec)
    return spec


def _known(flag: str, word: str, table: dict[str, str]) -> str:
    if word in table:
        return table[word]
    if word in table.values():  # the class name itself
        return word
    hint = suggestion(word, table) or f"known: {', '.join(sorted(table))}"
    raise InputError(f"{flag}: unknown word '{word}'", hint=hint)
