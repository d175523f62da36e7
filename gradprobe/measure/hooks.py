"""Any module, measured through hooks that are removed again.

A large gradient is reduced to its norm as soon as autograd has made it.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.graph import GradientEdge, Node

from gradprobe.errors import ModelError
from gradprobe.measure.checkpoints import without_reentrant
from gradprobe.measure.ends import main_output, of_graph, of_input, silent_samples, unowned, unread
from gradprobe.measure.graph import Call, Reads, reads
from gradprobe.measure.norms import ActivationStats, activation_stats, norms, weighted_rms
from gradprobe.measure.passes import (
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
from gradprobe.measure.recorder import Arguments, Recorder, takes_hooks
from gradprobe.measure.surroundings import Surroundings
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.rows import Row, holds_weights
from gradprobe.model.seeds import derive, reseed_all
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import first_tensor, fresh, map_tensors, tensors_in, with_tensor

_LARGE = 1 << 15  # elements: from here a gradient is reduced as soon as it is made

# Whose gradient: (-1, id) of a parameter, (index, 0) of a call's main output, (index, k) of its
# k-th other one.
_Key = tuple[int, int]
_MAIN: _Key = (-2, 0)  # the model's own main output


class _Call(NamedTuple):
    """One call of a row's module, as its forward hook saw it."""

    row: Row
    main: _Key  # of its main output; a row may hand out a parameter of its own
    edge: GradientEdge | None = None  # where the main output's gradient arrives, unless it is large
    copy: Tensor | None = None  # of a small output: an in-place layer may overwrite the original
    stats: ActivationStats | None = None  # of a large output
    spare: tuple[GradientEdge, ...] = ()  # of what else it hands out: an LSTM's last states
    node: Node | None = None  # that made the main output
    arguments: tuple[tuple[Node | None, int], ...] = ()  # who made each, and where it lies


def measure_hooked(subject: Subject, rows: list[Row], modules: list[nn.Module]) -> Pass:
    """One pass through any module.

    Args:
        rows: the rows to measure, leaves among them.
        modules: every module inside.

    Raises:
        InputError, ModelError: as ``measure``; a block that runs inside a transform alone, too.
    """
    with without_reentrant() as checkpoints:
        result = _measure(subject, rows, modules)
        if not checkpoints:
            return result
        # What a reentrant checkpoint passes on depends on whether its input requires a gradient.
        checkpoints.clear()
        with undisturbed(subject.model, modules):
            result = _measure(subject, rows, modules, from_inputs=False)
        return result._replace(cut_checkpoint=not all(checkpoints))


def _measure(
    subject: Subject, rows: list[Row], modules: list[nn.Module], from_inputs: bool = True
) -> Pass:
    """One pass, in which the inputs require a gradient or do not."""
    parameters = list(subject.model.parameters())
    with _Outputs(rows, modules, parameters) as outputs:
        value, leaves = _forward(subject, outputs, from_inputs)
        outputs.recording = False
        strays = unowned(outputs.main, subject.model, leaves)
        around = of_graph(value, outputs.main)._replace(unowned=strays)
        beside = outputs.beside | _unseen(outputs)
        read = _reads(outputs.calls, leaves)
        wanted = _wanted(outputs.calls, parameters)
        if outputs.main is not None:
            wanted[_MAIN] = edge_of(outputs.main) or outputs.main
        try:
            # The inputs are asked for so that a gradient flows through rows without weights.
            gradients = gradients_of(value, [*wanted.values(), *leaves])
        except Exception as error:
            raise failed(error, None, rows) from error
    sizes = outputs.reduced | _sizes(wanted, gradients, outputs.reduced)
    passes = _passes(outputs.calls, sizes, read)
    passes = [p._replace(weighted_rms=outputs.weighted.get(p.position)) for p in passes]
    seen = on_the_way(passes)
    beside |= {p.row.name for p in passes} - {p.row.name for p in seen}
    own = norms([p.detach() for p in parameters])
    return Pass(
        rows=in_order([row for row in rows if row.name not in beside], seen),
        parameters={
            id(p): (norm, sizes.get(_key_of(p))) for p, norm in zip(parameters, own, strict=True)
        },
        loss=float(value.detach()),
        unread=unread(outputs.output, value),
        called=outputs.called,
        around=outputs.with_input(around)._replace(
            output_norm=sizes.get(_MAIN),
            silent=_silent(outputs.calls, dict(zip(wanted, gradients, strict=False))),
        ),
    )


