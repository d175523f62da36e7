"""A model run once more, as it is or with other weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gradprobe.model.seeds import derive, reseed_all
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import map_tensors


def output_of(subject: Subject) -> Any:
    """What the model gives; what it draws is the same each time."""
    reseed_all(derive(subject.seed, "forward"))
    args, kwargs = map_tensors(torch.clone, (subject.args, dict(subject.kwargs)))
    return subject.model(*args, **kwargs)


@contextmanager
def standing_at(weights: Mapping[str, Tensor], moved: Mapping[str, Tensor]) -> Iterator[None]:
    """The same parameters with other values, wherever they are used; afterwards with their own."""
    own = {name: weights[name].data for name in moved}
    try:
        for name, value in moved.items():
            weights[name].data = value
        yield
    finally:
        for name, value in own.items():
            weights[name].data = value
