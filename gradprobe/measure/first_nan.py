"""A subject → the operation that makes the first NaN or infinity, and the user's line it is on."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode

from gradprobe.measure.again import output_of
from gradprobe.measure.checkpoints import keeping_graph
from gradprobe.measure.graph import kind_of
from gradprobe.measure.passes import gradients_of, scalar
from gradprobe.measure.profile import GradientProfile, RowStatus
from gradprobe.measure.streamed import Replay
from gradprobe.measure.surroundings import FirstNan
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.seeds import derive, reseed_all
from gradprobe.model.streamed import Streamed
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import stored, tensors_in, walk
from gradprobe.numbers import all_finite

_OWN = os.path.dirname(os.path.dirname(__file__)) + os.sep
_LIBRARIES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}lib{os.sep}python")
_FILLS = frozenset("empty empty_like full full_like masked_fill fill where scalar_tensor".split())
_FRAME = re.compile(r'File "(.+)", line (\d+), in ')


def with_first_nan(profile: GradientProfile, subject: Subject) -> GradientProfile:
    """The profile with what makes the first NaN or infinity, where there is one in it."""
    norms = [norm for p in profile.orphans for norm in (p.norm, p.gradient_norm)]
    finite = all_finite(profile.loss, *norms)
    if finite and not any(row.status is RowStatus.NON_FINITE for row in profile.rows):
        return profile
    around = profile.around._replace(first_nan=first_nan(subject))
    return replace(profile, around=around)


def first_nan(subject: Subject) -> FirstNan | None:
    """What makes it in a forward and backward pass that is run once more; ``None``: nothing seen.

    Every operation is looked at on the way forward, the loss's too, and every node of the graph on
    the way back.
    """
    try:
        with (
            undisturbed(subject.model),
            keeping_graph(),
            torch.autograd.set_detect_anomaly(True, check_nan=False),
        ):
            return _first(subject)
    except Exception:  # a model that cannot be run again
        return None


def _first(subject: Subject) -> FirstNan | None:
    if isinstance(subject.model, Streamed):
        return _first_streamed(subject.model, subject)
    watch = _Watch()
    with watch:
        loss = scalar(subject.loss(output_of(subject)))
    if watch.first is not None:
        return watch.first
    makers: list[FirstNan] = []
    parameters = [p for p in subject.model.parameters() if p.requires_grad]
    with _hooked(loss, makers):
        gradients_of(loss, parameters)
    return makers[0] if makers else None


def _first_streamed(network: Streamed, subject: Subject) -> FirstNan | None:
    """The same of a network whose rows are made one at a time."""
    watch, x = _Watch(), subject.args[0]
    reseed_all(derive(subject.seed, "forward"))
    with torch.no_grad():
        for index in range(len(network.rows)):
            module = network.made(index)
            with watch:
                x = module(x)
            if watch.first is not None:
                return watch.first
        with watch:
            subject.loss(x)
    if watch.first is not None:
        return watch.first
    reseed_all(derive(subject.seed, "forward"))
    replay, makers = Replay(network, subject.args[0], subject.loss), list[FirstNan]()
    for index in reversed(range(len(network.rows))):
        module = network.made(index)
        leaf, root = replay.root(index, module)
        if root is not None and not makers:
            with _hooked(root, makers):
                gradients_of(root, [p for p in (*module.parameters(), leaf) if p.requires_grad])
    return makers[0] if makers else None


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the first operation that makes what is not finite of what is."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.first: FirstNan | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **kwargs or {})
        if self.first is None and _makes_it(func, result, (args, kwargs or {})):
            name = func.overloadpacket.__name__.strip("_")
            self.first = FirstNan(name, _place(sys._getframe(1)))
        return result


def _makes_it(func: Any, result: Any, given: Any) -> bool:
    """Whether it makes NaN of what has none, or infinity of what is finite and not by a fill."""
    if _all_finite(result):
        return False
    if _has_nan(result):
        return not _has_nan(given)
    return func.overloadpacket.__name__.strip("_") not in _FILLS and _all_finite(given)


def _all_finite(values: Any) -> bool:
    tensors = (t for t in tensors_in(values) if t.is_floating_point())
    return all(bool(torch.isfinite(stored(t)).all()) for t in tensors)


def _has_nan(values: Any) -> bool:
    return any(bool(stored(t).isnan().any()) for t in tensors_in(values) if t.is_floating_point())


@contextmanager
def _hooked(loss: Tensor, makers: list[FirstNan]) -> Iterator[None]:
    """Nodes of the graph that say, in the order in which they run, what they made."""

    def look(node: Node, made: Any, arrived: Any) -> None:
        if not makers and _all_finite(arrived) and not _all_finite(made):
            metadata: Any = node.metadata
            lines = [_FRAME.search(line) for line in metadata.get("traceback_", ())]
            places = [(found[1], int(found[2])) for found in lines if found]
            makers.append(FirstNan(kind_of(node), _nearest(reversed(places)), backward=True))

    hooks = []
    try:
        for node in walk([loss.grad_fn]):
            hook = node.register_hook(lambda made, arrived, node=node: look(node, made, arrived))
            hooks.append(hook)
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _place(frame: FrameType | None) -> str:
    def places(frame: FrameType | None) -> Iterator[tuple[str, int]]:
        while frame is not None:
            yield frame.f_code.co_filename, frame.f_lineno
            frame = frame.f_back

    return _nearest(places(frame))


def _nearest(places: Iterator[tuple[str, int]]) -> str:
    """``model.py:12``, the innermost line that is of no library, below our own; "" if none is."""
    for path, line in places:
        if path.startswith(_OWN) and path != __file__:
            return ""
        if path != __file__ and not any(library in path for library in _LIBRARIES):
            return f"{os.path.basename(path)}:{line}"
    return ""