def _silent(calls: list[_Call], gradients: Mapping[_Key, Tensor | None]) -> float | None:
    """The share of samples whose gradient is lost behind the last row that holds weights."""
    heads = [call for call in calls if not call.row.level and holds_weights(call.row.module)]
    return silent_samples(gradients.get(_MAIN), gradients.get(heads[-1].main)) if heads else None


class _Outputs(Recorder):
    """Notes what each row puts out, and the norms of large gradients as they are made."""

    def __init__(
        self, rows: list[Row], modules: list[nn.Module], parameters: list[nn.Parameter]
    ) -> None:
        super().__init__(rows)
        self.modules, self.parameters = modules, parameters
        self.calls: list[_Call] = []
        self.reduced: dict[_Key, float] = {}
        self.weighted: dict[int, float | None] = {}  # of the first call that holds weights
        self.called: set[nn.Module] = set()
        self.beside: set[str] = set()  # rows that no gradient has to do with: a mask, angles
        self.output: Any = None  # what the model gives
        self.main: Tensor | None = None  # the first tensor in it that a gradient can come from
        self.first: tuple[nn.Module, Tensor | None] | None = None  # to run, and what it got
        self.transformed: list[Row] = []  # their outputs exist inside torch.vmap or torch.func

    def __enter__(self) -> Self:
        super().__enter__()
        for module in self.modules:
            if module._parameters and takes_hooks(module):
                self.until_exit(module.register_forward_pre_hook(self._note, with_kwargs=True))
        for parameter in self.parameters:
            if parameter.requires_grad and parameter.numel() >= _LARGE:
                shrink = partial(self._shrink, _key_of(parameter))
                self.until_exit(parameter.register_hook(shrink))  # type: ignore[no-untyped-call]
        return self

    def before(self, row: Row, args: Any, kwargs: Any) -> tuple[Any, Arguments | None]:
        return (args, kwargs), None

    def after(self, row: Row, note: Any, output: Any) -> Any:
        """A view is handed on as a copy: where the model overwrites a view, autograd forgets it."""
        tensor = first_tensor(output)
        plain = tensor is not None and not is_functorch_wrapped_tensor(tensor)
        if tensor is not None and plain and tensor.requires_grad and tensor._is_view():
            output = with_tensor(output, tensor, tensor := tensor.clone())
        if tensor is None:
            self.calls.append(_Call(row, (len(self.calls), 0)))
        elif _is_beside(row, note, tensor):
            self.beside.add(row.name)
        elif is_functorch_wrapped_tensor(tensor):
            self.transformed.append(row)
        else:
            made = self._call(row, tensor, output)
            self.calls.append(made._replace(arguments=_arguments(note)))
        return output

    def _call(self, row: Row, tensor: Tensor, output: Any) -> _Call:
        own = isinstance(tensor, nn.Parameter)
        main = _key_of(tensor) if own else (len(self.calls), 0)
        spare, edge = _spare(output, tensor), edge_of(tensor)
        node = edge.node if edge else None
        if (
            not self.weighted
            and not row.level
            and tensor.requires_grad
            and holds_weights(row.module)
        ):
            self.weighted[len(self.calls)] = None
            weigh = partial(self._weigh, len(self.calls), tensor.detach())
            self.until_exit(tensor.register_hook(weigh))  # type: ignore[no-untyped-call]
        if tensor.numel() < _LARGE:
            return _Call(row, main, edge, tensor.detach().clone(), spare=spare, node=node)
        if tensor.requires_grad and not own:
            reduce = partial(self._reduce, main)
            self.until_exit(tensor.register_hook(reduce))  # type: ignore[no-untyped-call]
        [stats] = activation_stats([tensor.detach()])
        return _Call(row, main, stats=stats, spare=spare, node=node)

    def _note(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.called.add(module)
        if self.first is None and self.recording:
            x = first_tensor([args, kwargs])
            plain = x is not None and not is_functorch_wrapped_tensor(x)
            self.first = (module, x.clone() if x is not None and plain else None)

    def of(self, output: Any) -> Any:
        """Note what the model gives."""
        self.output, self.main = output, main_output(output)
        return output

    def with_input(self, around: Surroundings) -> Surroundings:
        """``around`` with what the first weights got."""
        module, x = self.first or (None, None)
        return around if module is None or x is None else of_input(around, module, x)

    def _weigh(self, index: int, values: Tensor, gradient: Tensor) -> None:
        self.weighted[index] = weighted_rms(values, gradient.detach())

    def _reduce(self, key: _Key, gradient: Tensor) -> None:
        self.reduced[key] = norms([gradient.detach()])[0]

    def _shrink(self, key: _Key, gradient: Tensor) -> Tensor:
        """What autograd hands back instead of the gradient, which is freed at once."""
        self._reduce(key, gradient)
        if gradient.is_sparse:
            return torch.zeros_like(gradient)
        return gradient.new_zeros(()).expand(gradient.shape)


def _arguments(arguments: Any) -> tuple[tuple[Node | None, int], ...]:
    """Of each tensor: the node that made it, and where it lies in memory."""
    seen = (t for t in tensors_in(arguments) if not is_functorch_wrapped_tensor(t))
    return tuple((t.grad_fn, t.data_ptr()) for t in islice(seen, 4) if t.layout is torch.strided)


def _key_of(parameter: Tensor) -> _Key:
    return -1, id(parameter)


def _is_beside(row: Row, arguments: Any, output: Tensor) -> bool:
    if output.requires_grad or holds_weights(row.module):
        return False
    return not any(tensor.requires_grad for tensor in tensors_in(arguments))


def _unseen(outputs: _Outputs) -> set[str]:
    """The rows that ran inside a transform alone, of which none may be a block."""
    seen = {call.row.name for call in outputs.calls}
    unseen = [row for row in outputs.transformed if row.name not in seen]
    for row in unseen:
        if not row.level:
            what = f"row {row.name} ({row.kind}) runs inside torch.vmap or torch.func alone"
            hint = "choose rows around the transform with --rows"
            raise ModelError(f"{what}, where nothing can be measured", hint=hint)
    return {row.name for row in unseen}


def _forward(subject: Subject, outputs: _Outputs, from_inputs: bool) -> tuple[Tensor, list[Tensor]]:
    """The loss, and the inputs that a gradient comes back to."""
    leaves: list[Tensor] = []
    arguments = (subject.args, dict(subject.kwargs))
    args, kwargs = _prepared(arguments, leaves) if from_inputs else fresh(arguments)
    try:
        try:
            return scalar(subject.loss(outputs.of(subject.model(*args, **kwargs)))), leaves
        except RuntimeError as error:
            if "requires_grad flags" not in str(error) or outputs.calls:
                raise
        # A forward that differentiates with respect to its input takes that for a leaf.
        args, kwargs = fresh(arguments)
        reseed_all(derive(subject.seed, "forward"))
        return scalar(subject.loss(outputs.of(subject.model(*args, **kwargs)))), []
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


def _spare(output: Any, first: Tensor) -> tuple[GradientEdge, ...]:
    """Where gradients arrive at the other tensors that a row hands out, none larger than ``first``:
    attention weights are, and nothing reads them."""
    others = [t for t in tensors_in(output) if t is not first and t.numel() <= first.numel()]
    edges = [edge_of(t) for t in others if t.is_floating_point()]
    return tuple(edge for edge in edges if edge is not None)


def _wanted(calls: list[_Call], parameters: list[nn.Parameter]) -> dict[_Key, Any]:
    wanted: dict[_Key, Any] = {call.main: call.edge for call in calls if call.edge is not None}
    wanted |= {_key_of(p): p for p in parameters if p.requires_grad}
    for index, call in enumerate(calls):
        wanted |= {(index, k): edge for k, edge in enumerate(call.spare, 1)}
    return wanted


def _sizes(
    keys: Iterable[_Key], gradients: Sequence[Tensor | None], reduced: Container[_Key]
) -> dict[_Key, float]:
    pairs = zip(keys, gradients, strict=False)
    small = {key: g for key, g in pairs if g is not None and key not in reduced}
    return dict(zip(small, norms(list(small.values())), strict=True))


def _reads(calls: list[_Call], leaves: list[Tensor]) -> dict[int, Reads]:
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
    calls: list[_Call], sizes: Mapping[_Key, float], read: Mapping[int, Reads]
) -> list[RowPass]:
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
        passes.append(RowPass(call.row, status, stats, norm, index, read.get(index, Reads())))
    return passes
