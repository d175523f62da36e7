"""A Hugging Face ``config.json``, or the folder that holds one → ``ArchitectureSpec``.

The file is data: it names a class of the transformers library and its sizes. Code that a folder
brings along (``auto_map``) is never run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradprobe.errors import InputError, Place, located
from gradprobe.files import read_regular, read_start
from gradprobe.spec.network import ArchitectureSpec
from gradprobe.spec.options import Shown, option

PREFIX = "hf:"
MAX_BYTES = 2**20
MOST_LAYERS = 10_000
# What the library reads weights, adapters or code by.
_LOADS = re.compile(
    "auto_map|quantization|adapter|peft|pretrained|name_or_path|use_kernels|kernel_config|remote"
)
_IMPLEMENTATIONS = (None, "eager", "sdpa")

# How the library's configurations call the number of layers; a list has one number per stage.
LAYER_KEYS = (
    "num_hidden_layers num_layers num_decoder_layers n_layer n_layers encoder_layers "
    "decoder_layers num_encoder_layers depths"
).split()


@dataclass(frozen=True, slots=True)
class ArchitectureOptions:
    """What the command line says about a Hugging Face configuration."""

    layers: int | None = option(None, Shown("Instead of as many as it says."))
    settings: tuple[str, ...] = option(
        (),
        Shown("Change a value.", ("--set",), metavar="KEY=VALUE", read=tuple, kind=list[str]),
    )


def is_config(target: str) -> bool:
    """Whether ``target`` is such a file or folder, and not a spec that is written in JSON."""
    path = Path(target)
    try:
        if target.startswith(PREFIX) and not path.exists():
            return True
        if path.is_dir():
            return (path / "config.json").is_file()
        if path.suffix != ".json":
            return False
        return path.name == "config.json" or b'"model_type"' in read_start(path, MAX_BYTES)
    except (OSError, ValueError):
        return False


def load(target: str, options: ArchitectureOptions | None = None) -> ArchitectureSpec:
    """The architecture that ``target`` describes.

    Args:
        target: a ``config.json``, or its folder, with ``hf:`` in front or without.
        options: ``layers`` instead of as many as the file says, in each stack or stage of several;
            ``settings`` are ``key=value`` each, with dots for nested configurations; values are
            JSON, or text.

    Raises:
        InputError: there is no such file, it is no configuration, or a setting does not fit.
    """
    options = options or ArchitectureOptions()
    layers, settings = options.layers, options.settings
    path = _file(target)
    values = _read(path)
    if not isinstance(values.get("model_type"), str):
        hint = "a spec is YAML: gradprobe probe net.yaml"
        raise InputError(f"{path}: no model_type: this is no Hugging Face configuration", hint=hint)
    classes = values.get("architectures")
    first = classes[0] if isinstance(classes, list) and classes else None
    if layers is not None:
        values = _with_layers(values, layers)
    for setting in settings:
        _set(values, setting)
    return ArchitectureSpec(
        _harmless(path, values),
        class_name=first if isinstance(first, str) else None,
        set_keys=tuple(setting.partition("=")[0] for setting in settings),
        own_code="auto_map" in values,
        source=target,
    )


def _file(target: str) -> Path:
    """The configuration's file.

    Raises:
        InputError: nothing is where ``hf:`` says.
    """
    path = Path(target if Path(target).exists() else target.removeprefix(PREFIX))
    if target.startswith(PREFIX) and not path.exists():
        hint = "nothing is downloaded: save the model's config.json, and name its folder"
        raise InputError(f"{target}: there is no {path} here", hint=hint)
    return path / "config.json" if path.is_dir() else path


def _read(path: Path) -> dict[str, Any]:
    try:
        text = read_regular(path, MAX_BYTES).decode()
        values = json.loads(text)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        place = Place(str(path), error.lineno, error.colno)
        raise located(f"not JSON: {error.msg}", place, text.splitlines()) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {type(error).__name__}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: a configuration is a JSON object, not {type(values).__name__}")
    return values


def _harmless(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without what would have the library load something, at any depth.

    Raises:
        InputError: it asks for code from elsewhere to compute with, or has too many layers.
    """
    harmless: dict[str, Any] = {}
    for key, value in values.items():
        counts = value if isinstance(value, list) else [value]
        if key in LAYER_KEYS and any(isinstance(n, int) and n > MOST_LAYERS for n in counts):
            raise InputError(f"{path}: {key}: more than {MOST_LAYERS:,} layers")
        if key.endswith("_implementation") and value not in _IMPLEMENTATIONS:
            message = f"{path}: {key}: '{value}' would have to be loaded"
            raise InputError(message, hint="leave it out, or say eager or sdpa")
        if not _LOADS.search(key):
            harmless[key] = _harmless_value(path, value)
    return harmless


def _harmless_value(path: Path, value: Any) -> Any:
    if isinstance(value, list):
        return [_harmless_value(path, item) for item in value]
    return _harmless(path, value) if isinstance(value, dict) else value


def _with_layers(values: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """A copy with ``layers`` in each stack; lists with an entry per layer are cut or repeated."""
    if not 1 <= layers <= MOST_LAYERS:
        raise InputError(f"--layers {layers} is out of range (1 to {MOST_LAYERS:,})")
    changed: dict[str, Any] = {}
    counts = {values[key] for key in LAYER_KEYS if isinstance(values.get(key), int)}
    for key, value in values.items():
        if isinstance(value, dict):
            changed[key] = _with_layers(value, layers) if _counts_layers(value) else value
        elif key in LAYER_KEYS and isinstance(value, int):
            changed[key] = layers
        elif key in LAYER_KEYS and isinstance(value, list):
            changed[key] = [layers] * len(value)
        elif isinstance(value, list) and value and len(value) in counts and "layer" in key:
            changed[key] = [value[i % len(value)] for i in range(layers)]
        else:
            changed[key] = value
    if not _counts_layers(values):
        changed["num_hidden_layers"] = layers
    return changed


def _counts_layers(values: Mapping[str, Any]) -> bool:
    inside = (value for value in values.values() if isinstance(value, dict))
    return any(key in values for key in LAYER_KEYS) or any(map(_counts_layers, inside))


def _set(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise InputError(f"--set {setting}: expected key=value", hint="--set hidden_size=64")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    *path, last = key.split(".")
    for part in path:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set {key}: '{part}' holds no further keys")
        values = inner
    values[last] = value
