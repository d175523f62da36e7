"""The product expanded: ∏(s + ∂F_k/∂x) as a sum over paths, grouped by branches traversed.

With G_j the part of the gradient that came through j branches, one block turns the groups into

    G_j at its input = s · G_j at its output + (∂F/∂x)ᵀ · G_{j-1} at its output

so one batched sweep gives them all, exactly and without sampling. G_0 is the clean 1·1·…·1 path
(Veit et al. 2016, arXiv 1605.06431, cut branches to estimate what this computes).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from gradprobe.errors import InputError
from gradprobe.measure.blocks.chain import Element, as_leaf, elements_of, trace
from gradprobe.measure.blocks.found import RESIDUAL, TRACES
from gradprobe.measure.blocks.profile import PathProfile
from gradprobe.measure.norms import norms
from gradprobe.measure.progress import Step, tell
from gradprobe.measure.recorder import Arguments, Recorder
from gradprobe.model.build import Network
from gradprobe.model.repeats import children_of
from gradprobe.model.rows import Row
from gradprobe.model.seeds import derive, reseed, signs
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import first_tensor, fresh, in_float64, tensors_in

_CHUNK = 1 << 22  # elements of the groups that go through a block at once


def expand(subject: Subject, first: str, max_paths: int | None = None) -> PathProfile:
    """The groups at the output of the row ``first``, and how well they sum to autograd's gradient.

    Args:
        max_paths: leave out the paths through more branches than this; the groups that remain are
            exact all the same.

    Raises:
        InputError: no residual block lies behind the first row, or one does not read what the one
            before it puts out.
    """
    if not isinstance(subject.model, Network):
        return _expand_module(subject, first, max_paths)
    groups, total = expand_groups(subject, first, max_paths)
    blocks = sum(e.residual is not None for e in _split(subject, first)[1])
    return _profile_of(groups, total, blocks, first)


def _profile_of(groups: Tensor, total: Tensor, blocks: int, first_row: str) -> PathProfile:
    sizes = norms([group.contiguous() for group in groups.unbind(0)])
    whole, missing = norms([total, total - groups.sum(0)])
    complete = len(sizes) == blocks + 1
    return PathProfile(
        blocks=blocks,
        norms=tuple(sizes),
        total=whole,
        error=(missing / whole if whole else missing) if complete else None,
        left_out=None if complete else missing,
        row=first_row,
    )


def _expand_module(subject: Subject, first_row: str, max_paths: int | None) -> PathProfile:
    """The same for any module, whose blocks y = x + F(x) are found: F(x) is y - x.

    The repeated modules are tried, or, where nothing is repeated, all rows that hold others. One
    counts as such a block where its output has its input's shape and its highway, tr(J)/n, lies
    within 1/2 of 1. What stands between two blocks hands every group on unchanged.
    """
    with torch.enable_grad():
        reseed(derive(subject.seed, "forward"))
        with _Calls(subject.rows) as recorder:
            output = subject.model(*fresh(subject.args), **fresh(dict(subject.kwargs)))
            value = subject.loss(output)
        names = [name for name, _ in recorder.outputs]
        behind = names.index(first_row) if first_row in names else 0
        blocks = _residual_blocks(subject, recorder.calls, behind)
        if not blocks:
            hint = "--rows GLOB says which modules are the blocks"
            message = f"no block y = x + F(x) stands behind row {first_row}: there is one path"
            raise InputError(message, hint=hint)
        row, start = _start(blocks[0], recorder.outputs[behind:])
        (total, gradient) = torch.autograd.grad(
            value, [start, blocks[-1].output], retain_graph=True, allow_unused=True
        )
        if total is None or gradient is None:
            raise InputError(f"no gradient gets from the loss to row {row}")
        groups = gradient[None]
        before = [(row, start), *((block.name, block.output) for block in blocks[:-1])]
        ends = zip(reversed(blocks), reversed(before), strict=True)
        for number, (block, (name, end)) in enumerate(ends, 1):
            tell(Step(number, len(blocks), unit="block"))
            groups = _split_back(block, groups, max_paths)
            groups = _between(block, end, name, groups)
    return _profile_of(groups, total, len(blocks), row)


def _residual_blocks(subject: Subject, calls: list[_Call], behind: int) -> list[_Call]:
    """The calls behind the output of that index that are blocks with a skip."""
    rows = [row for row in subject.rows if row.is_block]
    rows = rows or [row for row in subject.rows if children_of(row.module)]
    names = {row.name for row in rows}
    candidates = [call for call in calls if call.name in names and call.order > behind]
    return [c for c in candidates if abs(_highway(c, subject.seed) - 1) < RESIDUAL]


_Output = tuple[str, GradientEdge]


class _Call(NamedTuple):
    """A row's main input and output in the graph, wherever later layers overwrite them."""

    name: str
    order: int  # among all rows' outputs
    like: Tensor
    input: GradientEdge
    output: GradientEdge


