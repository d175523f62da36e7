"""The derivatives that a model or its loss takes itself → whether one of a derivative is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from threading import Lock, get_ident
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradprobe.measure.graph import kind_of
from gradprobe.model.tensors import walk

_ENGINE = "_engine_run_backward"  # what torch.autograd.grad calls, however it was imported
_MOST = 10_000  # nodes behind a derivative that are read

# By kind of node of a first derivative: activations whose second one is 0 everywhere.
_KINKS = {
    "ThresholdBackward": "ReLU",
    "LeakyReluBackward": "LeakyReLU",
    "HardtanhBackward": "ReLU6",
    "Sgn": "abs",
}


class Derivatives:
    """What was seen of the derivatives that were taken with a graph of their own."""

    def __init__(self) -> None:
        self.thread = get_ident()
        self.made: set[Node] = set()  # that made them
        self.kink = ""  # the activation behind a second derivative that is 0 everywhere

    def note(self, outputs: Sequence[Any], results: Sequence[Tensor | None]) -> None:
        """Note the derivatives ``results`` of ``outputs``."""
        found = [x for x in results if x is not None]
        if self.made and found and not any(bool(x.any()) for x in found):
            nodes = list(islice(walk([x.grad_fn for x in outputs]), _MOST))
            kinks = [_KINKS[kind] for kind in map(kind_of, nodes) if kind in _KINKS]
            alive = any(bool(x.detach().any()) for x in outputs)
            if kinks and alive and not self.made.isdisjoint(nodes):
                self.kink = kinks[0]
        self.made.update(x.grad_fn for x in found if x.grad_fn is not None)


_LOCK = Lock()
_WATCHERS: list[Derivatives] = []  # of all threads
_UNDO = ExitStack()  # what is done when the last of them has gone


@contextmanager
def derivatives() -> Iterator[Derivatives]:
    """Note what ``torch.autograd.grad`` gives in this thread meanwhile."""
    noted = Derivatives()
    with _LOCK:
        if not _WATCHERS:
            _watch()
        _WATCHERS.append(noted)
    try:
        yield noted
    finally:
        with _LOCK:
            _WATCHERS.remove(noted)
            if not _WATCHERS:
                _UNDO.close()


def _watch() -> None:
    """Stand in front of torch's engine, where this release of torch has it."""
    names = vars(torch.autograd)
    engine = names.get(_ENGINE)
    if engine is None:
        return

    def run(outputs: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        results = engine(outputs, *args, **kwargs)
        for watcher in tuple(_WATCHERS):
            if watcher.thread == get_ident():
                with suppress(Exception):  # inside a transform there are no values
                    watcher.note(outputs, results)
        return results

    names[_ENGINE] = run
    _UNDO.callback(names.__setitem__, _ENGINE, engine)
