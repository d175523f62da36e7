"""Two things that a norm does not say: whether a gradient still points somewhere after a small step
along it, and how much of it each row hands straight back.

A large gradient with a highway is useful; a large one without is a shattered one (Balduzzi et al.
2017, arXiv 1702.08591), which points elsewhere as soon as each weight has moved by a thousandth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from gradprobe.batch import first_tensor
from gradprobe.measure import failed, rows_of, undisturbed
from gradprobe.norms import norms
from gradprobe.rng import reseed
from gradprobe.rows import Row
from gradprobe.seeds import derive

STEPS = (1e-3, 1e-2)  # of each weight's own norm; benchmarks/trainability/steps.py compares others


_COARSE = 1e-4  # a dtype's relative spacing, above which the shorter step drowns in rounding


def too_coarse(model: nn.Module) -> str | None:
    """Why the model's weights cannot take such a small step, in words; ``None`` where they can."""
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    coarse = [d for d in dtypes if torch.finfo(d).eps > _COARSE]
    names = sorted(str(d).removeprefix("torch.") for d in coarse)
    return f"{names[0]} is too coarse for a step of {min(STEPS):g}" if names else None


def coherence(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    loss: Callable[[Any], Tensor],
    *,
    seed: int = 0,
    steps: Sequence[float] = STEPS,
) -> float | None:
    """The cosine between the gradient before and after a step along it, averaged over the weights
    and over steps of several lengths.

    A step moves each weight tensor (two dimensions or more) by a share of its own norm against its
    gradient; biases and scales stay. Weights that are zero, or whose gradient is, have no say. One
    forward and one backward pass, and one more of both for each step; the model is left as it was.

    Args:
        model, args, kwargs, loss, seed: as for ``measure``.
        steps: their lengths, each ÷ the norm of the weight.

    Returns:
        1 where the gradient does not change, about 0 where nothing of it is left; ``None`` where
        no weight has a gradient, or one is not finite.

    Raises:
        ModelError: the forward or backward pass raised.
    """
    weights = {n: p for n, p in model.named_parameters() if p.dim() > 1 and p.requires_grad}

    def gradients(at: Mapping[str, Tensor]) -> dict[str, Tensor]:
        reseed(derive(seed, "forward"))
        output = torch.func.functional_call(model, dict(at), _copied(tuple(args)), _copied(kwargs))
        found = torch.autograd.grad(loss(output), list(at.values()), allow_unused=True)
        return {n: g.detach() for n, g in zip(at, found, strict=True) if g is not None}

    with undisturbed(model), torch.inference_mode(False), torch.enable_grad():
        try:
            before = gradients(weights) if weights else {}
            cosines = []
            for step in steps:
                moved = _moved(weights, before, step)
                after = gradients({**weights, **moved}) if moved else {}
                cosines += [_cosine(before[name], after[name]) for name in moved if name in after]
        except Exception as error:
            raise failed(error) from error
    mean = math.fsum(cosines) / len(cosines) if cosines else math.nan
    return mean if math.isfinite(mean) else None


def _moved(
    weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], step: float
) -> dict[str, Tensor]:
    """Each weight that a step can move, after the step."""
    names = [name for name in weights if name in gradients]
    sizes = norms([weights[name].detach() for name in names])
    lengths = norms([gradients[name] for name in names])
    moved = {}
    for name, size, length in zip(names, sizes, lengths, strict=True):
        if size and length:
            weight = weights[name].detach()
            # In float64: a gradient of 1e-40 and 1 ÷ its norm are both at float32's end.
            shift = gradients[name].double() * (step * size / length)
            moved[name] = (weight.double() - shift).to(weight.dtype).requires_grad_()
    return moved


def _cosine(a: Tensor, b: Tensor) -> float:
    """The cosine between two gradients; 0 where the second is zero."""
    a, b = a.double().flatten(), b.double().flatten()
    lengths = [float(torch.linalg.vector_norm(x)) for x in (a, b)]
    return float((a / lengths[0]) @ (b / lengths[1])) if all(lengths) else 0.0


def highways(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    seed: int = 0,
    rows: str | None = None,
) -> dict[str, float]:
    """tr(J)/n of every row that keeps its input's shape, by row name: about 1 with a skip, else 0.

    Estimated as vᵀJv/n with one random ±1 vector v over the whole batch (Hutchinson 1990); its
    error is about the row's gain / sqrt(n). One forward pass, cut at the rows, and the part of a
    backward pass that leads to their inputs; ``rows`` is as for ``measure``. Any module;
    ``blocks.jacobians`` is more exact.

    Raises:
        ModelError: the forward or backward pass raised.
    """
    found: dict[str, float] = {}
    leaves: dict[str, Tensor] = {}

    def enter(row: Row) -> Callable[[nn.Module, Any], Any]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
            x = first_tensor(inputs[:1])
            if x is None or x is not inputs[0] or row.name in found:
                return None
            leaves[row.name] = x.detach().clone().requires_grad_()
            return (leaves[row.name].clone(), *inputs[1:])  # the row may overwrite what it gets

        return hook

    def leave(row: Row) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            x, y = leaves.pop(row.name, None), first_tensor(output)
            if x is None or y is None or x.shape != y.shape or not y.requires_grad:
                return
            generator = torch.Generator().manual_seed(derive(seed, f"highway/{row.name}"))
            signs = (torch.randint(2, x.shape, generator=generator) * 2 - 1).to(x)
            (back,) = torch.autograd.grad(
                (y * signs).sum(), x, retain_graph=True, allow_unused=True
            )
            found[row.name] = 0.0 if back is None else float((back.double() * signs).mean())

        return hook

    with undisturbed(model), torch.inference_mode(False), torch.enable_grad(), ExitStack() as hooks:
        for row in rows_of(model, rows):
            hooks.callback(row.module.register_forward_pre_hook(enter(row)).remove)
            hooks.callback(row.module.register_forward_hook(leave(row)).remove)
        reseed(derive(seed, "forward"))
        try:
            model(*_copied(tuple(args)), **_copied(kwargs))
        except Exception as error:
            raise failed(error) from error
    return found


def _copied(value: Any) -> Any:
    """The same with copies for tensors, which the model may overwrite."""
    return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, value)
