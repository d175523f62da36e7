"""Any module, measured: what its rows put out, and what autograd then says of it."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from gradprobe.errors import ModelError
from gradprobe.measure.checkpoints import without_reentrant
from gradprobe.measure.derivatives import derivatives
from gradprobe.measure.detached import loose
from gradprobe.measure.ends import Graph, unowned, unread
from gradprobe.measure.graph import Call, Reads, reads
from gradprobe.measure.norms import activation_stats, extremes_of, norms
from gradprobe.measure.on_demand import Ledger
from gradprobe.measure.outputs import MAIN, Key, Outputs, RowCall, key_of
from gradprobe.measure.passes import (
    Extremes,
    ParameterNorms,
    Pass,
    RowPass,
    edge_of,
    failed,
    gradients_of,
    in_order,
    on_the_way,
    scalar,
)
from gradprobe.measure.profile import RowStatus
from gradprobe.measure.ranks import failing_together, together
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.repeats import holds_weights
from gradprobe.model.rows import Row
from gradprobe.model.seeds import derive, reseed_all
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import fresh, map_tensors, nodes_behind, tensors_in


def measure_hooked(subject: Subject, rows: list[Row]) -> Pass:
    """One pass through any module.

    Args:
        rows: the rows to measure, leaves among them.

    Raises:
        InputError, ModelError: as ``measure``; a block that runs inside a transform alone, too.
    """
    with without_reentrant() as checkpoints:
        try:
            result = _measure(subject, rows)
        except ModelError:
            if subject.ranks is not None:
                raise
            # A model may set itself what requires a gradient, and a loss refuse targets that do.
            checkpoints.clear()
            reseed_all(derive(subject.seed, "forward"))
            return _measure(subject, rows, from_inputs=False)
        if not checkpoints:
            return result
        # What a reentrant checkpoint passes on depends on whether its input requires a gradient.
        checkpoints.clear()
        with undisturbed(subject.model):
            result = _measure(subject, rows, from_inputs=False)
        return result._replace(cut_checkpoint=not all(checkpoints))


def _measure(subject: Subject, rows: list[Row], from_inputs: bool = True) -> Pass:
    """One pass, in which the inputs require a gradient or do not."""
    with Outputs(subject.model, rows, ranks=subject.ranks) as outputs:
        with failing_together(subject.ranks):
            with derivatives() as noted:
                value, leaves = _forward(subject, outputs, from_inputs)
            result = pass_of(subject.model, outputs, value, leaves)
            # Langevin sampling follows a gradient, and detaches its steps on purpose.
            loops = () if noted.made else result.around.loose
            result = result._replace(around=result.around._replace(kink=noted.kink, loose=loops))
        return of_all_ranks(result, outputs, [subject.args, dict(subject.kwargs)])


def of_all_ranks(result: Pass, outputs: Outputs, inputs: Any) -> Pass:
    """``result`` with what the other processes have that share the model, where there are some."""
    if outputs.ranks is None:
        return result
    copies = {i: call.copy for i, call in enumerate(outputs.calls) if call.copy is not None}
    return together(result, copies, outputs.model, outputs.ranks, inputs)


def pass_of(
    model: nn.Module, outputs: Outputs, value: Tensor, leaves: list[Tensor], retain: bool = False
) -> Pass:
    """The backward pass of ``value``, whose forward pass ``outputs`` has watched.

    Args:
        leaves: inputs; asked for, so that a gradient flows through rows without weights.
        retain: whether another backward pass is to follow.

    Raises:
        ModelError: the backward pass raised, or a block ran inside a transform alone.
    """
    outputs.recording = False
    graph = Graph(value, outputs.main)
    strays = unowned(outputs.main, model, [*leaves, *outputs.inputs])
    graph.read([value], model.named_parameters())
    beside = outputs.beside | _unseen(outputs)
    read = _reads(outputs.calls, leaves)
    wanted = _wanted(outputs)
    try:
        gradients = _gradients(outputs, graph, value, [*wanted.values(), *leaves], retain)
    except Exception as error:
        raise failed(error, None, outputs.rows) from error
    sizes = outputs.reduced | _sizes(wanted, gradients, outputs.reduced)
    passes = _passes(outputs, sizes, read)
    seen, by_key = on_the_way(passes), dict(zip(wanted, gradients, strict=False))
    beside |= {p.row.name for p in passes} - {p.row.name for p in seen}
    around = graph.around._replace(unowned=strays, silent=_silent(outputs.calls, by_key))
    around = outputs.with_input(around)._replace(loose=tuple(loose(passes, read)))
    return Pass(
        rows=in_order([row for row in outputs.rows if row.name not in beside], seen),
        parameters=_parameters(outputs, sizes),
        loss=float(value.detach()),
        unread={} if _is_its_own(value, outputs.output) else unread(outputs.output, value),
        called=outputs.called,
        gradients=_kept(outputs, by_key),
        extremes=_extremes(outputs),
        around=around._replace(output_norm=sizes.get(MAIN)),
    )


def _is_its_own(loss: Tensor, output: Any) -> bool:
    """Whether the model gives its own loss, beside what that is made of or leaves out."""
    nodes = {t.grad_fn for t in tensors_in(output) if not t.dim()} - {None}
    return loss.grad_fn is not None and not nodes.isdisjoint(
        {loss.grad_fn, *nodes_behind(loss.grad_fn)}
    )


def _kept(outputs: Outputs, gradients: Mapping[Key, Tensor | None]) -> dict[Key, Tensor]:
    """The gradients that processes have to add up; those of sharded weights are added up."""
    if outputs.ranks is None:
        return {}
    own = () if outputs.ranks.sharded else map(key_of, outputs.parameters)
    pairs = ((key, gradients.get(key)) for key in (*(call.main for call in outputs.calls), *own))
    return {key: gradient for key, gradient in pairs if gradient is not None}


def _gradients(
    outputs: Outputs, graph: Graph, value: Tensor, wanted: list[Any], retain: bool
) -> list[Tensor | None]:
    """∂value/∂ each of ``wanted``; ``outputs`` has the norms of those that are gone."""
    ledger = outputs.ledger
    if ledger is None:
        return list(gradients_of(value, wanted, retain))
    ledger.graph = graph
    gradients = []
    for x, gradient in zip(wanted, gradients_of(value, wanted, retain), strict=True):
        if gradient is not None and gradient.is_meta:
            gone = ledger.gradient(x)
            if not isinstance(gone, Tensor):
                outputs.reduced[key_of(x)] = gone
            gradient = gone if isinstance(gone, Tensor) else None
        gradients.append(gradient)
    return gradients


def _parameters(outputs: Outputs, sizes: Mapping[Key, float]) -> ParameterNorms:
    parameters, ledger = outputs.parameters, outputs.ledger or Ledger()
    own = ledger.own_norms(parameters)
    return {id(p): (n, sizes.get(key_of(p))) for p, n in zip(parameters, own, strict=True)}


def _extremes(outputs: Outputs) -> Extremes | None:
    if outputs.ledger is None:
        return None
    real = ((id(p), p) for p in outputs.parameters if not p.is_meta)
    return outputs.ledger.extremes | extremes_of(real)


def _silent(calls: list[RowCall], gradients: Mapping[Key, Tensor | None]) -> float | None:
    """The share of samples whose gradient is lost behind the last row that holds weights."""
    heads = [call for call in calls if not call.row.level and holds_weights(call.row.module)]
    return _silent_samples(gradients.get(MAIN), gradients.get(heads[-1].main)) if heads else None


def _silent_samples(at_output: Tensor | None, at_head: Tensor | None) -> float | None:
    """The share of samples with a gradient at the output and none at the last weights' output."""
    if at_output is None or at_head is None or not at_head.dim() or not at_output.dim():
        return None
    if len(at_output) != len(at_head) or len(at_head) < 2:
        return None
    alive = at_output.flatten(1).any(1) if at_output.dim() > 1 else at_output != 0
    cold = ~(at_head.flatten(1).any(1) if at_head.dim() > 1 else at_head != 0)
    return float((alive & cold).float().mean())


