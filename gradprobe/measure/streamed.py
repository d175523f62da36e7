"""A network that is never in memory as a whole: one segment at a time is made, run and dropped.

Forward, only what stands between two segments is kept; backward, each is made and run again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from gradprobe.measure.ends import Graph, main_output
from gradprobe.measure.norms import ActivationStats, activation_stats, extremes_of
from gradprobe.measure.passes import ParameterNorms, Pass, failed, scalar
from gradprobe.measure.progress import Step, tell
from gradprobe.measure.segments import (
    SEGMENT_ROWS,
    Segment,
    backward,
    first_leaf,
    forward,
    next_leaf,
    passes_of,
    weighted,
    with_input,
)
from gradprobe.measure.surroundings import UNKNOWN
from gradprobe.model.kept import Kept, Store
from gradprobe.model.rows import parameters_of
from gradprobe.model.seeds import generator_states, set_generator_states
from gradprobe.model.streamed import Change, Streamed
from gradprobe.model.subject import Loss

# From the end of a segment to a scalar that has the gradients of the loss.
Root = Callable[[Tensor], Tensor | None]


class _Boundary(NamedTuple):
    """What a segment is run from once more."""

    start: int  # index of its first row
    leaf: Kept
    states: list[Tensor]  # of the generators that dropout draws from


def measure_streamed(network: Streamed, x: Tensor, loss: Loss) -> Pass:
    """One pass, as ``segments.measure_chain`` makes it, with the same numbers.

    Raises:
        InputError, ModelError: as ``measure``.
    """
    run = _Run(network, x)
    try:
        run.forward()
        run.backward(lambda output: scalar(loss(output)))
        around = with_input(network.rows, x, run.around)
    except Exception as error:
        raise failed(error, None, network.rows) from error
    rows = passes_of(network.rows, run.stats, run.gradients)
    return Pass(rows, run.parameters, run.loss, around=around, extremes=run.extremes)


class Replay:
    """A pass of which each row can be run once more by itself."""

    def __init__(self, network: Streamed, x: Tensor, loss: Loss) -> None:
        run = _Run(network, x, most=1)
        run.forward()
        self.network, self.boundaries = network, list(run.boundaries)
        self.roots: list[Root] = []
        run.backward(lambda output: scalar(loss(output)), self.roots)
        self.roots.reverse()

    def root(self, index: int, module: nn.Module) -> tuple[Tensor, Tensor | None]:
        """What the row reads, and a scalar that has the gradients of the loss there.

        Args:
            module: the row's, as the network has made it.
        """
        leaf, output = self.run(index, module)
        return leaf, self.roots[index](output)

    def run(self, index: int, module: nn.Module) -> tuple[Tensor, Tensor]:
        """What the row reads, and what it puts out."""
        boundary, states = self.boundaries[index], generator_states()
        set_generator_states(boundary.states)
        leaf = boundary.leaf.get()
        output = module(leaf)
        set_generator_states(states)
        return leaf, output

    def moved(self, move: Change) -> Streamed:
        """The network after one step: each row is moved by its gradient when it has been made."""

        def made(index: int) -> nn.Module:
            module = self.network.made(index)
            move(index, module)
            return module

        return Streamed(self.network, made, self.network.store)


class _Run:
    """One pass, of which the graph of one segment is there at a time."""

    def __init__(self, network: Streamed, x: Tensor, most: int = SEGMENT_ROWS) -> None:
        self.network, self.rows, self.most = network, network.rows, most
        self.own = [[p for _, p in parameters_of(row.module)] for row in self.rows]
        self.x, self.loss, self.around = x, math.nan, UNKNOWN
        self.stats: list[ActivationStats] = []
        self.boundaries: list[_Boundary] = []
        self.store = network.store()
        self.last: list[Segment] = []  # is not made again
        self.graph: Graph | None = None
        self.gradients: list[float | None] = []
        self.parameters: ParameterNorms = {}
        self.extremes: dict[int, tuple[float, float]] = {}

    def forward(self) -> None:
        """Run the segments from the first to the last, and keep what stands between them."""
        leaf = first_leaf(self.rows, self.x)
        while len(self.stats) < len(self.rows):
            kept = self.store.keep(leaf) if self.boundaries else Store().keep(leaf)
            self.boundaries.append(_Boundary(len(self.stats), kept, generator_states()))
            leaf = self._next(leaf)

    def _next(self, leaf: Tensor) -> Tensor:
        # With a graph, as without streaming: some operations go another way without one.
        segment, outputs = self._forward(len(self.stats), leaf)
        self.stats += activation_stats(outputs)
        tell(Step(len(self.stats), len(self.rows)))
        if len(self.stats) < len(self.rows):
            return next_leaf(segment)
        self.last.append(segment)
        return leaf

    def backward(self, loss: Loss, roots: list[Root] | None = None) -> None:
        """Run the segments from the last to the first; the numbers of each are all that stays.

        Args:
            roots: gets that of each segment, from the last to the first.
        """
        root: Root = loss
        while self.boundaries:
            arriving = self._reduce(self.boundaries.pop(), root)
            if roots is not None:
                roots.append(root)
            if roots is None or arriving is None:
                root = partial(weighted, arriving=arriving)
            else:
                root = partial(_weighted, arriving=self.store.keep(arriving))

    def _reduce(self, boundary: _Boundary, root_of: Root) -> Tensor | None:
        """The numbers of one segment, and the gradient that arrives at its leaf."""
        segment = self.last.pop() if self.last else self._again(boundary)
        root = root_of(segment.end)
        self._read(segment, root)
        result = backward(segment, root)
        self.gradients[:0] = result.rows
        rows = self.own[boundary.start : boundary.start + len(result.rows)]
        keys = [id(p) for own in rows for p in own]
        self.parameters |= zip(keys, result.parameters, strict=True)
        self.extremes |= extremes_of(zip(keys, (p for _, p in segment.named), strict=True))
        tell(Step(len(self.gradients), len(self.rows), backward=True))
        return result.arriving

    def _again(self, boundary: _Boundary) -> Segment:
        set_generator_states(boundary.states)
        return self._forward(boundary.start, boundary.leaf.get())[0]

    def _forward(self, start: int, leaf: Tensor) -> tuple[Segment, list[Tensor]]:
        return forward(self.rows, start, leaf, self.network.made, self.most)

    def _read(self, segment: Segment, root: Tensor | None) -> None:
        """What the segment's graph tells, and that of the loss, which is behind the first."""
        ends = [segment.end]
        if self.graph is None:
            assert root is not None
            self.graph, self.loss = Graph(root, main_output(segment.end)), float(root.detach())
            ends.append(root)
        self.graph.read(ends, segment.named)
        self.around = self.graph.around


def _weighted(end: Tensor, arriving: Kept) -> Tensor | None:
    return weighted(end, arriving.get())