class _Calls(Recorder):
    """Notes the rows' outputs, and the calls that keep their input's shape, in order."""

    def __init__(self, rows: Iterable[Row]) -> None:
        super().__init__(rows)
        self.calls: list[_Call] = []
        self.outputs: list[_Output] = []

    def before(self, row: Row, args: Any, kwargs: Any) -> tuple[Any, Arguments | None]:
        tensors = [t for t in tensors_in([args, kwargs]) if t.requires_grad]
        return [(t, get_gradient_edge(t)) for t in tensors], None

    def after(self, row: Row, note: Any, output: Any) -> None:
        y = first_tensor(output)
        if y is None or not y.requires_grad:
            return
        out = get_gradient_edge(y)
        edge = next((edge for x, edge in note if x.shape == y.shape), None)
        if edge is not None and y.dim() > 1:
            self.calls.append(_Call(row.name, len(self.outputs), y.detach(), edge, out))
        self.outputs.append((row.name, out))


def _start(block: _Call, outputs: Sequence[_Output]) -> _Output:
    """The first row whose output the block reads, itself or through others."""
    v = torch.ones_like(block.like)[None]
    for name, edge in outputs:
        if edge == block.input or _vjp_of(block.input, edge, v) is not None:
            return name, edge
    raise InputError(f"block {block.name} reads no other row's output")


def _highway(call: _Call, seed: int) -> float:
    generator = torch.Generator().manual_seed(derive(seed, f"highway/{call.name}"))
    v = signs(torch.Size((TRACES, *call.like.shape)), generator).to(call.like)
    back = _vjp_of(call.output, call.input, v)
    return 0.0 if back is None else float(in_float64(v * back).mean())


def _split_back(block: _Call, groups: Tensor, max_paths: int | None) -> Tensor:
    """The groups at the input of y = x + F(x): Jᵀg - g has gone through F."""
    short = groups if max_paths is None else groups[:max_paths]
    result = groups.new_zeros((max(groups.shape[0], short.shape[0] + 1), *groups.shape[1:]))
    result[: groups.shape[0]] = groups
    if short.shape[0]:
        through = _vjp_of(block.output, block.input, short)
        assert through is not None  # its highway is not zero
        result[1 : short.shape[0] + 1] += through - short
    return result


def _between(block: _Call, end: GradientEdge, name: str, groups: Tensor) -> Tensor:
    """The groups where the block before, or the first row, puts them out."""
    if block.input == end:
        return groups
    carried = _vjp_of(block.input, end, groups)
    if carried is None:
        message = f"block {block.name} does not read what {name} puts out: they are no chain"
        raise InputError(message, hint="--rows GLOB chooses the blocks of one chain")
    return carried


