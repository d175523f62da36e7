"""What a forward and a backward pass gives of each row and parameter, or what it raises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from gradprobe.errors import GradprobeError, InputError, ModelError
from gradprobe.measure.graph import Reads
from gradprobe.measure.norms import ActivationStats
from gradprobe.measure.profile import RowStatus, call_name
from gradprobe.measure.surroundings import UNKNOWN, Surroundings
from gradprobe.model.repeats import holds_weights
from gradprobe.model.rows import Row
from gradprobe.model.sharded import is_sharded

# Norm of a parameter and of its gradient, by the parameter's id.
ParameterNorms = dict[int, tuple[float, float | None]]
# By id, the smallest and the largest element of each weight that is trained.
Extremes = dict[int, tuple[float, float]]


class RowPass(NamedTuple):
    """What was measured of one call of one row.

    ``position`` is its index among the calls, and ``reads`` has such indices.
    """

    row: Row
    status: RowStatus
    stats: ActivationStats | None = None
    gradient_norm: float | None = None
    position: int = -1
    reads: Reads = Reads()
    weighted_rms: float | None = None  # see ``RowProfile``


class Pass(NamedTuple):
    """What one forward and one backward pass gave, the rows in the order of their calls.

    ``called`` are the modules with parameters of their own that ran; ``None`` stands for all.
    """

    rows: list[RowPass]
    parameters: ParameterNorms
    loss: float
    called: set[nn.Module] | None = None
    around: Surroundings = UNKNOWN
    unread: Mapping[int, str] = MappingProxyType({})  # by id: see ``ends.unread``
    cut_checkpoint: bool = False  # a reentrant checkpoint got no input that requires a gradient
    extremes: Extremes | None = None  # where the weights are gone by now
    # Of each row by (its position, 0), of each weight by (-1, its id); where ranks add them up.
    gradients: Mapping[tuple[int, int], Tensor] = MappingProxyType({})


def scalar(value: Any) -> Tensor:
    """What a loss gave, as a tensor without dimensions.

    Raises:
        InputError: it is no scalar.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        actual = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"the loss must be a scalar tensor, not {actual}")
    return value.reshape(())


# What torch says of a common mistake, and what mends it.
_HINTS = {
    "modified by an inplace operation": "out of place, where the backward pass needs the old "
    "values: x = x + y for x += y, x * 2 for x.mul_(2), nn.ReLU() for nn.ReLU(inplace=True)",
    "Expected more than 1 value per channel": "BatchNorm in training needs a batch of two samples "
    "or more; with batches of one use nn.GroupNorm or nn.LayerNorm, or model.eval()",
    **dict.fromkeys(
        ("can't allocate memory", "out of memory"),
        "what the layers put out for a batch takes more than there is: a smaller batch "
        "(--batch-size 2) or smaller inputs",
    ),
}


def failed(
    error: Exception, row: Row | None = None, ran: Sequence[Row] | None = None
) -> GradprobeError:
    """What the model raised, with the row it happened in, or the last that had ended."""
    if isinstance(error, GradprobeError):
        return error
    if row is not None:
        where = f" in row {row.name} ({row.kind})"
    elif ran:
        where = f" after row {ran[-1].name} ({ran[-1].kind})"
    else:
        where = "" if ran is None else " before a row had ended"
    reason = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {reason[0]}" if reason else type(error).__name__
    hint = next((hint for words, hint in _HINTS.items() if words in what), "")
    failure = ModelError(f"the model failed{where}: {what}", hint=hint)
    failure.row = row.place if row else None
    return failure


@contextmanager
def model_errors() -> Iterator[None]:
    """Whatever the model's code raises meanwhile is an error as ``failed`` makes it."""
    try:
        yield
    except Exception as error:
        raise failed(error) from error


