"""``[[tool.gradprobe.targets]]``: Python models and Hugging Face configurations to be checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from gradprobe.errors import Place, suggestion
from gradprobe.spec.entry import Entry
from gradprobe.spec.network import TensorSpec, Value, is_target
from gradprobe.spec.sources.python import misfit
from gradprobe.spec.vocabulary import LOSSES, MAX_SIZE, MODES, TENSOR_DTYPES
from gradprobe.tasks.check.toml import Reader

_WORDS = ("target", "path", "mode", "loss", "weights", "weights-prefix")
_KEYS = (*_WORDS, "args", "inputs", "layers", "set")
_SHAPE = "{shape = [8, 128], dtype = 'int64', high = 8000}, the batch first"
_HEADER = re.compile(r"\s*\[\[\s*(?:tool\s*\.\s*gradprobe\s*\.\s*)?targets\s*\]\]")


def read_entries(reader: Reader, keys: list[str], value: Any) -> tuple[Entry, ...]:
    """The targets of a configuration file.

    Raises:
        InputError: one has no target, or a key or a value that does not fit; names the line.
    """
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        header = ".".join(filter(None, (reader.section, "targets")))
        reader.fail(f"targets: expected tables: [[{header}]]", keys)
    lines = [i + 1 for i, line in enumerate(reader.text.splitlines()) if _HEADER.match(line)]
    entries: list[Entry] = []
    for index, item in enumerate(value):
        line = lines[index] if len(lines) == len(value) else reader.place(keys).line
        entries.append(_entry(reader, keys, item, Place(str(reader.path), line, 1)))
    labels = [entry.label for entry in entries]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        reader.fail(f"targets: {twice} stands twice", [*keys, "target"])
    return tuple(entries)


def _entry(reader: Reader, keys: list[str], item: Mapping[str, Any], place: Place) -> Entry:
    for key in item:
        if key not in _KEYS:
            hint = suggestion(key, _KEYS) or f"known: {', '.join(_KEYS)}"
            reader.fail(f"targets: unknown key '{key}'", [*keys, key], hint)
    words = {key: item.get(key) for key in _WORDS}
    for key, word in words.items():
        if word is not None and not isinstance(word, str):
            reader.fail(f"{key}: expected a string", [*keys, key])
    if not words["target"]:
        reader.fail("targets: 'target' is missing", keys, 'target = "package.module:name"')
    if words["mode"] not in (None, *MODES):
        reader.fail("mode: train or eval", [*keys, "mode"])
    if words["loss"] and not is_target(words["loss"]) and words["loss"] not in LOSSES:
        reader.fail(f"loss: unknown loss '{words['loss']}'", [*keys, "loss"])
    if words["weights-prefix"] and not words["weights"]:
        reader.fail("weights-prefix: there are no weights", [*keys, "weights-prefix"])
    layers = item.get("layers")
    return Entry(
        target=words["target"],
        folder=str(reader.path.parent),
        place=place,
        path=words["path"],
        args=_arguments(reader, [*keys, "args"], item.get("args", {})),
        inputs=_inputs(reader, [*keys, "inputs"], item.get("inputs")),
        mode=words["mode"],
        loss=words["loss"],
        layers=None if layers is None else reader.whole([*keys, "layers"], layers, 10_000),
        settings=_settings(reader, [*keys, "set"], item.get("set", {})),
        weights=words["weights"],
        weights_prefix=words["weights-prefix"] or "",
    )


def _arguments(reader: Reader, keys: list[str], value: Any) -> Mapping[str, Value]:
    arguments = reader.table(keys, value)
    try:
        json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError):
        reader.fail("args: a value is none that JSON has", keys)
    return arguments


def _settings(reader: Reader, keys: list[str], value: Any) -> tuple[str, ...]:
    settings = _arguments(reader, keys, value)
    return tuple(f"{key}={json.dumps(value)}" for key, value in settings.items())


def _inputs(reader: Reader, keys: list[str], value: Any) -> tuple[TensorSpec, ...] | str | None:
    if value is None:
        return None
    if isinstance(value, str):
        if not is_target(value):
            what = f"inputs: '{value}' is not of the form package.module:function"
            reader.fail(what, keys, f"or {_SHAPE}")
        return value
    items = value if isinstance(value, list) else [value]
    return tuple(_tensor(reader, keys, item) for item in items)


def _tensor(reader: Reader, keys: list[str], value: Any) -> TensorSpec:
    fields = reader.table(keys, value)
    shape, dtype = fields.get("shape"), fields.get("dtype", "float32")
    if not isinstance(shape, list) or not shape or set(fields) - {"shape", "dtype", "high"}:
        reader.fail("inputs: a shape, and perhaps a dtype and 'high'", keys, _SHAPE)
    sizes = tuple(reader.whole(keys, size, MAX_SIZE) for size in shape)
    if dtype not in TENSOR_DTYPES:
        hint = suggestion(str(dtype), TENSOR_DTYPES) or f"known: {', '.join(TENSOR_DTYPES)}"
        reader.fail(f"inputs: unknown dtype '{dtype}'", keys, hint)
    high = reader.whole(keys, fields["high"], MAX_SIZE) if "high" in fields else None
    tensor = TensorSpec(sizes, dtype, high)
    if wrong := misfit(tensor):
        reader.fail(f"inputs: {wrong}", keys)
    return tensor