def _vjp_of(out: GradientEdge, at: GradientEdge, groups: Tensor) -> Tensor | None:
    """Jᵀ times each group, one after the other; ``None`` where no path leads there."""
    pulled = []
    for group in groups:
        (back,) = torch.autograd.grad(out, at, group, retain_graph=True, allow_unused=True)
        if back is None:
            return None
        pulled.append(back)
    return torch.stack(pulled)


def expand_groups(
    subject: Subject, first: str, max_paths: int | None = None
) -> tuple[Tensor, Tensor]:
    """The groups themselves, (j, batch, …), and autograd's own gradient, (batch, …)."""
    seed = subject.seed
    before, behind = _split(subject, first)
    if not any(element.residual is not None for element in behind):
        hint = "gradprobe paths residual, or a spec with residual: […] blocks"
        message = "the network has no residual block behind its first row: there is one path"
        raise InputError(message, hint=hint)
    start = trace(before, subject.args[0], seed)[-1]
    inputs, gradient, total = _whole(behind, start, subject.loss, seed)
    groups = gradient[None]  # at the output: one group, of no branches
    for number, element in enumerate(reversed(behind), 1):
        tell(Step(number, len(behind), unit="block"))
        groups = _pull_back(element, inputs.pop(), groups, seed, max_paths)
    return groups, total


def _whole(
    elements: list[Element], start: Tensor, loss: Callable[[Tensor], Tensor], seed: int
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Each element's input, ∂L/∂output, and autograd's ∂L/∂start through the whole graph."""
    leaf = as_leaf(start)
    inputs = []
    with torch.enable_grad():
        out = leaf.clone()
        for element in elements:
            inputs.append(out.detach().clone())
            out = element.run(out, seed)
        end, total = torch.autograd.grad(loss(out), [out, leaf])
    return inputs, end, total


def _pull_back(
    element: Element, value: Tensor, groups: Tensor, seed: int, max_paths: int | None
) -> Tensor:
    """The groups at the element's input from those at its output."""
    block = element.residual
    leaf = as_leaf(value)
    with torch.enable_grad():
        if block is None:
            return _vjp(element.run(leaf.clone(), seed), leaf, groups)
        # In the order of forward(), so that both draw what they drew there.
        element.reseed(seed)
        skip, branch = block.skip_of(leaf.clone()), block.branch_of(leaf.clone())
    if block.shortcut is None:
        skipped = groups if block.skip_scale == 1 else groups * block.skip_scale
    else:
        skipped = _vjp(skip, leaf, groups)
    short = groups if max_paths is None else groups[:max_paths]
    if not short.shape[0]:
        return skipped
    through = _vjp(branch, leaf, short)
    longest = max(skipped.shape[0], through.shape[0] + 1)
    result = torch.zeros(longest, *leaf.shape, dtype=leaf.dtype, device=leaf.device)
    result[: skipped.shape[0]] = skipped
    result[1 : through.shape[0] + 1] += through
    return result


def _vjp(out: Tensor, leaf: Tensor, groups: Tensor) -> Tensor:
    """Jᵀ times each group, batched where autograd can, one after the other where it cannot."""
    if not out.requires_grad:
        return torch.zeros(groups.shape[0], *leaf.shape, dtype=leaf.dtype, device=leaf.device)
    at_once = max(1, _CHUNK // max(1, out.numel()))
    pulled = []
    for part in torch.split(groups, at_once):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that an operation has no batching rule
                (back,) = torch.autograd.grad(
                    out, leaf, part, retain_graph=True, is_grads_batched=True
                )
        except RuntimeError:
            back = torch.stack(
                [torch.autograd.grad(out, leaf, group, retain_graph=True)[0] for group in part]
            )
        pulled.append(back)
    return torch.cat(pulled)


def _split(subject: Subject, first_row: str) -> tuple[list[Element], list[Element]]:
    first = next(i for i, row in enumerate(subject.rows) if row.name == first_row)
    elements = elements_of(subject)
    return [e for e in elements if e.row <= first], [e for e in elements if e.row > first]
