"""What each process measured of its own batch, or of its part of an output → the same for all.

Processes with the same inputs are one batch: what they measure alike counts once, and of what they
do not, under tensor parallelism, each has a part. Over several batches the loss is the mean of
theirs, as DistributedDataParallel and FSDP2 have it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from gradprobe.errors import GradprobeError, ModelError
from gradprobe.measure.norms import ActivationStats, norms, weighted_rms
from gradprobe.measure.passes import Pass, RowPass
from gradprobe.measure.profile import RowStatus
from gradprobe.model.ranks import Ranks
from gradprobe.model.sharded import part_of
from gradprobe.model.tensors import in_float64, tensors_in

T = TypeVar("T")
_ALIKE = 1e-6  # relative; up to here two processes have the same output, and not two parts of one
_MAIN = ""  # in place of a row's name: the model's own output


class _Row(NamedTuple):
    """The numbers of a row, as one process has them."""

    gradient: float | None = None
    rms: float | None = None
    dependence: float | None = None
    zeros: float | None = None
    weighted: float | None = None

    def same(self, other: _Row) -> bool:
        pairs = ((self.rms, other.rms), (self.gradient, other.gradient))
        return all(a == b or (a and b and math.isclose(a, b, rel_tol=_ALIKE)) for a, b in pairs)


class _Own(NamedTuple):
    """What one process has to say, small enough to be handed to all."""

    batch: str  # a digest of its inputs
    rows: Mapping[str, _Row]
    loss: float
    silent: float | None
    shapes: tuple[torch.Size, ...]  # of the rows' outputs
    has_gradient: tuple[bool, ...]  # of each parameter


# Of each batch its share of all, and the numbers of a row: of each part of it, or of the whole.
_Parts = list[tuple[float, list[_Row]]]


def agreed(ranks: Ranks | None, value: T) -> T:
    """What the first rank has, so that all say and do the same."""
    return value if ranks is None else ranks.everyone(value)[0]


@contextmanager
def failing_together(ranks: Ranks | None) -> Iterator[None]:
    """Where this process fails the others are told, which wait for it; the error says which it was.

    Of a sharded model a pass takes all processes: the others are in it, and cannot be told.
    """
    try:
        yield
    except Exception as error:
        if ranks is None:
            raise
        text = error.message if isinstance(error, GradprobeError) else str(error)
        if not ranks.sharded:
            ranks.everyone(text)
        raise ModelError(f"rank {ranks.rank}: {text}") from error.__cause__ or error


def together(
    result: Pass, outputs: Mapping[int, Tensor], model: nn.Module, ranks: Ranks, inputs: Any
) -> Pass:
    """``result`` of this process and those of the others as one; all of them have to ask.

    Args:
        outputs: of the rows, by their position among the calls.
        inputs: what the model was called with.

    Raises:
        ModelError: another process failed.
    """
    parameters = list(model.parameters())
    every = ranks.everyone(_own(result, outputs, parameters, inputs))
    for rank, other in enumerate(every):
        if isinstance(other, str):
            raise ModelError(f"rank {rank}: {other}")
    several = len({other.batch for other in every}) > 1
    dependences: dict[str, float] = {}
    if several and not ranks.split and len({other.shapes for other in every}) == 1:
        measured = [row for row in result.rows if row.position in outputs]
        dependences = {r.row.name: _dependence(outputs[r.position], ranks) for r in measured}
    if several and not ranks.sharded:
        wanted = [any(has) for has in zip(*(other.has_gradient for other in every), strict=True)]
        trained = [p for p, is_wanted in zip(parameters, wanted, strict=True) if is_wanted]
        result = _with_mean_gradients(result, trained, ranks)
    rows = [_combined(row, _parts(every, row.row.name, ranks), dependences) for row in result.rows]
    if several:
        rows = [_of_one_output(row, result.gradients, outputs, every, ranks) for row in rows]
    silent = [other.silent for other in every if other.silent is not None]
    around = result.around._replace(
        output_norm=_gradient(_parts(every, _MAIN, ranks)),
        silent=math.fsum(silent) / len(silent) if silent else None,
    )
    loss = math.fsum(other.loss for other in every) / ranks.size
    return result._replace(rows=rows, loss=loss, around=around, gradients={})


def _own(
    result: Pass, outputs: Mapping[int, Tensor], parameters: list[nn.Parameter], inputs: Any
) -> _Own:
    return _Own(
        batch=_digest(inputs),
        rows={row.row.name: _numbers(row) for row in result.rows}
        | {_MAIN: _Row(result.around.output_norm)},
        loss=result.loss,
        silent=result.around.silent,
        shapes=tuple(outputs[r.position].shape for r in result.rows if r.position in outputs),
        has_gradient=tuple((-1, id(p)) in result.gradients for p in parameters),
    )


def _digest(inputs: Any) -> str:
    digest = hashlib.sha256()
    for tensor in tensors_in(inputs):
        digest.update(str((tensor.shape, tensor.dtype)).encode())
        flat = part_of(tensor.detach()).contiguous().reshape(-1).cpu()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _numbers(row: RowPass) -> _Row:
    stats = row.stats or ActivationStats(None, None, None)  # type: ignore[arg-type]
    return _Row(row.gradient_norm, *stats, row.weighted_rms)


def _parts(every: list[_Own], name: str, ranks: Ranks) -> _Parts:
    batches: dict[str, list[_Own]] = {}
    for own in every:
        batches.setdefault(own.batch, []).append(own)
    parts: _Parts = []
    for owns in batches.values():
        rows = [own.rows[name] for own in owns if name in own.rows]
        if not ranks.split or all(row.same(rows[0]) for row in rows):
            rows = rows[:1]
        parts.append((len(owns) / ranks.size, rows))
    return parts


def _combined(row: RowPass, parts: _Parts, dependences: Mapping[str, float]) -> RowPass:
    norm = _gradient(parts)
    mean_square = _mean(parts, lambda part: None if part.rms is None else part.rms**2)
    dependence = dependences.get(row.row.name, _mean(parts, lambda part: part.dependence))
    weighed = _gradient(
        [
            (share, [_Row(p.gradient * p.weighted) for p in rows if p.gradient and p.weighted])
            for share, rows in parts
        ]
    )
    stats = row.stats
    if mean_square is not None:
        zeros = _mean(parts, lambda part: part.zeros) or 0.0
        stats = ActivationStats(math.sqrt(mean_square), dependence, zeros)
    arrived = row.status is RowStatus.NO_GRADIENT and norm is not None
    return row._replace(
        status=RowStatus.OK if arrived else row.status,
        stats=stats,
        gradient_norm=norm,
        weighted_rms=weighed / norm if weighed is not None and norm else row.weighted_rms,
    )


def _of_one_output(
    row: RowPass,
    gradients: Mapping[tuple[int, int], Tensor],
    outputs: Mapping[int, Tensor],
    every: list[_Own],
    ranks: Ranks,
) -> RowPass:
    """A row whose output is the same for every batch, position embeddings: its gradients add up."""
    numbers = [own.rows.get(row.row.name) for own in every]
    first, own = numbers[0], gradients.get((row.position, 0))
    if first is None or first.rms is None or own is None:
        return row
    if any(n is None or n.gradient is None or n[1:4] != first[1:4] for n in numbers):
        return row
    gradient = ranks.mean(own)
    weighted = row.weighted_rms and weighted_rms(outputs[row.position], gradient)
    return row._replace(gradient_norm=norms([gradient])[0], weighted_rms=weighted)


def _gradient(parts: _Parts) -> float | None:
    """The norm of the gradient of the mean loss."""
    norms_ = [share * p.gradient for share, rows in parts for p in rows if p.gradient is not None]
    return math.hypot(*norms_) if norms_ else None


def _mean(parts: _Parts, read: Callable[[_Row], float | None]) -> float | None:
    """The mean over batches and over parts of one, of which each has as many elements."""
    total = weight = 0.0
    for share, rows in parts:
        values = [value for row in rows if (value := read(row)) is not None]
        if values:
            total, weight = total + share * math.fsum(values) / len(values), weight + share
    return total / weight if weight else None


def _dependence(output: Tensor, ranks: Ranks) -> float:
    """The variance across all samples ÷ the mean square, averaged over the features."""
    x = in_float64(output)
    own = x.mean(0)
    mean = ranks.mean(own)
    variance = ranks.mean((x - own).square().mean(0) + (own - mean).square())
    ratio = variance / ranks.mean(x.square().mean(0))
    return float(ratio.nan_to_num(0.0).mean())


def _with_mean_gradients(result: Pass, trained: list[nn.Parameter], ranks: Ranks) -> Pass:
    """With the norms of the mean of the processes' gradients, of which one is summed at a time."""
    parameters = dict(result.parameters)
    for parameter in trained:
        gradient = result.gradients.get((-1, id(parameter)))
        mean = ranks.mean(torch.zeros_like(parameter) if gradient is None else gradient)
        parameters[id(parameter)] = parameters[id(parameter)][0], norms([mean])[0]
    return result._replace(parameters=parameters)
