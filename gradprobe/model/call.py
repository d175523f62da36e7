"""What a model was called with, kept in a .safetensors file, and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gradprobe.errors import InputError, first_line
from gradprobe.files import open_regular, replace_file
from gradprobe.model.batch import read_arrays

_ARGS, _KWARGS = "args.", "kwargs."
_METADATA = "__metadata__"  # the one key of a header that is no tensor's
_MOST_IN_HEADER = 100_000_000  # bytes, as safetensors has it
_PLAIN = (bool, int, float, str, type(None))  # beside tensors, what a call may hold


def save_call(path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Write a call's tensors as ``args.0``, ``kwargs.name``, and its plain values beside them.

    Raises:
        InputError: an argument is neither, or the file cannot be written.
    """
    from safetensors.torch import save

    named = {f"{_ARGS}{i}": value for i, value in enumerate(args)}
    named |= {f"{_KWARGS}{key}": value for key, value in kwargs.items()}
    tensors = {
        key: value.detach().cpu().contiguous().clone()
        for key, value in named.items()
        if isinstance(value, Tensor)
    }
    rest = {key: value for key, value in named.items() if key not in tensors}
    for key, value in rest.items():
        if not isinstance(value, _PLAIN):
            message = f"--emit-inputs: {key} is a {type(value).__name__}, and no tensor"
            raise InputError(message, hint="--inputs package.module:function can make any call")
    try:
        replace_file(Path(path), save(tensors, {"call": json.dumps(rest)}))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    except Exception as error:  # safetensors has its own
        raise InputError(f"--emit-inputs: {first_line(error)}") from error


def load_call(
    path: str, size: int | None, max_bytes: int
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The call that ``save_call`` kept, or ``None`` where the file holds none.

    Args:
        size: only so many samples, of every tensor that has as many as the first.

    Raises:
        InputError: as ``load_batch``.
    """
    if Path(path).suffix.lower() != ".safetensors":
        return None
    header = _header(path)
    keys = header.keys() - {_METADATA}
    if not keys or not all(key.startswith((_ARGS, _KWARGS)) for key in keys):
        return None
    values: dict[str, Any] = dict(read_arrays(path, max_bytes))
    count = next(iter(t.shape[0] for t in values.values() if t.dim()), 0)
    for key, tensor in values.items():
        if size and tensor.dim() and tensor.shape[0] == count:
            values[key] = tensor[:size]
    values |= _plain_values(path, header)
    places = [f"{_ARGS}{i}" for i in range(len(values))]
    args = tuple(values[key] for key in places if key in values)
    kwargs = {k.removeprefix(_KWARGS): v for k, v in values.items() if k.startswith(_KWARGS)}
    if len(args) + len(kwargs) < len(values):
        raise InputError(f"{path}: an argument is missing among {', '.join(list(values)[:8])}")
    return args, kwargs


def _header(path: str) -> dict[str, Any]:
    """What a .safetensors file says of its tensors; nothing where it is none."""
    try:
        with open_regular(path) as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size)) if size <= _MOST_IN_HEADER else None
    except (OSError, ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def _plain_values(path: str, header: Mapping[str, Any]) -> dict[str, Any]:
    """The values beside the tensors, which stand in the file's header."""
    try:
        values = json.loads(header.get(_METADATA, {}).get("call", "{}"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: what stands beside its tensors is not JSON") from error
    if not isinstance(values, dict) or not all(isinstance(v, _PLAIN) for v in values.values()):
        raise InputError(f"{path}: what stands beside its tensors is no call")
    return values
