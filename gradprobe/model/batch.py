"""What goes into the network: drawn at random, or read from a file."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from gradprobe.errors import InputError, first_line
from gradprobe.files import open_regular
from gradprobe.model.seeds import derive
from gradprobe.spec.network import InputSpec
from gradprobe.spec.options import DEFAULT_BATCH_SIZE

INPUT_KEYS = ("x", "X", "inputs", "input", "data", "images")
LABEL_KEYS = ("y", "Y", "labels", "label", "targets", "target")
DATA_SUFFIXES = (".npy", ".npz", ".safetensors")


class Batch(NamedTuple):
    """``inputs`` of shape (batch, …) and, where a file has them, ``labels``."""

    inputs: Tensor
    labels: Tensor | None = None


def random_batch(spec: InputSpec, size: int, seed: int) -> Batch:
    """Standard normal samples, or uniformly drawn tokens."""
    generator = torch.Generator().manual_seed(derive(seed, "input"))
    shape = (size, *spec.shape)
    if spec.tokens is None:
        return Batch(torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu"))
    return Batch(torch.randint(spec.tokens, shape, generator=generator, device="cpu"))


def load_batch(path: str, spec: InputSpec | None, size: int | None, max_bytes: int) -> Batch:
    """The first ``size`` samples (default 32) of a .npy, .npz or .safetensors file.

    Without a spec, any shape and integers as well as floating point numbers will do.

    Raises:
        InputError: no such file, not such data, or data that does not fit the spec's input.
    """
    arrays = read_arrays(path, max_bytes)
    inputs = _pick(arrays, INPUT_KEYS)
    if inputs is None:
        if len(arrays) != 1:
            names = ", ".join(sorted(arrays)[:8])
            raise InputError(f"{path}: none of {', '.join(INPUT_KEYS)} among its arrays: {names}")
        [inputs] = arrays.values()
    shape = tuple(inputs.shape)
    if spec is not None and (shape[1:] != spec.shape or not shape):
        wanted = f"the spec's input {list(spec.shape)}"
        raise InputError(f"{path}: samples have shape {list(shape[1:])}, {wanted}")
    if not shape:
        raise InputError(f"{path}: one number is no batch of samples")
    size = min(size or DEFAULT_BATCH_SIZE, shape[0])
    if size == 0:
        raise InputError(f"{path}: the file holds no samples")
    inputs = _as_input(inputs[:size], path, spec)
    labels = _pick(arrays, LABEL_KEYS)
    if labels is not None:
        if labels.dim() == 0 or labels.shape[0] < size:
            raise InputError(f"{path}: {size} samples but fewer labels")
        labels = labels[:size]
    return Batch(inputs, labels)


def _as_input(inputs: Tensor, path: str, spec: InputSpec | None) -> Tensor:
    """``inputs`` in the dtype that a network takes: whole numbers for tokens, else floating."""
    if spec is None and not inputs.is_floating_point() and not inputs.is_complex():
        return inputs.long()
    if spec is not None and spec.tokens is not None:
        if inputs.is_floating_point():
            held = f"the file holds {inputs.dtype}"
            raise InputError(f"{path}: the spec takes integer tokens, {held}")
        inputs = inputs.long()
        low, high = int(inputs.min()), int(inputs.max())
        if low < 0 or high >= spec.tokens:
            wanted = f"the spec has 0 to {spec.tokens - 1}"
            raise InputError(f"{path}: tokens from {low} to {high}, {wanted}")
        return inputs
    if inputs.is_complex():
        raise InputError(f"{path}: samples are complex: a spec takes real numbers")
    if inputs.dim() < 2 and spec is None:
        hint = "reshape them to (samples, 1), or what the model takes"
        raise InputError(f"{path}: its samples are single numbers, without a dimension", hint=hint)
    inputs = inputs.to(torch.float64 if inputs.dtype is torch.float64 else torch.float32)
    bad = (~torch.isfinite(inputs.reshape(len(inputs), -1))).any(1).nonzero()
    if bad.numel():
        raise InputError(f"{path}: sample {int(bad[0])} holds NaN or infinity")
    return inputs


def read_arrays(path: str, max_bytes: int) -> dict[str, Tensor]:
    """The arrays of a .npy, .npz or .safetensors file by their names; of a .npy file ``x``.

    Raises:
        InputError: no such file, too large, or not such data.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in DATA_SUFFIXES:
        hint = ""
        if suffix in (".pt", ".pth", ".pkl", ".pickle", ".bin"):
            hint = "a pickle can run code when it is read: save the batch with safetensors"
        raise InputError(f"--data {path}: expected a {', '.join(DATA_SUFFIXES)} file", hint=hint)
    import numpy  # here, since only --data needs it

    try:
        with open_regular(path) as stream:
            size = unpacked_size(stream) if suffix == ".npz" else os.fstat(stream.fileno()).st_size
            if size > max_bytes:
                raise InputError(f"{path} holds {size / 2**30:.3g} GiB", hint="see --max-memory")
            if suffix == ".safetensors":
                from safetensors.torch import load

                return dict(load(stream.read()))
            stream.seek(0)
            loaded = numpy.load(stream, allow_pickle=False)
            arrays = (
                {key: loaded[key] for key in loaded.files} if suffix == ".npz" else {"x": loaded}
            )
        return {key: _native(array) for key, array in arrays.items()}
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # zlib, zipfile, safetensors, numpy: each has its own
        reason = first_line(error)
        if "pickle" in reason:
            reason = "it holds Python objects, whose reading could run code"
        raise InputError(f"{path} is not a readable {suffix} file: {reason[:120]}") from error


def _native(array: Any) -> Tensor:
    """The tensor of a numpy array, whichever byte of its numbers comes first."""
    import numpy

    return torch.from_numpy(numpy.ascontiguousarray(array, array.dtype.newbyteorder("=")))


def unpacked_size(stream: BinaryIO) -> int:
    """What the files of a zip archive take once they are unpacked, in bytes."""
    with zipfile.ZipFile(stream) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def _pick(arrays: dict[str, Tensor], keys: tuple[str, ...]) -> Tensor | None:
    return next((arrays[key] for key in keys if key in arrays), None)
