"""A checkpoint's tensors → the parameters and buffers of a model, all of them or an error."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradprobe.errors import InputError, first_line
from gradprobe.files import open_regular
from gradprobe.model.batch import read_arrays, unpacked_size
from gradprobe.model.on_demand import parts_of
from gradprobe.model.rows import modules_of
from gradprobe.model.saved import COUNTER, read_by_rows, saved_in
from gradprobe.model.streamed import Streamed
from gradprobe.numbers import plural
from gradprobe.spec.network import Weights
from gradprobe.spec.weights import INDEX, gathered

_PICKLED = (".pt", ".pth", ".ckpt", ".bin")
_INSIDE = ("state_dict", "model_state_dict", "model", "module", "weights")  # of a training's state
_MOST_TOLD = 8  # keys of each kind
_MOST_NEAR = 2_000  # names that are held against a missing one
_MATCHES_WITHOUT = 0.5  # share of the model's keys from which on a prefix is worth naming

State = Mapping[str, Tensor]


def load_weights(model: nn.Module, weights: Weights | None, most: int) -> dict[str, str]:
    """Put a checkpoint's tensors into ``model``, strictly; gives what the report says of them.

    Args:
        most: bytes that the checkpoint may take, where it is not read row by row.

    Raises:
        InputError: a file cannot be read, holds more than tensors, or does not fit; ``details``
            has the keys, each with the nearest name.
    """
    if weights is None:
        return {}
    by_rows = isinstance(model, Streamed) or bool(parts_of(modules_of(model)))
    saved, whole = saved_in(weights) if by_rows else (None, read_weights(weights.file, most))
    state = _without(whole, weights)
    wrong = _misshapen(model.state_dict(), state)
    if wrong or saved:
        missing, unknown = _set_apart(model, state)
    else:
        try:
            missing, unknown = map(list, model.load_state_dict(dict(state), strict=False))
        except Exception as error:  # what the model's own hooks raise, or copy_ refuses
            raise InputError(f"{weights.file} cannot be loaded: {first_line(error)}") from error
    missing = _not_tied(model, missing)
    missing = _not_ignored(model, "missing", missing)
    unknown = _not_ignored(model, "unexpected", unknown)
    if wrong or missing or unknown:
        raise _mismatch(model, state, weights, (missing, unknown, wrong))
    if saved:
        read_by_rows(model, saved)
    told = {"weights": weights.name or weights.file}
    return told | {"weights_prefix": weights.prefix} if weights.prefix else told


def read_weights(file: str, most: int) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their keys; no code of a pickle is run.

    Raises:
        InputError: a file is missing, no regular one, damaged, too large, or holds other objects.
    """
    left = most

    def read(path: Path) -> dict[str, Tensor]:
        nonlocal left
        held = _read(path, left)
        left -= sum(tensor.nbytes for tensor in held.values())
        return held

    return gathered(file, read)


def _read(path: Path, most: int) -> dict[str, Tensor]:
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return read_arrays(str(path), most)
    if suffix not in _PICKLED:
        kinds = ", ".join((".safetensors", *_PICKLED, f"*{INDEX}"))
        raise InputError(f"--weights {path}: expected one of {kinds}")
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            if zipfile.is_zipfile(stream):
                size = max(size, unpacked_size(stream))
            if size > most:
                raise InputError(f"{path} holds {size / 2**30:.3g} GiB", hint="see --max-memory")
            stream.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded = torch.load(stream, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # pickle, zipfile and torch each have their own
        reason = first_line(error)
        if "eights only" in reason or "nsupported" in reason:
            hint = "torch.save(model.state_dict(), FILE), or safetensors, holds tensors alone"
            message = f"{path} holds more than tensors, and reading that could run code"
            raise InputError(message, hint=hint) from error
        raise InputError(f"{path} is not a readable {suffix} file: {reason[:120]}") from error
    return _state_in(path, loaded)


def _state_in(path: Path, loaded: Any) -> dict[str, Tensor]:
    """The state dict itself, or the one inside what a training loop has saved."""
    if isinstance(loaded, Mapping):
        parts = {key: loaded[key] for key in _INSIDE if key in loaded} | dict(loaded)
        states = [state for state in (loaded, *parts.values()) if _is_state(state)]
        if states:
            return {key: value for key, value in states[0].items() if isinstance(value, Tensor)}
    held = ", ".join(map(str, loaded)) if isinstance(loaded, Mapping) else type(loaded).__name__
    raise InputError(f"{path} holds no state dict of a model: {held[:120]}")


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and any(isinstance(tensor, Tensor) for tensor in value.values())
        and all(
            isinstance(key, str) and (isinstance(tensor, Tensor) or key.endswith("_extra_state"))
            for key, tensor in value.items()
        )
    )


