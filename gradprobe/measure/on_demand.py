"""What the parts of a model leave behind whose weights are there only while they run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from gradprobe.measure.ends import Graph
from gradprobe.measure.norms import extremes_of, norms
from gradprobe.measure.passes import Extremes
from gradprobe.model.on_demand import Drawn, Listener, heard_by

_LARGE = 1 << 15  # elements: from here a tensor is reduced to its norm at once


class Ledger(Listener):
    """The numbers of weights that are gone, by their ids; small tensors stay as they are."""

    def __init__(self) -> None:
        self.weights: dict[int, Tensor | float] = {}
        self.gradients: dict[int, Tensor | float] = {}
        self.extremes: Extremes = {}
        self.sums: dict[int, Tensor] = {}
        self.graph: Graph | None = None

    def made(self, drawn: Drawn, outputs: list[Any]) -> None:
        """Note what the weights of a part are."""
        for outline, fresh in drawn:
            if id(outline) not in self.weights:
                self.weights[id(outline)] = _reduced(fresh.detach())
                self.extremes |= extremes_of([(id(outline), fresh)])

    def behind(self, ends: list[Tensor], named: list[tuple[str, nn.Parameter]]) -> None:
        """Read the graph of a part."""
        if self.graph is not None:
            self.graph.read(ends, named)

    def arrived(self, parameter: nn.Parameter, gradient: Tensor, left: int) -> None:
        """Note a gradient; of a part that ran several times their sum."""
        key = id(parameter)
        before = self.sums.pop(key, None)
        gradient = gradient if before is None else before + gradient
        if left:
            self.sums[key] = gradient.clone()
        else:
            self.gradients[key] = _reduced(gradient)

    def gradient(self, parameter: Tensor) -> Tensor | float:
        """That of a parameter on the meta device, or its norm."""
        key = id(parameter)
        return _reduced(self.sums[key]) if key in self.sums else self.gradients[key]

    def own_norms(self, parameters: Sequence[nn.Parameter]) -> list[float]:
        """The norms of parameters, wherever they are; NaN of those that never were."""
        own = [self.weights.get(id(p), math.nan) if p.is_meta else p.detach() for p in parameters]
        return norms_of(own)


def norms_of(values: Sequence[Tensor | float]) -> list[float]:
    """The norms of tensors, among which some are norms already."""
    sizes = iter(norms([x for x in values if isinstance(x, Tensor)]))
    return [next(sizes) if isinstance(x, Tensor) else x for x in values]


@contextmanager
def noting(modules: list[nn.Module]) -> Iterator[Ledger | None]:
    """Meanwhile a ledger is kept of the parts among ``modules``; ``None`` where there are none."""
    ledger = Ledger()
    with heard_by(ledger, modules) as parts:
        yield ledger if parts else None


def _reduced(tensor: Tensor) -> Tensor | float:
    return tensor.clone() if tensor.numel() < _LARGE else norms([tensor])[0]