def gradients_of(
    root: Tensor | None, wanted: Sequence[Any], retain: bool = False
) -> Sequence[Tensor | None]:
    """∂root/∂ each of ``wanted``; ``None`` where no path leads there.

    Args:
        retain: whether another backward pass is to follow.
    """
    if root is None or not root.requires_grad or not wanted:
        return [None] * len(wanted)
    if any(isinstance(x, Tensor) and is_sharded(x) for x in wanted):
        return _gathered(root, wanted, retain)
    leaves = [x for x in wanted if isinstance(x, Tensor) and x.is_leaf]
    with _without_own(leaves):
        gradients = torch.autograd.grad(root, wanted, retain_graph=retain, allow_unused=True)
        # A reversible layer's backward pass runs backward passes of its own, into .grad.
        inner = [x.grad if isinstance(x, Tensor) and x.is_leaf else None for x in wanted]
    pairs = zip(gradients, inner, strict=True)
    return [own if g is None else g if own is None else g + own for g, own in pairs]


@contextmanager
def _without_own(leaves: Sequence[Tensor]) -> Iterator[None]:
    """Meanwhile these hold no ``.grad``."""
    before = [x.grad for x in leaves]
    for x in leaves:
        x.grad = None
    try:
        yield
    finally:
        for x, gradient in zip(leaves, before, strict=True):
            x.grad = gradient


def _gathered(root: Tensor, wanted: Sequence[Any], retain: bool) -> list[Tensor | None]:
    """The same where FSDP2 adds up what its processes have, into ``.grad`` in a whole backward."""
    caught: list[Tensor | None] = [None] * len(wanted)
    before = [(x, x.grad) for x in wanted if isinstance(x, Tensor)]

    def catch(place: int, output: int, arriving: tuple[Tensor | None, ...]) -> None:
        caught[place] = arriving[output]

    for x, _ in before:
        x.grad = None
    with ExitStack() as hooks:
        for place, x in enumerate(wanted):
            if isinstance(x, GradientEdge):
                hook = x.node.register_prehook(partial(catch, place, x.output_nr))
                hooks.callback(hook.remove)
        root.backward(retain_graph=retain)  # type: ignore[no-untyped-call]
    pairs = zip(wanted, caught, strict=True)
    gradients = [x.grad if isinstance(x, Tensor) else gradient for x, gradient in pairs]
    for x, gradient in before:
        x.grad = gradient
    return gradients


def edge_of(tensor: Tensor) -> GradientEdge | None:
    """Where the gradient of ``tensor`` arrives, whatever overwrites the tensor later."""
    node = tensor.grad_fn
    return None if node is None else GradientEdge(node, tensor.output_nr)


def on_the_way(passes: list[RowPass]) -> list[RowPass]:
    """Without rows that hold no weights and that the gradient goes around: position angles."""
    arrived = False
    on_the_way = []
    for measured in passes:
        arrived = arrived or measured.gradient_norm is not None
        cold = measured.status is RowStatus.NO_GRADIENT and not holds_weights(measured.row.module)
        if not (arrived and cold):
            on_the_way.append(measured)
    return on_the_way


def in_order(rows: list[Row], passes: list[RowPass]) -> list[RowPass]:
    """In the order of the calls, a leaf below the block that called it; what never ran comes last.

    A module that ran more than once has a row for each call, numbered from the second.
    """
    home = ""
    homes: dict[str, str] = {}  # of each leaf: the block in which it is registered
    for row in rows:
        home = home if row.level else row.name
        homes[row.name] = home
    calls: Counter[str] = Counter()
    result: list[RowPass] = []
    leaves: list[RowPass] = []

    def add(measured: RowPass, name: str) -> None:
        calls[name] += 1
        row = measured.row._replace(name=call_name(name, calls[name]), call=calls[name])
        result.append(measured._replace(row=row))

    for measured in passes:  # a block's hook fires after its leaves'
        name = measured.row.name
        if measured.row.level:
            leaves.append(measured)
            continue
        add(measured, name)
        for leaf in leaves:
            add(leaf, name + leaf.row.name.removeprefix(homes[leaf.row.name]))
        leaves = []
    for leaf in leaves:
        add(leaf, leaf.row.name)
    ran = {measured.row.name for measured in passes}
    return result + [RowPass(row, RowStatus.NOT_RUN) for row in rows if row.name not in ran]