def _without(state: State, weights: Weights) -> State:
    """The tensors whose keys begin with the prefix, without it."""
    prefix = weights.prefix
    stripped = {key[len(prefix) :]: t for key, t in state.items() if key.startswith(prefix)}
    if not stripped:
        first = ", ".join(f"'{key}'" for key in list(state)[:3])
        message = f"--weights-prefix: no key of {weights.file} begins with '{prefix}'"
        raise InputError(message, hint=f"its keys: {first}")
    return stripped


def _misshapen(own: State, state: State) -> list[str]:
    """The keys of both whose tensors have another shape; a lazy layer takes any."""
    from torch.nn.parameter import is_lazy

    both = (key for key in own if key in state and isinstance(own[key], Tensor))
    return [k for k in both if not is_lazy(own[k]) and own[k].shape != state[k].shape]


def _set_apart(model: nn.Module, state: State) -> tuple[list[str], list[str]]:
    """What ``load_state_dict`` would give, which takes an old BatchNorm that has no counter."""
    own = model.state_dict()
    missing = [key for key in own if key not in state and not key.endswith(COUNTER)]
    return missing, [key for key in state if key not in own]


def _not_tied(model: nn.Module, missing: Sequence[str]) -> list[str]:
    """Without the keys whose tensor another key of the model holds too, which is not missing."""
    lost = set(missing)
    own = model.state_dict(keep_vars=True)
    filled = {id(tensor) for key, tensor in own.items() if key not in lost}
    return [key for key in missing if key not in own or id(own[key]) not in filled]


def _not_ignored(model: nn.Module, kind: str, keys: Iterable[str]) -> list[str]:
    """Without the keys that the transformers library leaves to its models' classes."""
    patterns = getattr(model, f"_keys_to_ignore_on_load_{kind}", None) or ()
    return [key for key in keys if not any(re.search(pattern, key) for pattern in patterns)]


# ---- what does not fit


def _mismatch(
    model: nn.Module, state: State, weights: Weights, keys: tuple[list[str], ...]
) -> InputError:
    """Each key that does not fit, with the nearest of the other side."""
    missing, unknown, wrong = keys
    own = {key: tensor for key, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    counts = [
        f"{plural(len(missing), 'key')} missing" if missing else "",
        f"{len(unknown)} unknown" if unknown else "",
        f"{len(wrong)} of another shape" if wrong else "",
    ]
    lines = [
        *_listed(
            "missing", missing, own, ("the file", {k: state[k] for k in unknown if k in state})
        ),
        *_listed(
            "unknown", unknown, state, ("the model", {k: own[k] for k in missing if k in own})
        ),
        *_cut([f"shape: {k} {_shape(own, k)}; the file has {_shape(state, k)}" for k in wrong]),
    ]
    name = type(model).__name__
    name = "the network" if name in ("Network", "Streamed") else name
    message = f"--weights {weights.file} does not fit {name}: {', '.join(filter(None, counts))}"
    return InputError(message, hint=_prefix_hint(own, state), details=lines)


def _listed(what: str, keys: list[str], own: State, others: tuple[str, State]) -> list[str]:
    """A line for each of ``keys`` with the nearest key of the others, first of the same shape."""
    where, tensors = others
    lines = []
    for key in keys[: _MOST_TOLD + 1]:
        shape = _shape(own, key)
        alike = [other for other in tensors if _shape(tensors, other) == shape]
        near = [
            match
            for names in (alike, list(tensors))
            for match in get_close_matches(key, names[:_MOST_NEAR], n=1)
        ]
        lines.append(
            f"{what}: {key} {shape}".rstrip() + (f"; {where} has {near[0]}" if near else "")
        )
    return _cut(lines + keys[_MOST_TOLD + 1 :])


def _cut(lines: list[str]) -> list[str]:
    rest = len(lines) - _MOST_TOLD
    return [*lines[:_MOST_TOLD], f"and {rest:,} more"] if rest > 1 else lines


def _shape(state: State, key: str) -> str:
    tensor = state.get(key)
    return str(list(tensor.shape)) if isinstance(tensor, Tensor) else ""


def _prefix_hint(own: State, state: State) -> str:
    """Where the file's keys are the model's behind one prefix, that prefix."""
    fits: dict[str, int] = {}
    for key in state:
        for name in (key[i + 1 :] for i, letter in enumerate(key) if letter == "."):
            if name in own:
                prefix = key[: -len(name)]
                fits[prefix] = fits.get(prefix, 0) + 1
                break
    best = max(fits, key=lambda prefix: fits[prefix], default="")
    if best and fits[best] >= _MATCHES_WITHOUT * len(own):
        return f"--weights-prefix {best} takes {plural(fits[best], 'key')} that fit"
    return ""
