"""A block taken apart in a model that nobody described: its skip is found, F(x) is y - x."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from gradprobe.errors import InputError
from gradprobe.measure.blocks.chain import Call, Element, as_leaf, pulled, recorded
from gradprobe.measure.blocks.jacobian import Parts, jacobian, profile_of
from gradprobe.measure.blocks.profile import BlockProfile, BranchLayer
from gradprobe.measure.norms import activation_stats
from gradprobe.measure.recorder import Recorder
from gradprobe.model.repeats import children_of, holds_weights
from gradprobe.model.rows import Row
from gradprobe.model.seeds import derive, reseed, signs
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import first_tensor, fresh, in_float64

RESIDUAL = 0.5  # how far a block's highway, tr(J)/n, may lie from 1 where it has a skip
TRACES = 2  # random vectors: tr(J)/n of thousands of elements needs no more


def take_apart_module(subject: Subject, row: str | None = None) -> BlockProfile:
    """One block with its real numbers: the row called ``row``, else the middle one with a skip,
    else the middle one that holds weights.

    A block has a skip where its output has its input's shape and its highway lies within 1/2 of 1.

    Raises:
        InputError: there is no such row, or no gradient arrives at it.
    """
    element, x = _chosen(subject, row)
    assert element.call is not None
    arriving = _arriving(subject, element.name)
    leaf = as_leaf(x)
    with torch.enable_grad():
        y = element.run(leaf.clone(), subject.seed)
    square = y.shape == x.shape
    residual = square and has_skip(element, x, subject.seed)
    parts = _parts(element, leaf, y, arriving, residual)
    profile = profile_of(
        element.name,
        type(element.module).__name__,
        (leaf, arriving),
        parts,
        jacobian(element, x, subject.seed) if square else None,
    )
    return replace(profile, residual=True, skip_scale=1.0) if residual else profile


def has_skip(element: Element, x: Tensor, seed: int) -> bool:
    """Whether a block whose output has the shape of its input ``x`` is y = x + F(x)."""
    generator = torch.Generator().manual_seed(derive(seed, f"highway/{element.name}"))
    leaf, traces = as_leaf(x), []
    with torch.enable_grad():
        out = element.run(leaf.clone(), seed)
    for _ in range(TRACES):
        v = signs(x.shape, generator).to(x)
        traces.append(float(in_float64(v * pulled(out, leaf, v)).mean()))
    return abs(sum(traces) / TRACES - 1) < RESIDUAL


def _chosen(subject: Subject, row: str | None) -> tuple[Element, Tensor]:
    calls = recorded(subject, square=False)
    elements = [(Element(call.name, i, call.module, call), call.x) for i, call in enumerate(calls)]
    if row is not None:
        named = [(element, x) for element, x in elements if element.name == row]
        if not named:
            names = [element.name for element, _ in elements]
            listed = ", ".join([*names[:6], "…"] if len(names) > 6 else names)
            raise InputError(f"no row '{row}' that takes numbers", hint=f"rows: {listed}")
        return named[0]
    blocks = {r.name for r in subject.rows if r.is_block or children_of(r.module)}
    square = [(e, x) for e, x in elements if e.name in blocks and _keeps_shape(e, x, subject)]
    skips = [(e, x) for e, x in square if has_skip(e, x, subject.seed)]
    weighty = [(e, x) for e, x in elements if holds_weights(e.module)]
    candidates = skips or weighty
    if not candidates:
        raise InputError("no row with weights takes numbers: there is no block to take apart")
    return candidates[len(candidates) // 2]


def _keeps_shape(element: Element, x: Tensor, subject: Subject) -> bool:
    with torch.no_grad():
        return element.run(x.clone(), subject.seed).shape == x.shape


def _arriving(subject: Subject, name: str) -> Tensor:
    """∂L/∂y at the output of the call of that name, from one pass through the whole model."""
    with torch.enable_grad():
        reseed(derive(subject.seed, "forward"))
        with _Outputs(subject.rows) as recorder:
            value = subject.loss(subject.model(*fresh(subject.args), **fresh(dict(subject.kwargs))))
        edge = recorder.edges.get(name)
        gradient = None
        if edge is not None and value.requires_grad:
            (gradient,) = torch.autograd.grad(value, [edge], allow_unused=True)
    if gradient is None:
        raise InputError(f"no gradient gets from the loss to row {name}")
    return gradient


class _Outputs(Recorder):
    """Notes where each call of a row puts its main output into the graph."""

    def __init__(self, rows: Iterable[Row]) -> None:
        super().__init__(rows)
        self.edges: dict[str, GradientEdge] = {}

    def after(self, row: Row, note: Any, output: Any) -> None:
        y = first_tensor(output)
        if y is not None and y.requires_grad:
            self.edges[self.call_name(row)] = get_gradient_edge(y)


def _parts(element: Element, leaf: Tensor, y: Tensor, arriving: Tensor, residual: bool) -> Parts:
    with torch.enable_grad():
        branch = y - leaf if residual else y
    total, through_branch = pulled(y, leaf, arriving), pulled(branch, leaf, arriving)
    skip = leaf if residual else torch.zeros_like(y)
    through_skip = arriving if residual else torch.zeros_like(total)
    assert element.call is not None
    layers = _layers(element.call)
    return Parts(layers, (branch, skip, y), (through_branch, through_skip, total))


def _layers(call: Call) -> tuple[BranchLayer, ...]:
    """What the block is made of, in the order in which it runs, with the RMS of each output."""
    inside = [
        Row(f"{call.name}.{name}", type(child).__name__, child)
        for name, child in children_of(call.module).items()
    ]
    with _Sizes(inside) as recorder, torch.no_grad():
        call.run(call.x.clone())
    return tuple(recorder.layers)


class _Sizes(Recorder):
    def __init__(self, rows: Iterable[Row]) -> None:
        super().__init__(rows)
        self.layers: list[BranchLayer] = []

    def after(self, row: Row, note: Any, output: Any) -> None:
        y = first_tensor(output)
        if y is not None:
            [stats] = activation_stats([y.detach()])
            self.layers.append(BranchLayer(row.name, row.kind, stats.rms))
