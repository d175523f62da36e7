"""Layers that do not fit together, and arguments that torch refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.bad_inputs import GOOD, HEAD, IMAGE, SEQUENCE, WORDS, cases, clean, refused
from helpers.commands import Run


@cases(
    (
        "linear",
        HEAD
        + "layers:\n- Linear: {out_features: 5}\n- ▲Linear: {in_features: 6, out_features: 2}\n",
        "Linear: in_features is 6",
        "Linear (line 3) gives 5",
    ),
    (
        "first",
        HEAD + "layers:\n- ▲Linear: {in_features: 7, out_features: 2}\n",
        "in_features is 7",
        "the input gives 6",
    ),
    (
        "conv-norm",
        IMAGE
        + "layers:\n- Conv2d: {out_channels: 4, kernel_size: 3}\n- ReLU\n"
        + "- ▲BatchNorm2d: {num_features: 8}\n",
        "BatchNorm2d: num_features is 8",
        "ReLU (line 4) gives 4",
    ),
    (
        "attention",
        SEQUENCE + "layers:\n- LSTM: {hidden_size: 4}\n"
        "- ▲MultiheadAttention: {embed_dim: 6, num_heads: 2}\n",
        "MultiheadAttention: embed_dim is 6",
        "LSTM (line 3) gives 4",
    ),
    (
        "layer-norm",
        SEQUENCE + "layers:\n- Linear: {out_features: 3}\n- ▲LayerNorm: {normalized_shape: [6]}\n",
        "LayerNorm",
        "Linear (line 3)",
    ),
    (
        "inside-repeat",
        HEAD
        + "layers:\n- repeat:\n    times: 2\n    layers:\n"
        + "    - ▲Linear: {in_features: 6, out_features: 5}\n",
        "Linear: in_features is 6",
        "(line 6) gives 5",
    ),
    (
        "residual",
        HEAD
        + "layers:\n- Linear: {out_features: 5}\n"
        + "- ▲residual: [Tanh, Linear: {out_features: 7}]\n",
        "Linear ends in shape [7]",
        "the skip in shape [5]",
        "shortcut",
    ),
    (
        "shortcut",
        HEAD
        + "layers:\n- ▲residual: {layers: [Linear: {out_features: 7}], "
        + "shortcut: {Linear: {out_features: 8}}}\n",
        "shape [7]",
        "shape [8]",
    ),
    (
        "concat",
        IMAGE + "layers:\n- ▲concat: [[Conv2d: {out_channels: 2, kernel_size: 3}], []]\n",
        "[2, 6, 6]",
        "[3, 8, 8]",
    ),
    (
        "concat-dim",
        HEAD + "layers:\n- Linear: {out_features: 6}\n- ▲concat: {branches: [[], []], dim: 4}\n",
        "dim 4",
    ),
    (
        "kernel",
        IMAGE
        + "layers:\n- Conv2d: {out_channels: 4, kernel_size: 3}\n"
        + "- ▲Conv2d: {out_channels: 4, kernel_size: 7}\n",
        "Conv2d (line 3)",
    ),
    (
        "conv-on-vector",
        HEAD + "layers:\n- ▲Conv2d: {out_channels: 4, kernel_size: 3}\n",
        "Conv2d",
        "shape [6]",
    ),
    (
        "heads",
        SEQUENCE + "layers:\n- ▲MultiheadAttention: {num_heads: 4}\n",
        "MultiheadAttention",
        "divisible",
    ),
    (
        "groups",
        IMAGE + "layers:\n- ▲Conv2d: {out_channels: 4, kernel_size: 3, groups: 2}\n",
        "Conv2d",
        "divisible",
    ),
    ("float-embedding", HEAD + "layers:\n- ▲Embedding: {embedding_dim: 4}\n", "tokens"),
    ("token-linear", WORDS + "layers:\n- ▲Linear: {out_features: 4}\n", "tokens", "Embedding"),
    ("token-lstm", WORDS + "layers:\n- ▲LSTM: {hidden_size: 4}\n", "tokens"),
    (
        "token-residual",
        WORDS + "layers:\n- residual: [▲Linear: {out_features: 5}]\n",
        "tokens",
    ),
    (
        "vocabulary",
        WORDS + "layers:\n- ▲Embedding: {num_embeddings: 7, embedding_dim: 4}\n",
        "num_embeddings is 7",
        "11",
    ),
    ("attention-on-vector", HEAD + "layers:\n- ▲MultiheadAttention: {num_heads: 2}\n", "[6]"),
    ("lstm-on-vector", HEAD + "layers:\n- ▲LSTM: {hidden_size: 4}\n", "shape [6]"),
    (
        "encoder-on-vector",
        HEAD + "layers:\n- Tanh\n- ▲TransformerEncoderLayer: {nhead: 2}\n",
        "shape [6]",
    ),
    (
        "conv-on-batch",
        "input: {shape: [8, 8], batch_size: 8}\n"
        "layers:\n- ▲Conv2d: {out_channels: 4, kernel_size: 1}\n",
        "shape [8, 8]",
    ),
    ("softmax-dim", HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲Softmax: {dim: 3}\n", "3"),
    (
        "softmax-over-the-batch",
        HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲Softmax: {dim: 0}\n",
        "samples",
        "a dim of 1",
    ),
    (
        "softmax-over-the-batch-from-behind",
        HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲LogSoftmax: {dim: -2}\n",
        "samples",
    ),
    ("softmax-2d", SEQUENCE + "layers:\n- Linear: {out_features: 4}\n- ▲Softmax2d\n", "samples"),
    (
        "softmax-of-a-sequence",
        SEQUENCE + "layers:\n- Linear: {out_features: 4}\n- ▲Softmax\n",
        "samples",
    ),
    (
        "glu-over-the-batch",
        HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲GLU: {dim: 0}\n",
        "0",
    ),
    (
        "kernel-of-three",
        IMAGE + "layers:\n- ▲Conv2d: {out_channels: 4, kernel_size: [3, 3, 3]}\n",
        "Conv2d",
    ),
    (
        "output-padding",
        IMAGE
        + "layers:\n- ▲ConvTranspose2d: {out_channels: 2, kernel_size: 2, output_padding: 3}\n",
        "ConvTranspose2d",
    ),
    (
        "zero-alpha",
        HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲CELU: {alpha: 0}\n",
        "CELU",
    ),
    (
        "init-orthogonal-bias",
        HEAD + "layers:\n- Linear: {out_features: 4, init: {bias: ▲orthogonal}}\n",
        "orthogonal",
        "bias",
    ),
    (
        "init-mode",
        HEAD
        + "layers:\n- Linear: {out_features: 4, init: {weight: {▲kaiming_normal: {mode: fan}}}}\n",
        "fan",
    ),
    (
        "init-of-two",
        GOOD + "init: {Linear: {weight: ▲{normal: {std: 1}, zeros: {}}}}\n",
        "weight",
        "a mapping",
    ),
    (
        "init-negative-std",
        GOOD + "init: {Linear: {weight: {▲normal: {std: -1}}}}\n",
        "std",
    ),
    (
        "zero-init-sigmoid",
        HEAD
        + "layers:\n- ▲residual:\n    zero_init: true\n"
        + "    layers: [Linear: {out_features: 6}, Sigmoid]\n",
        "Sigmoid(0) is not 0",
    ),
    (
        "zero-init-of-nothing",
        HEAD
        + "layers:\n- Linear: {out_features: 6}\n- ▲residual: {zero_init: true, layers: [Tanh]}\n",
        "no parameters",
    ),
    (
        "batch-of-one-in-spec",
        "input: {shape: [6], batch_size: 1}\n"
        "layers:\n- Linear: {out_features: 4}\n- ▲BatchNorm1d\n",
        "one sample",
        "--batch-size",
    ),
    (
        "batch-of-one-in-block",
        "input: {shape: [6], batch_size: 1}\nlayers:\n- residual: [▲BatchNorm1d, ReLU]\n",
        "one sample",
    ),
)
def test_shapes(probe: Run, file: Path, spec: str, words: tuple[str, ...]) -> None:
    refused(probe(spec), file, spec, *words)


@cases(
    ("gelu", HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲GELU: {approximate: x}\n"),
    ("celu", HEAD + "layers:\n- ▲CELU: {alpha: 0}\n- Linear: {out_features: 4}\n"),
    ("eps", HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲BatchNorm1d: {eps: -1}\n"),
    ("rrelu", HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲RReLU: {lower: 2, upper: 1}\n"),
    ("in-block", HEAD + "layers:\n- residual: [Linear: {out_features: 6}, ▲CELU: {alpha: 0}]\n"),
    (
        "beside-in-place",
        HEAD
        + "layers:\n- Linear: {out_features: 4}\n- ReLU: {inplace: true}\n- ▲CELU: {alpha: 0}\n",
    ),
)
@pytest.mark.parametrize("level", ["blocks", "leaves"])
def test_arguments_that_torch_refuses_at_run_time(
    probe: Run, file: Path, spec: str, words: tuple[str, ...], level: str
) -> None:
    """The line is known; the column may be that of the row's first layer."""
    result = probe(spec, "--level", level)
    clean(result)
    line = spec[: spec.index("▲")].count("\n") + 1
    assert result.err.startswith(f"{file}:{line}:")


@pytest.mark.parametrize("level", ["blocks", "leaves"])
def test_of_two_layers_on_one_line_the_caret_is_under_the_right_one(
    probe: Run, file: Path, level: str
) -> None:
    spec = HEAD + "layers: [Linear: {out_features: 4}, ▲GELU: {approximate: x}]\n"
    refused(probe(spec, "--level", level), file, spec, "row 1 (GELU)")


def test_batch_of_one_by_option_and_data(probe: Run, file: Path, tmp_path: Path) -> None:
    spec = HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲BatchNorm1d\n"
    refused(probe(spec, "--batch-size", "1"), file, spec, "one sample")
    np.save(tmp_path / "one.npy", np.ones((1, 6), "f4"))
    refused(probe(spec, "--data", str(tmp_path / "one.npy")), file, spec, "one sample")
    assert probe(spec, "--batch-size", "2").code == 0


def test_batch_of_one_is_enough_where_a_channel_has_more_values(probe: Run) -> None:
    spec = IMAGE + "layers: [Conv2d: {out_channels: 2, kernel_size: 3}, BatchNorm2d]\n"
    assert probe(spec, "--batch-size", "1").code == 0
