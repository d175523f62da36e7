"""Tensors that are followed from one function of torch to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gradprobe.model.tensors import tensors_in

Note = TypeVar("Note")
MOST = 10_000  # nodes behind a tensor that are looked at


class Follower(TorchFunctionMode, Generic[Note]):
    """Follows what a function gives; a subclass says what it notes of it, and what follows on.

    ``following`` has, by id, what is followed and the note on it; the tensor is kept, so that no
    other gets its id.
    """

    def __init__(self, source: Callable[..., Any]) -> None:
        super().__init__()
        self.source = source
        self.following: dict[int, tuple[Tensor, Note]] = {}

    def begin(self, result: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Note what ``source`` gave; what is returned is handed on in its place."""
        raise NotImplementedError

    def follow(self, name: str, followed: list[Tensor], others: list[Tensor], result: Any) -> None:
        """The function of this name made ``result`` of them, the first of which are followed."""
        raise NotImplementedError

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is self.source:
            return self.begin(result, args, kwargs)
        if self.following and torch.is_grad_enabled():
            tensors = list(tensors_in([args, kwargs]))
            if followed := [x for x in tensors if id(x) in self.following]:
                others = [x for x in tensors if id(x) not in self.following]
                name = getattr(func, "__name__", "").strip("_")
                self.follow(name, followed, others, result)
        return result