def _unseen(outputs: Outputs) -> set[str]:
    """The rows that ran inside a transform alone, of which none may be a block."""
    seen = {call.row.name for call in outputs.calls}
    unseen = [row for row in outputs.transformed if row.name not in seen]
    for row in unseen:
        if not row.level:
            what = f"row {row.name} ({row.kind}) runs inside torch.vmap or torch.func alone"
            hint = "choose rows around the transform with --rows"
            raise ModelError(f"{what}, where nothing can be measured", hint=hint)
    return {row.name for row in unseen}


def _forward(subject: Subject, outputs: Outputs, from_inputs: bool) -> tuple[Tensor, list[Tensor]]:
    """The loss, and the inputs that a gradient comes back to."""
    leaves: list[Tensor] = []
    arguments = (subject.args, dict(subject.kwargs))
    args, kwargs = _prepared(arguments, leaves) if from_inputs else fresh(arguments)
    try:
        return scalar(subject.loss(outputs.of(subject.model(*args, **kwargs)))), leaves
    except Exception as error:
        ran = [call.row for call in outputs.calls if call.row.level == 0]
        row = outputs.running[-1][0] if outputs.running else None
        raise failed(error, row, ran) from error


def _prepared(arguments: Any, leaves: list[Tensor]) -> Any:
    """``arguments`` with copies for tensors, which the model may overwrite: of leaves with a
    gradient, which are added to ``leaves``, where they are floating."""

    def copy(tensor: Tensor) -> Tensor:
        if tensor.is_inference():
            tensor = tensor.clone()
        if not tensor.is_floating_point():
            return tensor.clone()
        leaves.append(tensor.detach().requires_grad_())
        return leaves[-1].clone()

    return map_tensors(copy, arguments)


