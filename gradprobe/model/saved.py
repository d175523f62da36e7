"""A checkpoint larger than memory: a tensor is read when the block is made that it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradprobe.errors import InputError, first_line
from gradprobe.files import open_regular
from gradprobe.model.on_demand import parts_of
from gradprobe.model.rows import modules_of
from gradprobe.model.streamed import Streamed
from gradprobe.spec.network import Weights
from gradprobe.spec.weights import INDEX, gathered

SUFFIX = ".safetensors"
COUNTER = ".num_batches_tracked"  # of a BatchNorm, which checkpoints may lack


def read_by_block(weights: Weights | None) -> bool:
    """Whether a block may be made without the rest of the checkpoint, if there is one."""
    return weights is None or weights.file.endswith((INDEX, SUFFIX))


class Saved(NamedTuple):
    """The tensors of safetensors files, none of which is in memory."""

    places: Mapping[str, Path]  # by the tensors' names in the files
    prefix: str

    def has(self, key: str) -> bool:
        """Whether there is such a tensor."""
        return self.prefix + key in self.places

    def read(self, key: str) -> Tensor:
        """The tensor whose name is the prefix and ``key``.

        Raises:
            InputError: the file is not what it was.
        """
        name = self.prefix + key
        with _opened(self.places[name]) as file:
            tensor: Tensor = file.get_tensor(name).clone()
        return tensor


def saved_in(weights: Weights) -> tuple[Saved, dict[str, Tensor]]:
    """A checkpoint, and its tensors on the meta device.

    Raises:
        InputError: a file cannot be read, or is no safetensors file.
    """
    if not read_by_block(weights):
        message = (
            f"--weights {weights.file} is read as a whole, and --stream makes one block at a time"
        )
        raise InputError(message, hint="save it as .safetensors, which is read block by block")
    outlines = gathered(weights.file, _outlines)
    places = {name: path for name, (path, _) in outlines.items()}
    return Saved(places, weights.prefix), {name: t for name, (_, t) in outlines.items()}


def _outlines(path: Path) -> dict[str, tuple[Path, Tensor]]:
    """The tensors of a safetensors file on the meta device, each with the file."""
    with _opened(path) as file:
        shapes = {name: file.get_slice(name).get_shape() for name in sorted(file.keys())}
    return {name: (path, torch.empty(shape, device="meta")) for name, shape in shapes.items()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import safe_open

    try:
        with open_regular(path):
            pass
        with safe_open(path, framework="pt") as file:
            yield file
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except InputError:
        raise
    except Exception as error:  # safetensors has its own
        raise InputError(
            f"{path} is not a readable {SUFFIX} file: {first_line(error)[:120]}"
        ) from error


def read_by_rows(model: nn.Module, saved: Saved) -> None:
    """Whatever row is made of the model has the checkpoint's numbers; what stays in memory too."""
    if isinstance(model, Streamed):
        model.saved = lambda key: saved.read(key) if saved.has(key) else None
        return
    own = {key: tensor for key, tensor in model.state_dict().items() if saved.has(key)}
    model.load_state_dict({k: saved.read(k) for k, t in own.items() if not t.is_meta}, strict=False)
    for part in parts_of(modules_of(model)):
        part.fill = partial(_filled, saved, part.path, part.fill)


def _filled(saved: Saved, path: str, draw: Callable[[nn.Module], None], module: nn.Module) -> None:
    """Give a part the checkpoint's numbers, and what it lacks by drawing."""
    named = {f"{path}.{name}": p for name, p in module.named_parameters() if not p.is_meta}
    if not all(map(saved.has, named)):
        draw(module)
    for key, parameter in named.items():
        if saved.has(key):
            parameter.data = saved.read(key)
