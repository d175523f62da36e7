"""What mends a network, in the language of its target: a spec, Python code, a configuration.

A rule names cures; ``CURES`` has the words of each. Where a cure was tried, the advice says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from string import Template
from typing import NamedTuple

from gradprobe.measure.measurement import Cure, TriedCure
from gradprobe.measure.profile import GradientProfile, RowProfile
from gradprobe.numbers import fraction
from gradprobe.spec.sources.huggingface import LAYER_KEYS
from gradprobe.verdict.report import Finding, Verdict


class Wording(NamedTuple):
    """The words of one cure, by language; without those of its own, code takes the spec's.

    A configuration has no key for most cures: without words of its own it is not given any.
    """

    spec: str
    code: str = ""
    config: str = ""


_DRAW = "nn.init.kaiming_normal_($weight)$others"
_RELU = 'nn.init.kaiming_normal_($weight, nonlinearity="relu")$others'

CURES: Mapping[str, Wording] = {
    "init": Wording("init: {weight: kaiming_normal, bias: zeros}", _RELU, "$range"),
    "draw": Wording("init: {weight: kaiming_normal, bias: zeros}", _DRAW),
    "gain": Wording(
        "$move the gain of the init", "$move the init's gain: $weight.data.mul_($number)$others",
        "$range",
    ),
    "skip": Wording("wrap each block in residual: […]", "a skip: x = x + f(x) in $block"),
    "clean skip": Wording(
        "keep the skip clean: skip_scale 1, and no layer between the blocks",
        "a clean skip: x = x + f(x) in $block, and nothing on x between the blocks",
    ),
    "skipless norm": Wording(
        "BatchNorm without a skip explodes with depth: wrap each block in residual: […]",
        "BatchNorm without a skip explodes with depth: x = x + f(x) in $block",
    ),
    "branch": Wording(
        "branch_scale: $number (1/sqrt(depth)), zero_init: true, or pre-norm",
        "x = x + $number * f(x) in $block (1/sqrt(depth)), or a norm first in f",
        "$range",
    ),
    "norm": Wording("normalise", "normalise: $norm in front of $layer$others"),
    "norm inside": Wording(
        "normalise inside residual blocks", "normalise: $norm in front of $layer$others"
    ),
    "fewer": Wording("use fewer rows", "fewer blocks", "$depth"),
    "shallower": Wording("", "", "$depth"),
    "smooth": Wording(
        "$of's slope is at most $number: use Tanh, ReLU or GELU, and skip connections",
        "nn.GELU() or nn.Tanh() in place of nn.$of(), whose slope is at most $number",
        "$activation",
    ),
    "between": Wording("ReLU, GELU or Tanh between layers", "nn.ReLU() between layers, no softmax"),
    "leaky": Wording("LeakyReLU or GELU", "nn.LeakyReLU(0.1) in place of nn.ReLU()", "$activation"),
    "zero bias": Wording("use a smaller or zero bias", "nn.init.zeros_($weight)"),
    "no bias": Wording(
        "set bias: false on the layer before the normalisation", "bias=False in $layer"
    ),
    "forget": Wording(
        "raise the forget gate's bias",
        "raise the forget gate's bias: $weight.data[$number:$twice] = 1$others",
    ),
    "shorten": Wording("shorten the sequence", "", "shorter sequences"),
    "attend": Wording("attend over it"),
    "every": Wording("read every position", "read every position, out.mean(1), not out[:, -1]"),
    "gated": Wording("use LSTM or GRU", "nn.LSTM or nn.GRU in place of nn.RNN"),
    "orthogonal": Wording("an orthogonal recurrent matrix", "nn.init.orthogonal_($weight)$others"),
    "scale": Wording(
        "scale the inputs to mean 0 and standard deviation 1, pixels / 255",
        "scale the inputs: x = (x - x.mean(0)) / (x.std(0) + 1e-6), pixels x / 255",
        "scale the inputs: do_normalize: true in preprocessor_config.json",
    ),
    "drop": Wording("drop the $name at the output"),
    "scale targets": Wording("scale the targets into its range"),
    "near zero": Wording(
        "look for a square root, a norm or a logarithm at 0",
        "look for a square root, a norm or a logarithm at 0: (x + 1e-8).sqrt(), x.clamp(min=1e-8)",
        "look for a square root, a norm or a logarithm at 0",
    ),
    "float64": Wording(
        "--dtype float64 tells whether it overflows", "model.double() tells whether it overflows",
        "--dtype float64 tells whether it overflows",
    ),
}  # fmt: skip

_RANGES = ("initializer_range", "init_std", "initializer_factor")
_ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation", "activation")
KEYS = (*_RANGES, *_ACTIVATIONS, *LAYER_KEYS)  # of a configuration, that advice may name


# A cure in a word or two, where it was tried and did not help.
_SHORT = {
    **dict.fromkeys(("init", "draw"), "another init"),
    **dict.fromkeys(("norm", "norm inside"), "a norm"),
    **dict.fromkeys(("skip", "skipless norm"), "a skip"),
    "gain": "another gain",
    "orthogonal": "an orthogonal matrix",
    "zero bias": "a zero bias",
    "forget": "the forget gate's bias",
    "scale": "scaled inputs",
    "smooth": "another activation",
    "between": "another activation",
    "leaky": "a leaky ReLU",
    "drop": "no activation at the output",
}


def cures(*kinds: str | Cure) -> tuple[Cure, ...]:
    """Cures that need no more than their kind, and others as they are."""
    return tuple(kind if isinstance(kind, Cure) else Cure(kind) for kind in kinds)


def at(kind: str, rows: Iterable[RowProfile], number: float = 1.0) -> Cure:
    """A cure that acts on the trained matrices of the rows, or in front of their modules."""
    names = [p.name for row in rows for p in row.parameters if p.trainable and p.dimensions > 1]
    if kind.startswith("norm"):
        names = list({name.rpartition(".")[0]: name for name in reversed(names)}.values())[::-1]
    return Cure(kind, tuple(names), number)


def worded(advice: str | Sequence[Cure], profile: GradientProfile | None = None) -> str:
    """The advice in the language of the network's idiom."""
    if isinstance(advice, str) or profile is None:
        return str(advice)
    words = filter(None, (_words(cure, profile) for cure in advice))
    return _either(words, profile) or "no key of the configuration mends it"


