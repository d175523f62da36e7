"""``ArchitectureSpec`` → a model of the transformers library, with inputs that it takes.

Everything follows from the configuration: the class, the weights (the library's own init, seeded),
token ids within the vocabulary, pixels at the configured size, audio features. Nothing is read from
a network or from any other file, and no code but the library's is run.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from gradprobe.errors import InputError, ModelError, first_line, suggestion
from gradprobe.model.kept import Store, while_used
from gradprobe.model.on_demand import take_apart, weightless
from gradprobe.model.rows import find_rows
from gradprobe.model.seeds import derive, reseed
from gradprobe.model.spread import sharded
from gradprobe.model.tensors import placed
from gradprobe.spec.network import ArchitectureSpec
from gradprobe.spec.options import OWN_LOSS, ProbeOptions

TOKENS = 64  # in a sequence, where the model takes as many
PIXELS = 224  # where the configuration does not say
SAMPLES = 16_000  # of raw audio: one second
_MOST_MODULES = 100_000
_MEMORY_PER_WEIGHT = 2  # itself and its gradient
_Make = Callable[[], nn.Module]


def build(
    spec: ArchitectureSpec,
    options: ProbeOptions,
    *,
    batch_size: int,
    dtype: torch.dtype,
    device: torch.device,
    streams: bool = False,
) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model of ``spec`` in train mode with random weights, and the arguments of one call.

    Args:
        options: the seed, the limits, and whether the loss is the model's, which needs labels.
        streams: whether rows may have their numbers only while they run, where not all fit.

    Raises:
        InputError: transformers is not installed, does not know the architecture, or refuses a
            value; the model is too large, or has no loss of its own.
        ModelError: the model could not be built.
    """
    transformers = _library()
    config = _config(transformers, spec)
    make = _constructor(transformers, spec, config)
    outline = _outline(spec, make)
    streams = options.stream or (streams and _size(outline, dtype) > options.limits.memory)
    if streams and device.type != "cpu":
        raise InputError(f"--device {device}: one block at a time, a model runs on the cpu")
    _hold_against(outline, options, dtype, streams or options.sharded)
    generator = torch.Generator().manual_seed(derive(options.seed, "input"))
    inputs = _inputs(outline, config, batch_size, generator)
    if options.loss == OWN_LOSS:
        inputs |= _labels(outline, config, inputs, generator)
    with torch.random.fork_rng(devices=[]):
        reseed(derive(options.seed, "weights"))
        try:
            model = _made(make, options, dtype, device, streams)
        except (RuntimeError, MemoryError) as error:
            raise _not_built(spec, error) from error
    return model, {key: placed(x, device, dtype) for key, x in inputs.items()}


def _outline(spec: ArchitectureSpec, make: _Make) -> nn.Module:
    """The model on the meta device, where it costs nothing."""
    try:
        with torch.device("meta"), _bounded(spec):
            return make()
    except InputError:
        raise
    except Exception as error:
        raise _not_built(spec, error) from error


def _not_built(spec: ArchitectureSpec, error: Exception) -> ModelError:
    what = f"{type(error).__name__}: {first_line(error)}"
    return ModelError(f"{spec.source}: the model cannot be built: {what}")


