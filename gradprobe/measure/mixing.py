"""Whether one sample's output depends on the other samples of its batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from gradprobe.measure.checkpoints import keeping_graph
from gradprobe.measure.graph import kind_of, saved
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.seeds import derive, reseed_all, signs
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import first_tensor, in_float64, map_tensors, tensors_in, walk

_FEW = 3  # samples are enough to mix

# Nodes that take rows from where an index says, as graph networks do.
_INDEXED = ("Index", "Gather", "Scatter", "Sparse", "Segment", "Take")


def mixing(subject: Subject) -> float | None:
    """Of ∂(one sample's output)/∂(inputs), the share that is at other samples: 0 to 1.

    One more pass, forward and backward, with the first few samples where the model takes so few.
    Tokens stand for their embeddings. ``None`` where nothing is to be told: a batch of one, an
    output that is not by sample, BatchNorm of the batch, a graph network, inputs that may not
    require a gradient.
    """
    batchnorm = nn.modules.batchnorm._BatchNorm
    if any(isinstance(m, batchnorm) and m.training for m in subject.model.modules()):
        return None
    arguments = (subject.args, dict(subject.kwargs))
    first = next(tensors_in(arguments), None)
    size = len(first) if first is not None and first.dim() else 0
    if size > _FEW:
        with suppress(Exception):  # nodes of a graph, or a state for each sample
            few = map_tensors(lambda t: t[:_FEW] if t.dim() and len(t) == size else t, arguments)
            share = _mixing(subject, few)
            if share is not None:
                return share
        if any(t.shape[:2] == (size, size) for t in tensors_in(arguments)):
            return None  # it says which samples are neighbours, as a graph's adjacency does
    with suppress(Exception):  # a model that sets what requires a gradient
        return _mixing(subject, arguments)
    return None


def _mixing(subject: Subject, arguments: Any) -> float | None:
    leaves: list[Tensor] = []

    def leaf(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor.clone()
        leaves.append(tensor.detach().clone().requires_grad_())
        return leaves[-1].clone()

    with undisturbed(subject.model), keeping_graph():
        reseed_all(derive(subject.seed, "forward"))
        args, kwargs = map_tensors(leaf, arguments)
        with _embeddings(subject.model, [] if leaves else [leaf]):
            output = first_tensor(subject.model(*args, **kwargs))
            if output is None or not _by_sample(output, leaves):
                return None
            if any(_is_of_a_graph(node, len(output)) for node in walk([output.grad_fn])):
                return None
            sample = output[len(output) // 2]
            direction = signs(sample.shape, torch.Generator().manual_seed(0))
            total = (sample * direction.to(sample)).sum()
            gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    return _elsewhere([g for g in gradients if g is not None], len(output))


@contextmanager
def _embeddings(model: nn.Module, changes: Sequence[Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Meanwhile the first embedding puts out what each of ``changes`` makes of it."""
    embeddings = [m for m in model.modules() if isinstance(m, nn.Embedding)][:1]
    with ExitStack() as hooks:
        for embedding, change in zip(embeddings, changes, strict=False):
            handle = embedding.register_forward_hook(lambda m, args, out, do=change: do(out))
            hooks.callback(handle.remove)
        yield


def _by_sample(output: Tensor, leaves: list[Tensor]) -> bool:
    """Whether the output and each input have one row for each sample, and no pairs are put out."""
    size = len(output) if output.dim() else 0
    pairs = output.dim() > 1 and output.shape[1] == size
    batched = bool(leaves) and all(leaf.dim() > 0 and len(leaf) == size for leaf in leaves)
    return output.requires_grad and size > 2 and batched and not pairs


def _is_of_a_graph(node: Node, size: int) -> bool:
    """Whether it multiplies by a constant matrix over the samples, or picks rows by an index."""
    kind = kind_of(node)
    if kind.startswith(_INDEXED):
        return True
    if kind not in ("Mm", "Bmm", "Addmm", "Mv"):
        return False
    if all(behind is not None for behind, _ in node.next_functions[-2:]):
        return False
    constants = [saved(node, name) for name in ("self", "mat1")]
    return any(c is not None and c.shape[-2:] == (size, size) for c in constants)


def _elsewhere(gradients: list[Tensor], size: int) -> float | None:
    squares = torch.zeros(size, dtype=torch.float64, device="cpu")
    for gradient in gradients:
        squares += in_float64(gradient.detach()).reshape(size, -1).square().sum(1).cpu()
    total = float(squares.sum())
    own = float(squares[size // 2])
    return ((total - own) / total) ** 0.5 if total > 0 else None