def with_trials(
    finding: Finding, trials: Sequence[TriedCure], before: Verdict, profile: GradientProfile
) -> Finding:
    """The finding with what the trials of its cures have shown: those that helped come first.

    A cure helps where the finding is gone and the verdict no worse, or where the verdict is better.
    """
    own = [trial for trial in trials if trial.cure in finding.cures]
    order = list(Verdict)
    helped = [
        trial
        for trial in own
        if order.index(Verdict(trial.verdict)) < order.index(before)
        or (finding.rule not in trial.rules and trial.verdict == before)
    ]
    if not own:
        return finding
    if not helped:
        tried = ", ".join(dict.fromkeys(_SHORT.get(trial.cure.kind, "it") for trial in own))
        others = [cure for cure in finding.cures if cure not in {trial.cure for trial in own}]
        advice = worded(others, profile) if others else finding.advice
        note = f"tried and not enough alone: {tried}" if others else "tried: not enough alone"
        return replace(finding, advice=f"{advice} ({note})")
    best = min((trial.verdict for trial in helped), key=lambda word: order.index(Verdict(word)))
    words = [
        f"{_words(trial.cure, profile)} ({_outcome(trial, finding.rule)})"
        for trial in helped
        if trial.verdict == best
    ]
    return replace(finding, advice=_either(words[:2], profile))


def _outcome(trial: TriedCure, rule: str) -> str:
    """``with it: healthy, 97 %``; or which causes are left, where one of them is mended."""
    if trial.rules and rule not in trial.rules and not rule.startswith("GP1"):
        return f"with it: {rule} is gone, {', '.join(dict.fromkeys(trial.rules))} left"
    chance = f", {fraction(trial.chance)}" if trial.chance is not None else ""
    return f"with it: {trial.verdict}{chance}"


def _name(kind: str) -> str:
    return kind if kind == "ReLU" else kind.lower()


def _either(words: Iterable[str], profile: GradientProfile) -> str:
    """``a, b, or c``; code has commas of its own."""
    *first, last = list(words) or [""]
    if not first:
        return last
    comma = ";" if profile.idiom.language == "code" else ","
    return f"{f'{comma} '.join(first)}{comma} or {last}"


# ---- the words of one cure


def _words(cure: Cure, profile: GradientProfile) -> str:
    idiom = profile.idiom
    wording = CURES[cure.kind]
    text = getattr(wording, idiom.language)
    if idiom.language == "code":
        fits = text and (cure.weights or "$weight" not in text)
        text = text if fits else wording.spec
    values = {
        "number": f"{cure.number:.0f}" if cure.kind == "forget" else f"{cure.number:.3g}",
        "twice": f"{2 * cure.number:.0f}",
        "of": cure.of,
        "name": _name(cure.of),
        "move": "raise" if cure.number > 1 else "lower",
        **_places(cure, profile),
        **_settings(cure, idiom.settings),
    }
    return Template(text).safe_substitute(values)


def _places(cure: Cure, profile: GradientProfile) -> dict[str, str]:
    """Where code has to be changed: the weight, its module, how many others, the class."""
    name, *rest = cure.weights or ("layer.weight",)
    rows = [row for row in profile.rows if any(p.name == name for p in row.parameters)]
    classes = profile.idiom.classes
    block = next((classes[row.module] for row in rows if row.module in classes), "each block")
    dimensions = {p.name: p.dimensions for row in rows for p in row.parameters}
    weight = in_python(name)
    return {
        "weight": weight,
        "layer": weight.rpartition(".")[0],
        "others": f", likewise for the {len(rest)} others" if len(rest) > 1 else
        f", likewise for {in_python(rest[0])}" if rest else "",
        "block": block,
        "norm": "nn.GroupNorm(1, d)" if dimensions.get(name, 2) > 2 else "nn.LayerNorm(d)",
    }  # fmt: skip


def in_python(name: str) -> str:
    """``model.blocks[0].fc.weight`` of ``blocks.0.fc.weight``."""
    path = "." + name.removeprefix("(model).")
    return "model" + re.sub(r"\.(\d+)", r"[\1]", path)


def _settings(cure: Cure, settings: Mapping[str, object]) -> dict[str, str]:
    """The keys of a configuration with the values to try; none for what it does not have."""
    words = dict.fromkeys(("range", "activation", "depth"), "")
    for key, value in settings.items():
        if key in _RANGES and isinstance(value, int | float):
            factor = min(10.0, max(0.1, cure.number))
            words["range"] = f"{key}: {value * factor:.2g} (it is {value:g})"
        elif key in _ACTIVATIONS:
            words["activation"] = f'{key}: "gelu" (it is "{value}")'
        elif key in LAYER_KEYS and isinstance(value, int) and value > 1:
            words["depth"] = f"{key}: {value // 2} (it is {value})"
    return words
