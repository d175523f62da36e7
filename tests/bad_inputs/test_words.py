"""A spec's words, ranges and numbers: unknown, misspelt, missing, out of range."""

from __future__ import annotations

from pathlib import Path

from helpers.bad_inputs import GOOD, HEAD, NAME, TAIL, WIDTH, cases, refused
from helpers.commands import Run

from gradprobe.errors import suggestion


@cases(
    ("unknown-top", "▲inputs: {shape: [6]}\n" + TAIL, "'inputs'", "did you mean 'input'?"),
    ("unknown-top-case", HEAD + "▲Layers: [Tanh]\n", "did you mean 'layers'?"),
    ("unknown-input", "input: {▲shpae: [6]}\n" + TAIL, "did you mean 'shape'?"),
    (
        "unknown-layer",
        HEAD + "layers: [Linear: {▲out_feature: 4}]\n",
        "did you mean 'out_features'?",
    ),
    (
        "unknown-layer-of-three",
        HEAD + "layers: [▲Conv: {out_channels: 4}]\n",
        "did you mean 'Conv1d' or 'Conv2d' or 'Conv3d'?",
    ),
    ("unknown-layer-far", HEAD + "layers: [Linear: {▲widht: 4}]\n", "'widht'", "out_features"),
    ("unknown-repeat", HEAD + "layers: [repeat: {▲tiems: 4, layers: [Tanh]}]\n", "mean 'times'?"),
    (
        "unknown-residual",
        HEAD + "layers: [residual: {layers: [Tanh], ▲skip_scal: 1}]\n",
        "skip_scale",
    ),
    (
        "unknown-concat",
        HEAD + "layers: [concat: {▲branch: [[Tanh]]}]\n",
        "did you mean 'branches'?",
    ),
    ("unknown-sequential", HEAD + "layers: [sequential: {▲layer: [Tanh]}]\n", "mean 'layers'?"),
    (
        "unknown-nested",
        HEAD + "layers:\n- repeat:\n    times: 2\n    layers:\n    - LSTM: {▲hiden_size: 3}\n",
        "did you mean 'hidden_size'?",
    ),
    ("unknown-init-class", GOOD + "init: {▲Linaer: {weight: zeros}}\n", "did you mean 'Linear'?"),
    ("unknown-init-name", GOOD + "init: {Linear: {weight: ▲kaimng_normal}}\n", "'kaiming_normal'?"),
    ("unknown-init-parameter", GOOD + "init: {Linear: {wieght: ▲zeros}}\n", "wieght"),
    (
        "unknown-init-argument",
        GOOD + "init: {Linear: {weight: {normal: {▲sdt: 1}}}}\n",
        "did you mean 'std'?",
    ),
    (
        "unknown-init-of-layer",
        HEAD + "layers: [Linear: {out_features: 4, init: {wight: ▲zeros}}]\n",
        "'wight'",
        "weight",
    ),
    ("unknown-check", GOOD + "check: {▲treshold: {}}\n", "did you mean 'thresholds'?"),
    (
        "unknown-threshold",
        GOOD + "check: {thresholds: {▲vanish: 1}}\n",
        "did you mean 'vanishing'?",
    ),
    ("unknown-ignore", GOOD + "check: {ignore: [{rule: GP101, ▲raeson: x}]}\n", "'reason'?"),
    ("unknown-rule", GOOD + "check: {ignore: [{rule: ▲GP999, reason: x}]}\n", "GP999"),
    (
        "unknown-rule-name",
        GOOD + "check: {ignore: [{rule: ▲vanishin, reason: x}]}\n",
        "'vanishing'",
    ),
    ("unknown-loss", GOOD + "loss: ▲cross_entorpy\n", "did you mean 'cross_entropy'?"),
    ("range-times-0", HEAD + "layers: [repeat: {times: ▲0, layers: [Tanh]}]\n", "out of range"),
    ("range-times-negative", HEAD + "layers: [repeat: {times: ▲-7, layers: [Tanh]}]\n", "range"),
    ("range-width-0", WIDTH % "0", "0 is out of range"),
    ("range-width-negative", WIDTH % "-12", "-12 is out of range"),
    ("range-shape-0", "input: {shape: [3, ▲0]}\n" + TAIL, "out of range"),
    ("range-shape-empty", "input: {shape: ▲[]}\n" + TAIL, "shape"),
    ("range-tokens-0", "input: {shape: [6], tokens: ▲0}\n" + TAIL, "out of range"),
    ("range-batch-0", "input: {shape: [6], batch_size: ▲0}\n" + TAIL, "out of range"),
    ("range-layers-empty", HEAD + "layers: ▲[]\n", "empty"),
    ("range-residual-empty", HEAD + "layers: [residual: ▲[]]\n", "empty"),
    ("range-concat-empty", HEAD + "layers: [concat: ▲[]]\n", "empty"),
    ("range-threshold-0", GOOD + "check: {thresholds: {vanishing: ▲0}}\n", "greater than 0"),
    ("range-thresholds-cross", GOOD + "check: {thresholds: ▲{vanishing: 7}}\n", "ascend"),
    ("integer-trillion", WIDTH % "1000000000000", "out of range"),
    ("integer-two-to-the-63", WIDTH % str(2**63), "out of range"),
    ("integer-two-to-the-64", WIDTH % str(2**64), "out of range"),
    ("integer-negative", WIDTH % str(-(2**63) - 1), "out of range"),
    ("integer-shape", f"input: {{shape: [3, ▲{10**15}]}}\n" + TAIL, "out of range"),
    ("integer-tokens", f"input: {{shape: [3], tokens: ▲{2**62}}}\n" + TAIL, "out of range"),
    ("integer-batch", f"input: {{shape: [3], batch_size: ▲{10**12}}}\n" + TAIL, "out of range"),
    (
        "repeats-times",
        HEAD + "layers:\n- ▲repeat: {times: 100000, layers: [Tanh]}\n",
        "50,000 layers",
    ),
    (
        "repeats-nested",
        HEAD + "layers:\n- repeat: {times: 900, layers: [▲repeat: {times: 900, layers: [Tanh]}]}\n",
        "50,000 layers",
    ),
    (
        "repeats-of-nothing",
        HEAD + "layers:\n- ▲repeat: {times: 2000000000, layers: [concat: [[]]]}\n",
        "50,000 layers",
    ),
    (
        "repeats-recurrent",
        "input: {shape: [3, 6]}\nlayers:\n- ▲LSTM: {hidden_size: 2, num_layers: 1000000}\n",
        "num_layers",
    ),
    (
        "repeats-recurrent-repeated",
        "input: {shape: [3, 6]}\nlayers:\n- repeat:\n    times: 700\n"
        "    layers: [▲RNN: {hidden_size: 6, num_layers: 90}]\n",
        "50,000 layers",
    ),
    (
        "misspelt-letters",
        HEAD + "layers: [▲rleu]\n",
        "unknown layer 'rleu'",
        "did you mean 'ReLU'?",
    ),
    ("misspelt-case", HEAD + "layers: [▲batchnorm1d]\n", "did you mean 'BatchNorm1d'?"),
    ("misspelt-with-module", HEAD + "layers: [▲nn.Linear: {out_features: 3}]\n", "mean 'Linear'?"),
    ("misspelt-call", HEAD + "layers: [▲Linear(3)]\n", "did you mean 'Linear'?"),
    ("misspelt-combination", HEAD + "layers: [▲resdiual: [Tanh]]\n", "did you mean 'residual'?"),
    (
        "misspelt-in-block",
        HEAD + "layers:\n- residual:\n  - ▲Lienar: {out_features: 6}\n",
        "'Linear'?",
    ),
    ("misspelt-nothing-near", HEAD + "layers: [▲Wavelet]\n", "unknown layer 'Wavelet'"),
    ("misspelt-private", HEAD + "layers: [▲Module]\n", "unknown layer 'Module'"),
    ("misspelt-dunder", HEAD + "layers: [▲__import__]\n", "unknown layer"),
    ("layer-is-nothing", HEAD + "layers: [Tanh, ▲~]\n", "layer"),
    (
        "layer-is-two-keys",
        HEAD + "layers:\n- ▲Linear: {out_features: 4}\n  bias: false\n",
        "one layer",
    ),
    ("layer-is-list", HEAD + "layers:\n- ▲[Tanh]\n", "one layer", "a list"),
    ("scalar-argument", HEAD + "layers: [Linear: ▲64]\n", "expected a mapping"),
    ("required", HEAD + "layers: [▲Linear: {bias: false}]\n", "'out_features' is missing"),
    ("no-layers", "▲input: {shape: [6]}\n", "no 'layers'"),
    ("no-input", "▲" + TAIL, "no 'input'"),
    ("no-shape", "input: ▲{tokens: 4}\n" + TAIL, "'shape' is missing"),
    ("no-reason", GOOD + "check: {ignore: [▲{rule: GP101}]}\n", "'reason' is missing"),
    ("empty-reason", GOOD + "check: {ignore: [{rule: GP101, reason: ▲''}]}\n", "reason"),
    ("names-twice", HEAD + "layers:\n- Tanh: {name: a}\n- ▲Tanh: {name: a}\n", "named 'a'"),
    ("name-with-dot", NAME % "a.b", "dot"),
    ("name-is-number", NAME % "'3'", "number"),
    ("name-is-empty", NAME % "''", "empty"),
    (
        "no-parameters-activations-only",
        HEAD + "layers:\n- ▲Tanh\n- Dropout\n",
        "no trainable parameters",
    ),
    (
        "no-parameters-in-blocks",
        HEAD + "layers:\n- ▲repeat: {times: 3, layers: [residual: [ReLU]]}\n",
        "no tr",
    ),
    (
        "no-parameters-norm-without",
        HEAD + "layers:\n- ▲LayerNorm: {elementwise_affine: false}\n",
        "no train",
    ),
)
def test_spec(probe: Run, file: Path, spec: str, words: tuple[str, ...]) -> None:
    refused(probe(spec), file, spec, *words)


def test_no_word_is_likened_to_itself() -> None:
    assert suggestion("residual", ["plain", "residual"]) == ""
    assert suggestion("Residual", ["plain", "residual"]) == "did you mean 'residual'?"
