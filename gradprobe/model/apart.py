"""A layer and its input's shape → whether it keeps the samples of a batch apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gradprobe.model.layers import layer_class

_SMALL = 1 << 16  # numbers of a layer and its input that is run at once to see what it does


def keeps_samples_apart(kind: str, arguments: dict[str, Any], x: Tensor, size: int) -> bool | None:
    """Whether a sample's output stays what it is when the other samples change.

    It is tried. A larger layer with weights does if it takes another number of samples; of one
    without, ``None``: ``apart_in_fact`` can tell, once it is known that memory holds it.

    Args:
        x: an input of shape (batch, …), on the meta device.
        size: numbers that it takes to run, beside those of the layer itself.

    Raises:
        Exception: what torch raises where the layer cannot run.
    """
    with torch.device("meta"):
        module = layer_class(kind)(**arguments).eval()
    parameters = sum(p.numel() for p in module.parameters())
    if size + parameters < _SMALL:
        return apart_in_fact(kind, arguments, x)
    return _takes_more(module, x) and (True if parameters else None)


def apart_in_fact(kind: str, arguments: dict[str, Any], x: Tensor) -> bool:
    """Whether the first sample's output is the same when the other samples are others.

    Args:
        x: as above; of many samples, two are enough for a layer that takes any number.
    """
    outputs: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        for copies in (1, 2):
            torch.default_generator.manual_seed(0)
            module = layer_class(kind)(**arguments).eval()
            first, others = (
                torch.randn(shape) if x.is_floating_point() else torch.randint(2, shape)
                for shape in ((1, *x.shape[1:]), (copies, x.shape[0] - 1, *x.shape[1:]))
            )
            torch.default_generator.manual_seed(0)  # fractional pooling draws where it pools
            outputs.append(module(torch.cat([first, others[-1]]))[0])
    return torch.allclose(outputs[0], outputs[1], equal_nan=True)


def _takes_more(module: nn.Module, x: Tensor) -> bool:
    """Whether one more sample gives one more output."""
    more = torch.empty((x.shape[0] + 1, *x.shape[1:]), device="meta", dtype=x.dtype)
    try:
        return bool(module(more).shape[0] == more.shape[0])
    except Exception:
        return False
