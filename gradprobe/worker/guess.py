"""What a Python model may be called with, where nobody says: guessed, tried, and said."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.tensors import fresh, tensors_in, word_of
from gradprobe.spec.network import TensorSpec
from gradprobe.spec.vocabulary import TENSOR_DTYPES
from gradprobe.worker.drawn import draw
from gradprobe.worker.names import signature_of

_OWN = ("example_input_array", "dummy_inputs")  # as Lightning and transformers have them
_PIXELS = (64, 32, 28, 224, 96, 128, 299)
_LENGTHS = (64, 32, 16, 8, 128)
_MANY, _FEW = 32, 8  # samples: of vectors, of sequences and images
_MOST_NUMBERS = _FEW * 3 * 256 * 256  # in a batch, but for two samples


class Guess(NamedTuple):
    """Inputs that the model ran with, and in words where they come from."""

    inputs: Any
    source: str
    own: bool  # whether they are the class's


def guess(model: nn.Module, seed: int, batch_size: int | None = None) -> Guess | None:
    """The first inputs that the model runs with: its class's own, else by its first layer's sizes.

    The model is left as it was.
    """
    for name in _OWN:
        inputs = _attribute(model, name)
        if inputs is not None and _runs(model, inputs):
            return Guess(inputs, f"{type(model).__name__}.{name}", own=True)
    if not _takes_one(model):
        return None
    # Two samples tell what fits at less cost; some models want a multiple of more.
    for most in (2, None):
        for spec, by in _candidates(model):
            shape = spec.shape if batch_size is None else (batch_size, *spec.shape[1:])
            spec = replace(spec, shape=shape)
            inputs = draw(spec, 0, seed)
            is_new = most is not None or len(inputs) > 2
            if is_new and _runs(model, inputs[:most]):
                return Guess(inputs, f"--input {text_of(spec)}, by {by}", own=False)
    return None


def _candidates(model: nn.Module) -> Iterator[tuple[TensorSpec, str]]:
    """Tensors that the model may take, and what they are by."""
    config = _attribute(model, "default_cfg")  # as timm has it
    sizes = config.get("input_size") if isinstance(config, Mapping) else None
    if isinstance(sizes, tuple) and all(isinstance(size, int) for size in sizes):
        many = min(_FEW, max(2, _MOST_NUMBERS // math.prod(sizes)))
        yield TensorSpec((many, *sizes)), "its metadata"
    if first := next(_first_layers(model), None):
        path, layer = first
        by = f"{type(layer).__name__}{f' {path}' if path else ''}"
        yield from ((spec, by) for spec in _specs_of(layer))


def hint_for(model: nn.Module, spec: TensorSpec) -> str:
    """What to type instead of ``spec``, where the first layer shows that it cannot be meant."""
    for _, layer in _first_layers(model):
        if isinstance(layer, nn.Embedding) and spec.dtype.startswith(("float", "bfloat")):
            ids = TensorSpec(spec.shape, "int64", layer.num_embeddings)
            return f"token ids are integers: --input {text_of(ids)}"
        if isinstance(layer, nn.Embedding) and (spec.high or 0) > layer.num_embeddings:
            ids = TensorSpec(spec.shape, "int64", layer.num_embeddings)
            return f"there are {layer.num_embeddings} tokens: --input {text_of(ids)}"
        best = None if _runs(layer, draw(spec, 0, 0)) else next(_specs_of(layer), None)
        return f"the first layer takes --input {text_of(best)}" if best else ""
    return ""


def text_of(spec: TensorSpec) -> str:
    """The tensor as ``--input`` takes it."""
    words = [f"shape={','.join(map(str, spec.shape))}"]
    words += [f"dtype={spec.dtype}"] if spec.dtype != "float32" else []
    words += [f"high={spec.high}"] if spec.high is not None else []
    return "/".join(words)


def _attribute(model: nn.Module, name: str) -> Any:
    try:
        return getattr(model, name, None)
    except Exception:
        return None


def _takes_one(model: nn.Module) -> bool:
    """Whether ``forward`` can be called with one argument alone."""
    signature = signature_of(model.forward)
    if signature is None:
        return True
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty and parameter.kind in positional
    ]
    return len(needed) <= 1


def _first_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The first module that holds weights and whose sizes say what it takes."""
    for path, module in model.named_modules():
        whole = isinstance(module, (nn.MultiheadAttention, nn.RNNBase))
        if whole or (module._parameters and not list(module.children())):
            yield path, module


def _specs_of(layer: nn.Module) -> Iterator[TensorSpec]:
    """Tensors that a layer may take, the likeliest first, in the precision of its weights."""
    own = next((word_of(p.dtype) for p in layer.parameters()), "")
    for spec in _shapes_of(layer):
        fits = spec.dtype == "float32" and own in TENSOR_DTYPES
        yield replace(spec, dtype=own) if fits else spec


def _shapes_of(layer: nn.Module) -> Iterator[TensorSpec]:
    match layer:
        case nn.Embedding():
            for length in _LENGTHS:
                yield TensorSpec((_FEW, length), "int64", layer.num_embeddings)
        case nn.Linear():
            yield TensorSpec((_MANY, layer.in_features))
            yield TensorSpec((_FEW, 16, layer.in_features))
        case nn.MultiheadAttention():
            yield TensorSpec((_FEW, 16, layer.embed_dim))
        case nn.RNNBase():
            yield TensorSpec((_FEW, 16, layer.input_size))
        case nn.modules.conv._ConvNd():
            for size in _PIXELS if len(layer.kernel_size) < 3 else (16, 32):
                sizes = [size] * len(layer.kernel_size)
                yield TensorSpec((_FEW, layer.in_channels, *sizes))
        case nn.BatchNorm2d():
            for size in _PIXELS:
                yield TensorSpec((_FEW, layer.num_features, size, size))
        case nn.LayerNorm() | nn.RMSNorm():
            yield TensorSpec((_MANY, *layer.normalized_shape))
            yield TensorSpec((_FEW, 16, *layer.normalized_shape))


def _runs(model: nn.Module, inputs: Any) -> bool:
    """Whether the model gives a tensor for them."""
    args: tuple[Any, ...] = inputs if isinstance(inputs, tuple) else (inputs,)
    kwargs: Mapping[str, Any] = {}
    if isinstance(inputs, Mapping):
        args, kwargs = (), dict(inputs)
    try:
        with undisturbed(model), torch.no_grad():
            device = next((p.device for p in model.parameters()), torch.device("cpu"))
            moved = [t.to(device) if isinstance(t, Tensor) else t for t in args]
            output = model(*fresh(tuple(moved)), **fresh(dict(kwargs)))
        return any(True for _ in tensors_in([output]))
    except Exception:
        return False
