"""Gradients → a step of SGD with momentum or of Adam on weights; ``.grad`` is left alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gradprobe.measure import passes
from gradprobe.model.tensors import real

_MOMENTUM, _BETAS, _EPS = 0.9, (0.9, 0.999), 1e-8


def gradients_of(loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor | None]:
    """``None`` for a weight that no path leads to."""
    gradients = passes.gradients_of(loss, weights)
    return [g.to_dense() if g is not None and g.is_sparse else g for g in gradients]


Step = Callable[[Sequence[Tensor | None]], None]


def sgd(weights: Sequence[Tensor], rate: float) -> Step:
    """Gradient descent with momentum: v ← 0.9 v + g, w ← w - rate · v."""
    speeds: dict[int, Tensor] = {}

    def step(gradients: Sequence[Tensor | None]) -> None:
        present = {i: g for i, g in enumerate(gradients) if g is not None}
        new = {i: torch.zeros_like(g) for i, g in present.items() if i not in speeds}
        speeds.update(new)
        moving = [speeds[i] for i in present]
        if moving:
            torch._foreach_mul_(moving, _MOMENTUM)
            torch._foreach_add_(moving, list(present.values()))
            torch._foreach_add_([weights[i].data for i in present], moving, alpha=-rate)

    return step


def adam(weights: Sequence[Tensor], rate: float) -> Step:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980) with its usual β of 0.9 and 0.999."""
    averages: dict[int, tuple[Tensor, Tensor]] = {}
    count = 0
    first, second = _BETAS

    def step(gradients: Sequence[Tensor | None]) -> None:
        nonlocal count
        count += 1
        for i, gradient in enumerate(gradients):
            if gradient is None:
                continue
            weight, g = real(weights[i].data), real(gradient)
            if i not in averages:
                averages[i] = torch.zeros_like(weight), torch.zeros_like(weight)
            mean, square = averages[i]
            mean.lerp_(g, 1 - first)
            square.mul_(second).addcmul_(g, g, value=1 - second)
            size = (square / (1 - second**count)).sqrt_().add_(_EPS)
            weight.addcdiv_(mean, size, value=-rate / (1 - first**count))

    return step


OPTIMIZERS: Mapping[str, Callable[[Sequence[Tensor], float], Step]] = {"SGD": sgd, "Adam": adam}