def _wanted(outputs: Outputs) -> dict[Key, Any]:
    calls, main = outputs.calls, outputs.main
    wanted: dict[Key, Any] = {call.main: call.edge for call in calls if call.edge is not None}
    wanted |= {key_of(p): p for p in outputs.parameters if p.requires_grad}
    for index, call in enumerate(calls):
        wanted |= {(index, k): edge for k, edge in enumerate(call.spare, 1)}
    if main is not None:
        wanted[MAIN] = edge_of(main) or main
    return wanted


def _sizes(
    keys: Iterable[Key], gradients: Sequence[Tensor | None], reduced: Container[Key]
) -> dict[Key, float]:
    pairs = zip(keys, gradients, strict=False)
    small = {key: g for key, g in pairs if g is not None and key not in reduced}
    return dict(zip(small, norms(list(small.values())), strict=True))


def _reads(calls: list[RowCall], leaves: list[Tensor]) -> dict[int, Reads]:
    """By index, what each call of a row of level 0 reads."""
    outer = [index for index, call in enumerate(calls) if call.row.level == 0]
    chosen = [calls[index] for index in outer]
    seen = reads([Call(call.row.module, call.node, call.arguments) for call in chosen], leaves)
    return {
        index: of._replace(feeders=tuple(outer[i] if i >= 0 else i for i in of.feeders))
        if of.feeders is not None
        else of
        for index, of in zip(outer, seen, strict=True)
    }


def _passes(
    outputs: Outputs, sizes: Mapping[Key, float], read: Mapping[int, Reads]
) -> list[RowPass]:
    calls, weighted = outputs.calls, outputs.weighted
    small = iter(activation_stats([call.copy for call in calls if call.copy is not None]))
    passes = []
    for index, call in enumerate(calls):
        stats = call.stats if call.copy is None else next(small)
        # What arrives at all that the row hands out: two streams, or an LSTM's last states.
        keys = [call.main, *((index, k) for k in range(1, len(call.spare) + 1))]
        arriving = [sizes[key] for key in keys if key in sizes]
        norm = math.hypot(*arriving) if arriving else None
        status = RowStatus.OK if norm is not None else RowStatus.NO_GRADIENT
        if stats is None:
            status = RowStatus.NO_TENSOR
        reads_of = read.get(index, Reads())
        made = RowPass(call.row, status, stats, norm, index, reads_of, weighted.get(index))
        passes.append(made)
    return passes
