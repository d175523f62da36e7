"""A target made ready: what every measurement takes, wherever it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from gradprobe.model.rows import Row

Loss = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Subject:
    """A module, what it is called with, and the loss that its output goes into.

    ``loss`` is what the user asked for; ``projection`` is the fixed random direction of the main
    output in which a second look is taken, as the calibration's networks were. ``told`` is what was
    resolved for the report: ``dtype``, ``device``, ``batch_size``, the loss's name.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    loss: Loss
    projection: Loss
    rows: tuple[Row, ...]  # of level 0
    seed: int = 0
    memory: int = 8 * 2**30  # bytes that a measurement may take
    told: Mapping[str, bool | int | float | str | None] = field(default_factory=dict)
