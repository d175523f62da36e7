"""The losses by name: (output, labels, seed) → a scalar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradprobe.errors import InputError, ModelError
from gradprobe.model.seeds import derive
from gradprobe.model.tensors import tensors_in

_IGNORED = -100  # a label that does not count, as torch has it


def projection(output: Tensor, labels: Tensor | None, seed: int) -> Tensor:
    """⟨output, r⟩ with r a fixed random direction of norm 1: ∂L/∂output has norm 1."""
    generator = torch.Generator().manual_seed(derive(seed, "loss"))
    direction = torch.randn(output.shape, generator=generator, dtype=torch.float32, device="cpu")
    direction = direction / torch.linalg.vector_norm(direction)
    loss: Tensor = (output * direction.to(output)).sum()
    return loss


def cross_entropy(output: Tensor, labels: Tensor | None, seed: int) -> Tensor:
    """Mean cross entropy; without labels, against classes drawn at random.

    Classes are the last dimension of (batch, classes) and (batch, positions, classes), and the
    first after the batch of images (batch, classes, height, width).
    """
    logits = output.movedim(1, -1) if output.dim() > 3 else output
    classes = logits.shape[-1]
    logits = logits.reshape(-1, classes)
    if labels is None:
        generator = torch.Generator().manual_seed(derive(seed, "loss"))
        labels = torch.randint(classes, (logits.shape[0],), generator=generator, device="cpu")
    labels = labels.reshape(-1)
    if labels.is_floating_point() or labels.numel() != logits.shape[0]:
        data = f"the data has {labels.numel()} of {labels.dtype}"
        raise InputError(f"cross_entropy needs {logits.shape[0]} integer labels; {data}")
    counted = labels[labels != _IGNORED]
    if not counted.numel():
        raise InputError(f"every label is {_IGNORED}, which counts for nothing")
    if int(counted.min()) < 0 or int(counted.max()) >= classes:
        raise InputError(f"a label is outside the {classes} classes that the network gives")
    loss: Tensor = F.cross_entropy(logits, labels.long().to(logits.device))
    return loss


def mse(output: Tensor, labels: Tensor | None, seed: int) -> Tensor:
    """Mean squared error; without labels, against standard normal targets."""
    if labels is None:
        generator = torch.Generator().manual_seed(derive(seed, "loss"))
        labels = torch.randn(output.shape, generator=generator, dtype=torch.float32, device="cpu")
    if labels.numel() != output.numel():
        data = f"the data has {list(labels.shape[1:])}"
        raise InputError(f"mse needs targets of shape {list(output.shape[1:])}, {data}")
    loss: Tensor = F.mse_loss(output, labels.reshape(output.shape).to(output))
    return loss


LOSSES: dict[str, Callable[[Tensor, Tensor | None, int], Tensor]] = {
    "projection": projection,
    "cross_entropy": cross_entropy,
    "mse": mse,
}


def loss_of(name: str, labels: Tensor | None, seed: int) -> Callable[[Any], Tensor]:
    """The loss called ``name`` of what a model gives: of the first floating tensor in it.

    ``projection`` reads every floating tensor, each in a direction of norm 1 of its own, so that no
    output is left out and none drowns the others.
    """

    def of(output: Any) -> Tensor:
        tensors = list({id(t): t for t in tensors_in(output) if t.is_floating_point()}.values())
        if not tensors:
            raise ModelError("the model's output holds no floating point tensor")
        loss = LOSSES[name](tensors[0], labels, seed)
        for index, tensor in enumerate(tensors[1:] if name == "projection" else (), 1):
            loss = loss + projection(tensor, None, derive(seed, f"output/{index}")).to(loss)
        return loss

    return of
