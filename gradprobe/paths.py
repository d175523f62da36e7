"""The product expanded: ∏(s + ∂F_k/∂x) as a sum over paths, grouped by branches traversed.

With G_j the part of the gradient that came through j branches, one block turns the groups into

    G_j at its input = s · G_j at its output + (∂F/∂x)ᵀ · G_{j-1} at its output

so one batched sweep gives them all, exactly and without sampling. G_0 is the clean 1·1·…·1 path
(Veit et al. 2016, arXiv 1605.06431, cut branches to estimate what this computes).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from gradprobe.anatomy import PathProfile
from gradprobe.build import Network
from gradprobe.chain import Element, as_leaf, elements_of, trace
from gradprobe.errors import InputError
from gradprobe.norms import norms

_CHUNK = 1 << 22  # elements of the groups that go through a block at once


def expand(
    network: Network,
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    seed: int,
    first_row: str,
    max_paths: int | None = None,
) -> PathProfile:
    """The groups at the output of ``first_row``, and how well they sum to autograd's gradient.

    Args:
        max_paths: leave out the paths through more branches than this; the groups that remain are
            exact all the same.

    Raises:
        InputError: no residual block lies behind the first row.
    """
    groups, total = expand_groups(network, x, loss, seed, first_row, max_paths)
    blocks = sum(e.residual is not None for e in _behind(network, first_row))
    sizes = norms([group.contiguous() for group in groups.unbind(0)])
    rest = total - groups.sum(0)
    whole, missing = norms([total, rest])
    complete = len(sizes) == blocks + 1
    return PathProfile(
        blocks=blocks,
        norms=tuple(sizes),
        total=whole,
        error=(missing / whole if whole else missing) if complete else None,
        left_out=None if complete else missing,
        row=first_row,
    )


def expand_groups(
    network: Network,
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    seed: int,
    first_row: str,
    max_paths: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The groups themselves, (j, batch, …), and autograd's own gradient, (batch, …)."""
    before, behind = _split(network, first_row)
    if not any(element.residual is not None for element in behind):
        raise InputError(
            "the network has no residual block behind its first row: there is one path",
            hint="gradprobe paths residual, or a spec with residual: […] blocks",
        )
    start = trace(before, x, seed)[-1]
    inputs, gradient, total = _whole(behind, start, loss, seed)
    groups = gradient[None]  # at the output: one group, of no branches
    for element in reversed(behind):
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
    kept = groups if max_paths is None else groups[:max_paths]
    if not kept.shape[0]:
        return skipped
    through = _vjp(branch, leaf, kept)
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
                [torch.autograd.grad(out, leaf, one, retain_graph=True)[0] for one in part]
            )
        pulled.append(back)
    return torch.cat(pulled)


def _split(network: Network, first_row: str) -> tuple[list[Element], list[Element]]:
    first = next(i for i, row in enumerate(network.rows) if row.name == first_row)
    elements = elements_of(network)
    return [e for e in elements if e.row <= first], [e for e in elements if e.row > first]


def _behind(network: Network, first_row: str) -> list[Element]:
    return _split(network, first_row)[1]