@contextmanager
def _bounded(spec: ArchitectureSpec) -> Iterator[None]:
    """Stop a model of too many modules while it is being made."""
    count = 0

    def counted(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
        nonlocal count
        count += 1
        if count > _MOST_MODULES:
            raise InputError(f"{spec.source}: a model of more than {_MOST_MODULES:,} modules")

    handle = register_module_module_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()


def main_output(output: Any) -> Any:
    """What a model is for: its logits or last hidden state, and else whatever it puts out."""
    for name in ("logits", "last_hidden_state"):
        if isinstance(output, Mapping) and name in output:
            return output[name]
    return output


def own_loss(output: Any) -> Tensor:
    """The loss that a model computes from its labels."""
    loss = output.get("loss") if isinstance(output, Mapping) else None
    if loss is None:
        raise ModelError("the model gave no loss for its labels")
    own: Tensor = loss
    return own


def _library() -> Any:
    """transformers, offline and without a word."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        hint = "pip install 'gradprobe[hf]', or pip install 'transformers>=4.56'"
        message = "a Hugging Face configuration needs the transformers library"
        raise InputError(message, hint=hint) from error
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
    transformers.logging.set_verbosity_error()  # it stays: the forward pass has more to say
    return transformers


def _config(transformers: Any, spec: ArchitectureSpec) -> Any:
    values = dict(spec.values)
    kind = str(values.pop("model_type"))
    classes = transformers.CONFIG_MAPPING
    if kind not in classes:
        hint = suggestion(kind, classes.keys()) or "a newer transformers may know it"
        if spec.own_code:
            hint = "its folder brings code of its own, which is not run"
        raise InputError(f"{spec.source}: transformers knows no model_type '{kind}'", hint=hint)
    default = classes[kind]()
    for key in spec.set_keys:
        name = key.partition(".")[0]
        if not hasattr(default, name):
            hint = suggestion(name, [*default.to_dict(), *default.attribute_map])
            raise InputError(f"--set {name}: a {kind} has no such key", hint=hint)
    allowed = {
        *default.to_dict(),
        *default.attribute_map,
        *inspect.signature(type(default)).parameters,
    }
    values = {
        k: v for k, v in values.items() if k in allowed or k[:5] == "rope_" or not _text_in(v)
    }
    try:
        config = transformers.AutoConfig.for_model(kind, **values)
    except Exception as error:
        raise InputError(f"{spec.source}: {_last(error)}") from error
    if hasattr(config, "use_cache"):
        config.use_cache = False
    return config


def _text_in(value: object) -> bool:
    """Whether a value could name something to load: numbers cannot."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, str) or any(map(_text_in, inside))


def _constructor(transformers: Any, spec: ArchitectureSpec, config: Any) -> _Make:
    """What makes the model: the class in ``architectures``, or the bare model without a head."""
    name = spec.class_name
    if name is None:
        return partial(transformers.AutoModel.from_config, config, trust_remote_code=False)
    kind: Any = getattr(transformers, name, None)
    fits = inspect.isclass(kind) and issubclass(kind, transformers.PreTrainedModel)
    if not fits:
        hint = suggestion(name, [n for n in dir(transformers) if n[:3] == name[:3]])
        raise InputError(f"{spec.source}: transformers has no architecture '{name}'", hint=hint)

    return partial(kind, config)


def _size(module: nn.Module, dtype: torch.dtype) -> int:
    count = sum(p.numel() for p in module.parameters())
    return count * dtype.itemsize * _MEMORY_PER_WEIGHT


def _hold_against(
    outline: nn.Module, options: ProbeOptions, dtype: torch.dtype, streams: bool
) -> None:
    limits = options.limits
    count = sum(p.numel() for p in outline.parameters())
    if count > limits.parameters:
        hint = "--layers and --set make it smaller, --max-parameters allows more"
        raise InputError(f"{count:,} parameters, more than {limits.parameters:,}", hint=hint)
    what, size = "weights and gradients", _size(outline, dtype)
    if streams:
        rows = [row.module for row in find_rows(outline, options.rows)]
        what, size = "those of one block", max(_size(module, dtype) for module in rows)
    if size > limits.memory:
        hint = "--layers and --set make it smaller, --max-memory allows more"
        raise InputError(f"{what} would take {size / 2**30:.3g} GiB", hint=hint)


def _streamed(make: _Make, options: ProbeOptions, dtype: torch.dtype) -> nn.Module:
    """The model with rows that have their numbers while they run, by seeds of their paths."""
    with weightless():
        model = make()
    rows = [row.module for row in find_rows(model, options.rows)]
    owners = dict.fromkeys(model.modules(), model)
    for owner in model.modules():  # the innermost model comes last
        if hasattr(owner, "_init_weights"):
            owners |= dict.fromkeys(owner.modules(), owner)

    def fill(path: str, module: nn.Module) -> None:
        torch.default_generator.manual_seed(derive(options.seed, path))
        for m in reversed(list(module.modules())):  # what is inside comes first
            owners[m]._init_weights(m)  # type: ignore[operator]

    room = options.limits.memory - max(_size(module, dtype) for module in rows)
    store = while_used(partial(Store, room, options.boundaries))
    for part in take_apart(model, rows, fill):
        part.dtype, part.store = dtype, store
    return model.to(dtype=dtype)


def _made(
    make: _Make, options: ProbeOptions, dtype: torch.dtype, device: torch.device, streams: bool
) -> nn.Module:
    if options.sharded:
        return sharded(lambda: make().to(dtype), options)
    return _streamed(make, options, dtype) if streams else make().to(device, dtype)


# ---- inputs: (configuration, batch size, generator) → tensor


def _inputs(
    model: nn.Module, config: Any, size: int, generator: torch.Generator
) -> dict[str, Tensor]:
    taken = inspect.signature(model.forward).parameters
    wanted = [str(getattr(model, "main_input_name", "input_ids"))]
    if getattr(config, "vision_config", None) is not None and "pixel_values" in taken:
        wanted.append("pixel_values")
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in taken:
        wanted.append("decoder_input_ids")
    inputs: dict[str, Tensor] = {}
    for name in dict.fromkeys(wanted):
        if name not in INPUTS:
            raise InputError(f"{type(model).__name__} takes {name}, which cannot be made up here")
        inputs[name] = INPUTS[name](config, size, generator)
    if "input_ids" in inputs and "attention_mask" in taken:
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return inputs


def _tokens(config: Any, size: int, generator: torch.Generator) -> Tensor:
    text = config.get_text_config(decoder=True)
    most = next(
        (n for key in _POSITIONS if isinstance(n := getattr(text, key, None), int) and n > 0),
        TOKENS,
    )
    # Some number their positions from the padding's on.
    length = max(1, min(TOKENS, most - 2))
    ids = torch.randint(text.vocab_size, (size, length), generator=generator)
    padding = getattr(text, "pad_token_id", None)
    if isinstance(padding, int):  # an embedding gives it zeros, and no gradient
        ids = torch.where(ids == padding, (padding + 1) % text.vocab_size, ids)
    return ids


_POSITIONS = ("max_target_positions", "max_position_embeddings", "n_positions", "n_ctx")


def _pixels(config: Any, size: int, generator: torch.Generator) -> Tensor:
    vision = getattr(config, "vision_config", None) or config
    side = getattr(vision, "image_size", None) or PIXELS
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    channels = getattr(vision, "num_channels", 3)
    return torch.randn(size, channels, height, width, generator=generator)


def _audio_features(config: Any, size: int, generator: torch.Generator) -> Tensor:
    """A spectrogram of the length that Whisper insists on."""
    if not hasattr(config, "num_mel_bins") or not hasattr(config, "max_source_positions"):
        raise InputError(f"a {config.model_type} takes audio features of a form not known here")
    frames = 2 * config.max_source_positions
    return torch.randn(size, config.num_mel_bins, frames, generator=generator)


INPUTS: dict[str, Callable[[Any, int, torch.Generator], Tensor]] = {
    "input_ids": _tokens,
    "decoder_input_ids": _tokens,
    "pixel_values": _pixels,
    "input_features": _audio_features,
    "input_values": lambda _, size, generator: torch.randn(size, SAMPLES, generator=generator),
}


def _labels(
    model: nn.Module, config: Any, inputs: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    name = type(model).__name__
    ids = inputs.get("decoder_input_ids", inputs.get("input_ids"))
    size = next(iter(inputs.values())).shape[0]
    if "Classification" in name:
        shape = tuple(ids.shape) if "Token" in name and ids is not None else (size,)
        if config.num_labels == 1:
            return {"labels": torch.randn(shape, generator=generator)}
        return {"labels": torch.randint(config.num_labels, shape, generator=generator)}
    if ids is not None and "QuestionAnswering" in name:
        ends = torch.randint(ids.shape[1], (2, size), generator=generator)
        return {"start_positions": ends[0], "end_positions": ends[1]}
    if ids is not None and any(word in name for word in ("LM", "ForConditionalGeneration")):
        return {"labels": ids.clone()}
    hint = "name a class with a head under architectures, such as BertForMaskedLM"
    raise InputError(f"--loss own: no labels are known for {name}", hint=hint)


def _last(error: BaseException) -> str:
    """The last line, where the library's validation says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def settings_of(model: nn.Module) -> dict[str, bool | int | float | str]:
    """The numbers and words of the model's configuration, by its own keys."""
    config: Any = getattr(model, "config", None)
    values: Mapping[str, Any] = config.to_dict() if config is not None else {}
    return {k: v for k, v in values.items() if isinstance(v, (bool, int, float, str))}
