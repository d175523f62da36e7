"""A network larger than memory: one row at a time is made from the seeds of its paths, and dropped.

A row that is made again is the same to the bit, so nothing has to be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from gradprobe.model.build import Builder, Network, assembled, own_generator
from gradprobe.model.kept import Store, while_used
from gradprobe.model.on_demand import Drawn, Part, weightless
from gradprobe.model.plan import Planned
from gradprobe.model.rows import Row, modules_of
from gradprobe.spec.network import NetworkSpec

Change = Callable[[int, nn.Module], None]  # of a row that was made, by the row's index


class Streamed(Network):
    """A network whose own weights have shapes and no numbers; ``made`` gives a row its numbers.

    As a module it runs too, each row as a part that has its numbers while it runs.
    """

    def __init__(
        self, outline: Network, made: Callable[[int], nn.Module], store: Callable[[], Store]
    ) -> None:
        layers = dict(outline.named_children())
        super().__init__(outline.spec, layers, outline.rows, outline.places, outline.work)
        self._made, self.store = made, store
        self._changes: list[Change] = []
        # A checkpoint's tensor by its name, where it has one.
        self.saved: Callable[[str], Tensor | None] | None = None

    def made(self, index: int) -> nn.Module:
        """The module of a row, made anew: the same to the bit each time."""
        module = self._made(index)
        for change in self._changes:
            change(index, module)
        return module

    @contextmanager
    def changed(self, change: Change) -> Iterator[None]:
        """Meanwhile every row is changed when it has been made."""
        self._changes.append(change)
        try:
            yield
        finally:
            self._changes.remove(change)


class _Row(Part):
    """A row in the place of its module's forward."""

    def __init__(self, network: Streamed, index: int, row: Row) -> None:
        super().__init__(row.module, row.name, lambda module: None)
        self.made = partial(network.made, index)

    @contextmanager
    def weights(self) -> Iterator[Drawn]:
        outline = self.live, self.forward
        self.live = self.made()
        self.forward = self.live.forward
        try:
            yield list(zip(self.module.parameters(), self.live.parameters(), strict=True))
        finally:
            self.live, self.forward = outline


def streamed(
    planned: Planned, spec: NetworkSpec, seed: int, like: Tensor, store: Callable[[], Store]
) -> Streamed:
    """The network of a plan, of which nothing is in memory.

    Args:
        like: has the dtype and the device of its numbers.
        store: makes a place for what stands between blocks.

    Raises:
        InputError: an initialisation that torch refuses; a layer overwrites its input.
    """
    with torch.device("meta"):
        outline = assembled(planned, spec, seed)
    overwriting = (m for m in modules_of(outline) if getattr(m, "inplace", False))
    if (module := next(overwriting, None)) is not None:
        kind, place = type(module).__name__, outline.places.get(module)
        message = f"one block at a time, {kind} cannot overwrite its input, which is needed again"
        raise spec.error(message, place, "leave 'inplace: true' out")
    outline.to(dtype=like.dtype)
    recipes = [
        recipe
        for name, layer in zip(dict(outline.named_children()), planned.layers, strict=True)
        for recipe in _recipes(layer, name)
    ]

    def made(index: int) -> nn.Module:
        saved, name = network.saved, network.rows[index].name
        with own_generator(), weightless() if saved else nullcontext():
            module = recipes[index](Builder(spec, seed))
        if saved:
            state = {key: saved(f"{name}.{key}") for key in module.state_dict()}
            module.load_state_dict({k: t for k, t in state.items() if t is not None}, assign=True)
        return module.to(like)

    network = Streamed(outline, made, store)
    kept = while_used(store)
    for index, row in enumerate(network.rows):
        _Row(network, index, row).store = kept
    return network


def _recipes(layer: Planned, name: str) -> list[Callable[[Builder], nn.Module]]:
    """How a builder makes each row of a layer."""
    if not layer.iterations:
        return [lambda builder: builder.module(layer, name)]

    def iteration(builder: Builder, index: int) -> nn.Module:
        return builder.chain(layer.iterations[index], f"{name}.{index}")

    return [partial(iteration, index=index) for index in range(len(layer.iterations))]
