"""What is read once more on the way back: in memory as far as it fits, the rest on the disk."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from typing import IO, NamedTuple
from weakref import ref

import torch
from torch import Tensor

from gradprobe.errors import ModelError


class Store:
    """Keeps tensors: the first in memory, the others in a file that has no name.

    So the file is gone with the store, and with the process, however that ends.

    Args:
        most: bytes that may stay in memory.
        dtype: the name of what floating tensors are kept in, where it is not their own.
    """

    def __init__(self, most: float = math.inf, dtype: str | None = None) -> None:
        self.left = most
        self.dtype: torch.dtype | None = getattr(torch, dtype) if dtype else None
        self.file: IO[bytes] | None = None

    def __del__(self) -> None:
        if self.file is not None:
            self.file.close()

    def keep(self, tensor: Tensor) -> Kept:
        """The tensor, which may be dropped now.

        Raises:
            ModelError: the disk is full.
        """
        value = tensor.detach()
        if self.dtype is not None and value.is_floating_point():
            value = value.to(self.dtype)
        place = value._version
        if value.nbytes <= self.left:
            self.left -= value.nbytes
        else:
            place = self._write(value)
            value = torch.empty(value.shape, dtype=value.dtype, device="meta")
        return Kept(self, tensor.new_empty(0), tensor.requires_grad, value, place)

    def _write(self, value: Tensor) -> int:
        """Where in the file it stands."""
        try:
            self.file = self.file or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            place = self.file.seek(0, 2)
            rest = value.cpu().contiguous().flatten().view(torch.uint8).numpy().data
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            what = f"what stands between blocks cannot be kept in {tempfile.gettempdir()}"
            hint = "TMPDIR names another folder, --max-memory allows more in memory"
            raise ModelError(f"{what}: {error.strerror or error}", hint=hint) from error
        return place

    def read(self, place: int, like: Tensor) -> Tensor:
        """What stands at a place of the file, of the shape and dtype of ``like``."""
        assert self.file is not None
        self.file.seek(place)
        value = torch.empty(like.shape, dtype=like.dtype)
        rest = value.flatten().view(torch.uint8).numpy().data
        while rest:
            rest = rest[self.file.readinto(rest) :]  # type: ignore[attr-defined]
        return value


class Kept(NamedTuple):
    """A tensor in a store."""

    store: Store
    like: Tensor  # of the tensor's dtype, on its device
    requires_grad: bool
    value: Tensor  # without numbers where those are in the file
    place: int  # there, or the version of the value

    def get(self) -> Tensor:
        """The tensor, a leaf.

        Raises:
            RuntimeError: it was overwritten since.
        """
        value = self.value
        if value.is_meta:
            value = self.store.read(self.place, value)
        elif value._version != self.place:
            raise RuntimeError("what a block reads was modified by an inplace operation")
        return value.to(self.like).detach().requires_grad_(self.requires_grad)


def while_used(made: Callable[[], Store]) -> Callable[[], Store]:
    """What gives one store as long as something is kept in it, and then another."""
    last: list[ref[Store]] = []

    def current() -> Store:
        store = last[0]() if last else None
        if store is None:
            store = made()
            last[:] = [ref(store)]
        return store

    return current
