"""Each shape formula against torch's own answer on the meta device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gradprobe.model.layers import layer_class
from gradprobe.spec.shapes import FORMULAS, output_shape

VECTORS = [(2, 6), (2, 5, 6), (2, 3, 5, 6)]
SEQUENCES = [(2, 5, 6)]
IMAGES = {1: (2, 4, 13), 2: (2, 4, 13, 10), 3: (2, 4, 9, 13, 10)}
WINDOWS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 3},
]


def cases(kind: str) -> list[tuple[dict[str, Any], tuple[int, ...]]]:
    """Arguments and input shapes to try a layer with."""
    if kind in ("LayerNorm", "RMSNorm"):
        return [({"normalized_shape": 6}, shape) for shape in VECTORS]
    if kind == "Threshold":
        return [({"threshold": 0.1, "value": 0.0}, shape) for shape in VECTORS]
    if kind == "Linear":
        return [({"in_features": 6, "out_features": 4}, shape) for shape in VECTORS]
    if kind == "Embedding":
        return [({"num_embeddings": 9, "embedding_dim": 4}, (2, 5))]
    if kind in ("RNN", "LSTM", "GRU"):
        options: list[dict[str, Any]] = [{}, {"bidirectional": True, "num_layers": 2}]
        options += [{"proj_size": 3}] if kind == "LSTM" else []
        return [({"input_size": 6, "hidden_size": 4, **o}, SEQUENCES[0]) for o in options]
    if kind == "MultiheadAttention":
        return [({"embed_dim": 6, "num_heads": 2}, SEQUENCES[0])]
    if kind == "TransformerEncoderLayer":
        return [({"d_model": 6, "nhead": 2}, SEQUENCES[0])]
    if kind.startswith("BatchNorm"):
        return [({"num_features": 4}, IMAGES[int(kind[-2])])]
    if kind[-1] == "d" and kind[-2].isdigit():
        return windows(kind, int(kind[-2]))
    return [({}, shape) for shape in VECTORS]


def windows(kind: str, dimensions: int) -> list[tuple[dict[str, Any], tuple[int, ...]]]:
    shape = IMAGES[dimensions]
    if kind.startswith("Adaptive"):
        return [({"output_size": 3}, shape), ({"output_size": (2,) * dimensions}, shape)]
    channels = {"in_channels": 4, "out_channels": 8} if kind.startswith("Conv") else {}
    more = [{"kernel_size": 3, "dilation": 2}] if not kind.startswith("Avg") else []
    return [({**channels, **window}, shape) for window in [*WINDOWS, *more]]


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_formula_agrees_with_torch(kind: str) -> None:
    for arguments, shape in cases(kind):
        dtype = torch.int64 if kind == "Embedding" else torch.float32
        with torch.device("meta"):
            layer = layer_class(kind)(**arguments)
            expected = tuple(layer(torch.empty(shape, dtype=dtype)).shape)
        assert output_shape(kind, arguments, shape) == expected, (kind, arguments)


@pytest.mark.parametrize(
    ("kind", "arguments", "shape"),
    [
        ("Conv2d", {"out_channels": 3, "kernel_size": 3, "padding": "same"}, (2, 4, 8, 8)),
        ("Conv2d", {"out_channels": 3, "kernel_size": 9}, (2, 4, 8, 8)),
        ("MaxPool2d", {"kernel_size": 3, "ceil_mode": True}, (2, 4, 8, 8)),
        ("BatchNorm1d", {"num_features": 4}, (1, 4)),
        ("Softmax", {"dim": 1}, (2, 4)),
        ("LSTM", {"hidden_size": 4}, (2, 4)),
    ],
)
def test_what_only_torch_can_tell_is_left_to_it(
    kind: str, arguments: dict[str, Any], shape: tuple[int, ...]
) -> None:
    assert output_shape(kind, arguments, shape) is None
