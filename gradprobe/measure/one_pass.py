"""One forward, one backward: module + batch → ``GradientProfile``.

Two ways to collect the same numbers. A network built from a spec is a chain of rows, so its graph
is cut into segments and run backward one segment at a time: only one segment's gradients are alive
at once, and no hook is called. Any other module is measured through hooks that are removed again;
there a large gradient is reduced to its norm as soon as autograd has made it.

The subject is left as it was: state dict, buffers, modes, ``.grad``, hooks, random state.
"""

from __future__ import annotations

import gc
import math
import random
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.graph import GradientEdge

from gradprobe.errors import GradprobeError, InputError, ModelError
from gradprobe.measure.norms import ActivationStats, activation_stats, norms
from gradprobe.measure.profile import (
    GradientProfile,
    ParameterProfile,
    RowProfile,
    RowStatus,
    Use,
    call_name,
)
from gradprobe.model.build import Network
from gradprobe.model.rows import (
    Row,
    holds_weights,
    leaves_of,
    modules_of,
    parameters_of,
    with_leaves,
)
from gradprobe.model.seeds import derive, reseed_all
from gradprobe.model.subject import Loss, Subject
from gradprobe.model.tensors import first_tensor, map_tensors, tensors_in
from gradprobe.numbers import all_finite

_SEGMENT_ROWS = 64
_SEGMENT_ELEMENTS = 1 << 18  # 1 MiB in float32: what a core's cache holds
_LARGE = 1 << 15  # elements: from here a gradient is reduced as soon as it is made

_NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_BIASED = (nn.Linear, nn.modules.conv._ConvNd)


class _Measured(NamedTuple):
    """What was measured of one call of one row."""

    row: Row
    status: RowStatus
    stats: ActivationStats | None = None
    gradient_norm: float | None = None


# Norm of a parameter and of its gradient, by the parameter's id.
_ParameterNorms = dict[int, tuple[float, float | None]]


def measure(subject: Subject, level: str = "blocks") -> GradientProfile:
    """One forward and one backward pass, in the mode that each submodule is in.

    The subject is left as it was, also when it raises.

    Args:
        level: ``blocks`` for the rows alone, ``leaves`` for the leaves inside them too.

    Raises:
        InputError: the loss is no scalar.
        ModelError: the forward or backward pass raised; names the row.
    """
    model, args, kwargs, loss = subject.model, subject.args, subject.kwargs, subject.loss
    modules = modules_of(model)
    found = list(subject.rows)
    places = model.places if isinstance(model, Network) else None
    found = with_leaves(found, places) if level == "leaves" else found
    own = {row.module: parameters_of(row.module, f"{row.name}.") for row in found}
    called: set[nn.Module] | None = None  # in a chain every layer is
    with undisturbed(model, modules), torch.inference_mode(False), torch.enable_grad():
        reseed_all(derive(subject.seed, "forward"))
        if isinstance(model, Network) and level == "blocks" and _can_be_cut(modules):
            measured, norms_by_id, value = _measure_chain(found, own, args[0], loss)
        else:
            called = set()
            measured, norms_by_id, value = _measure_hooked(
                model, modules, found, args, kwargs, loss, called
            )
    finite = all(
        bool(torch.isfinite(t).all()) for t in tensors_in([args, kwargs]) if t.is_floating_point()
    )
    with _no_collection():
        uses = {} if called is None else _uses_of(modules, called)
        profile = _profile(model, modules, own, measured, norms_by_id, value, uses)
    return profile if finite else replace(profile, input_finite=False)


_Own = Mapping[nn.Module, list[tuple[str, nn.Parameter]]]  # names and parameters of each row


# ---- a chain of rows


def _can_be_cut(modules: list[nn.Module]) -> bool:
    """Whether the row boundaries may be leaves: not where a row overwrites its input."""
    return not any(module.__dict__.get("inplace") for module in modules)


class _Segment(NamedTuple):
    start: int  # index of its first row
    leaf: Tensor
    outputs: list[GradientEdge | None]
    parameters: list[nn.Parameter]
    end: Tensor


def _measure_chain(
    rows: list[Row], owned: _Own, x: Tensor, loss: Loss
) -> tuple[list[_Measured], _ParameterNorms, float]:
    stats: list[ActivationStats] = []
    segments: list[_Segment] = []
    own = [[p for _, p in owned[row.module]] for row in rows]
    # The input needs a gradient only if a row before the first trained weights is to have one.
    x = x.detach()
    if x.is_floating_point() and not any(p.requires_grad for p in own[0]):
        x.requires_grad_()
    position = 0
    while position < len(rows):
        leaf = x if position == 0 else x.detach().requires_grad_()
        x, start, elements = leaf, position, 0
        edges: list[GradientEdge | None] = []
        outputs: list[Tensor] = []
        inside: list[nn.Parameter] = []
        while position < len(rows) and elements < _SEGMENT_ELEMENTS and len(edges) < _SEGMENT_ROWS:
            try:
                x = rows[position].module(x)
            except Exception as error:
                raise failed(error, rows[position], rows[:position]) from error
            edges.append(_edge(x))
            outputs.append(x.detach())
            inside += own[position]
            elements += x.numel() + sum([p.numel() for p in own[position]])
            position += 1
        stats += activation_stats(outputs)
        segments.append(_Segment(start, leaf, edges, inside, x))
    try:
        value = scalar(loss(x))
        gradients, parameters = _backward_chain(segments, value, len(rows))
    except Exception as error:
        raise failed(error, None, rows) from error
    measured = []
    for row, stat, gradient in zip(rows, stats, gradients, strict=True):
        status = RowStatus.OK if gradient is not None else RowStatus.NO_GRADIENT
        measured.append(_Measured(row, status, stat, gradient))
    return measured, parameters, float(value.detach())


def _backward_chain(
    segments: list[_Segment], value: Tensor, row_count: int
) -> tuple[list[float | None], _ParameterNorms]:
    """Backward, one segment at a time from the last; each is freed when it is done."""
    row_norms: list[float | None] = [None] * row_count
    parameter_norms: _ParameterNorms = {}
    arriving: Tensor | None = None  # ∂L/∂(end of the segment); the loss is a scalar and needs none
    segments[-1] = segments[-1]._replace(end=value)
    while segments:
        segment = segments.pop()
        trainable = [p for p in segment.parameters if p.requires_grad]
        indices = [i for i, edge in enumerate(segment.outputs) if edge is not None]
        edges: list[Any] = [segment.outputs[i] for i in indices]
        leaf = [segment.leaf] if segment.leaf.requires_grad else []
        wanted = [*edges, *trainable, *leaf]
        gradients: Sequence[Tensor | None] = [None] * len(wanted)
        root = segment.end
        if root is not value and arriving is not None:
            # ⟨end, ∂L/∂end⟩ has the gradients of L. Handed over as grad_outputs, ∂L/∂end would make
            # torch import sympy, which takes half as long as importing torch.
            with torch.enable_grad():
                root = (root * arriving).sum()
        if root.requires_grad and (root is value or arriving is not None):
            gradients = torch.autograd.grad(root, wanted, allow_unused=True)
        arriving = gradients[-1] if leaf else None
        counted = gradients[: len(edges) + len(trainable)]
        weights = [p.detach() for p in segment.parameters]
        values = iter(norms([*(g for g in counted if g is not None), *weights]))
        found = [None if g is None else next(values) for g in counted]
        for index, norm in zip(indices, found, strict=False):
            row_norms[segment.start + index] = norm
        of_gradients = dict(zip(map(id, trainable), found[len(edges) :], strict=True))
        for parameter, norm in zip(segment.parameters, values, strict=True):
            parameter_norms[id(parameter)] = (norm, of_gradients.get(id(parameter)))
    return row_norms, parameter_norms


# ---- any module, through hooks


class _Call(NamedTuple):
    """One call of a row's module, as its forward hook saw it."""

    row: Row
    edge: GradientEdge | None
    output: Tensor | None  # a copy: an in-place layer may overwrite the original
    large: bool
    spare: tuple[GradientEdge, ...] = ()  # of what else it hands out: an LSTM's last states


def _unseen(transformed: Sequence[Row], measured: Container[str]) -> set[str]:
    """The rows that ran inside a transform alone.

    Raises:
        ModelError: one of them is a block.
    """
    unseen = [row for row in transformed if row.name not in measured]
    for row in unseen:
        if not row.level:
            what = f"row {row.name} ({row.kind}) runs inside torch.vmap or torch.func alone"
            hint = "choose rows around the transform with --rows"
            raise ModelError(f"{what}, where nothing can be measured", hint=hint)
    return {row.name for row in unseen}


def _measure_hooked(
    model: nn.Module,
    modules: list[nn.Module],
    rows: list[Row],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    loss: Loss,
    called: set[nn.Module],
) -> tuple[list[_Measured], _ParameterNorms, float]:
    calls: list[_Call] = []
    stats: dict[int, ActivationStats] = {}
    reduced: dict[object, float] = {}  # norms of large gradients, taken when they were made
    aliases: dict[int, tuple[int]] = {}
    entered: list[Row] = []  # the rows whose forward runs, the innermost last
    transformed: list[Row] = []  # their outputs exist inside torch.vmap or torch.func alone
    beside: set[str] = set()  # rows that no gradient has to do with: a mask, position angles
    recording = True  # checkpointing runs the forward again during the backward pass

    def reduce(key: object) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            reduced[key] = norms([gradient.detach()])[0]

        return hook

    def shrink(key: object) -> Callable[[Tensor], Tensor]:
        # autograd hands this back instead of the gradient, which is freed at once.
        def hook(gradient: Tensor) -> Tensor:
            reduce(key)(gradient)
            if gradient.is_sparse:
                return torch.zeros_like(gradient)
            return gradient.new_zeros(()).expand(gradient.shape)

        return hook

    def enter(row: Row) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            if recording:
                entered.append(row)

        return hook

    def note(module: nn.Module, inputs: Any) -> None:
        called.add(module)

    def record(row: Row) -> Callable[[nn.Module, Any, Any, Any], None]:
        weightless = not holds_weights(row.module)

        def hook(module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
            if not recording:
                return
            entered.pop()
            index, tensor = len(calls), first_tensor(output)
            cold = weightless and tensor is not None and not tensor.requires_grad
            if cold and not any(x.requires_grad for x in tensors_in([inputs, named])):
                beside.add(row.name)
                return
            if tensor is None:
                calls.append(_Call(row, None, None, False))
                return
            if is_functorch_wrapped_tensor(tensor):
                transformed.append(row)
                return
            large = tensor.numel() >= _LARGE
            if large:
                stats[index] = activation_stats([tensor.detach()])[0]
                if tensor.requires_grad and not isinstance(tensor, nn.Parameter):
                    handle = tensor.register_hook(reduce(index))  # type: ignore[no-untyped-call]
                    hooks.callback(handle.remove)
            if isinstance(tensor, nn.Parameter):  # a row may hand out a parameter of its own
                aliases[index] = (id(tensor),)
            copy = None if large else tensor.detach().clone()
            calls.append(_Call(row, _edge(tensor), copy, large, _spare(output, tensor)))

        return hook

    parameters = list(model.parameters())
    trainable = [p for p in parameters if p.requires_grad]
    with ExitStack() as hooks:
        for row in rows:
            hooks.callback(row.module.register_forward_pre_hook(enter(row)).remove)
            handle = row.module.register_forward_hook(record(row), with_kwargs=True)
            hooks.callback(handle.remove)
        for module in modules:
            if module._parameters:
                hooks.callback(module.register_forward_pre_hook(note).remove)
        for parameter in trainable:
            if parameter.numel() >= _LARGE:
                hook = parameter.register_hook(shrink((id(parameter),)))  # type: ignore[no-untyped-call]
                hooks.callback(hook.remove)
        leaves: list[Tensor] = []
        args, kwargs = _prepared(list(args), leaves), _prepared(dict(kwargs), leaves)
        try:
            value = scalar(loss(model(*args, **kwargs)))
        except Exception as error:
            ran = [call.row for call in calls if call.row.level == 0]
            raise failed(error, entered[-1] if entered else None, ran) from error
        recording = False
        beside |= _unseen(transformed, {call.row.name for call in calls})
        captured = [i for i, call in enumerate(calls) if call.edge is not None and not call.large]
        spare = [(i, k) for i, call in enumerate(calls) for k in range(len(call.spare))]
        wanted: list[Any] = [*(calls[i].edge for i in captured), *trainable]
        wanted += [calls[i].spare[k] for i, k in spare]
        gradients: Sequence[Tensor | None] = [None] * len(wanted)
        if value.requires_grad and (wanted or leaves):
            # The inputs are asked for so that a gradient flows through rows without weights.
            try:
                gradients = torch.autograd.grad(value, [*wanted, *leaves], allow_unused=True)
            except Exception as error:
                raise failed(error, None, rows) from error
    copied = [i for i, call in enumerate(calls) if call.output is not None]
    small = activation_stats([t for i in copied if (t := calls[i].output) is not None])
    stats |= dict(zip(copied, small, strict=True))
    keys = [*captured, *((id(p),) for p in trainable), *spare]
    gradient_norms = _norms_of(keys, gradients, reduced)
    weight_norms = norms([p.detach() for p in parameters])
    result = {
        id(p): (norm, gradient_norms.get((id(p),)))
        for p, norm in zip(parameters, weight_norms, strict=True)
    }
    measured = []
    for index, call in enumerate(calls):
        norm = gradient_norms.get(aliases.get(index, index), reduced.get(index))
        if norm is None:  # nothing reads the first tensor: what arrives at the others
            others = (gradient_norms.get((index, k)) for k in range(len(call.spare)))
            found = [other for other in others if other is not None]
            norm = math.hypot(*found) if found else None
        status = RowStatus.OK if norm is not None else RowStatus.NO_GRADIENT
        if index not in stats:
            status = RowStatus.NO_TENSOR
        measured.append(_Measured(call.row, status, stats.get(index), norm))
    kept = _on_the_way(measured)
    beside |= {one.row.name for one in measured} - {one.row.name for one in kept}
    rows = [row for row in rows if row.name not in beside]
    return _in_order(rows, kept), result, float(value.detach())


def _on_the_way(measured: list[_Measured]) -> list[_Measured]:
    """Without rows that hold no weights and that the gradient goes around: position angles."""
    arrived = False
    kept = []
    for one in measured:
        arrived = arrived or one.gradient_norm is not None
        cold = one.status is RowStatus.NO_GRADIENT and not holds_weights(one.row.module)
        if not (arrived and cold):
            kept.append(one)
    return kept


def _norms_of(
    keys: Sequence[Any], gradients: Sequence[Tensor | None], reduced: Mapping[object, float]
) -> dict[Any, float]:
    """Norms by key; absent where there is no gradient, from ``reduced`` where taken early."""
    pairs = [(k, g) for k, g in zip(keys, gradients, strict=False) if g is not None]
    small = [(k, g) for k, g in pairs if k not in reduced]
    values = dict(zip([k for k, _ in small], norms([g for _, g in small]), strict=True))
    return values | {k: reduced[k] for k, _ in pairs if k in reduced}


def _in_order(rows: list[Row], measured: list[_Measured]) -> list[_Measured]:
    """In the order of the calls, a leaf below the block that called it; what never ran comes last.

    A module that ran more than once has a row for each call, numbered from the second.
    """
    home = ""
    homes: dict[str, str] = {}  # of each leaf: the block in which it is registered
    for row in rows:
        home = home if row.level else row.name
        homes[row.name] = home
    counts: dict[str, int] = {}
    result: list[_Measured] = []
    leaves: list[_Measured] = []
    ran = set()

    def numbered(one: _Measured, name: str) -> _Measured:
        counts[name] = counts.get(name, 0) + 1
        call = counts[name]
        return one._replace(row=one.row._replace(name=call_name(name, call), call=call))

    for one in measured:  # a block's hook fires after its leaves'
        ran.add(one.row.name)
        if one.row.level:
            leaves.append(one)
            continue
        result.append(numbered(one, one.row.name))
        for leaf in leaves:
            path = leaf.row.name.removeprefix(homes[leaf.row.name])
            result.append(numbered(leaf, one.row.name + path))
        leaves = []
    result += [numbered(leaf, leaf.row.name) for leaf in leaves]
    return result + [_Measured(row, RowStatus.NOT_RUN) for row in rows if row.name not in ran]


def scalar(value: Any) -> Tensor:
    """What a loss gave, as a tensor without dimensions.

    Raises:
        InputError: it is no scalar.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        found = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"the loss must be a scalar tensor, not {found}")
    return value.reshape(())


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


def _edge(tensor: Tensor) -> GradientEdge | None:
    """Where the gradient of ``tensor`` arrives, whatever overwrites the tensor later."""
    node = tensor.grad_fn
    return None if node is None else GradientEdge(node, tensor.output_nr)


def _spare(output: Any, first: Tensor) -> tuple[GradientEdge, ...]:
    """Where gradients arrive at the other tensors that a row hands out, none larger than ``first``:
    attention weights are, and nothing reads them."""
    others = [t for t in tensors_in(output) if t is not first and t.numel() <= first.numel()]
    edges = [_edge(t) for t in others if t.is_floating_point()]
    return tuple(edge for edge in edges if edge is not None)


# ---- the profile


def _profile(
    model: nn.Module,
    modules: list[nn.Module],
    own: _Own,
    measured: list[_Measured],
    parameter_norms: _ParameterNorms,
    value: float,
    uses: Mapping[int, Use],
) -> GradientProfile:
    useless = _biases_before_norm(model, modules, parameter_norms)

    def profile(name: str, parameter: nn.Parameter) -> ParameterProfile:
        key = id(parameter)
        norm, gradient = parameter_norms[key]
        size, dimensions = parameter.numel(), parameter.dim()
        about = (parameter.requires_grad, key in useless, uses.get(key, Use.CALLED))
        return ParameterProfile(name, size, dimensions, norm, gradient, *about)

    rows: list[RowProfile] = []
    seen: set[nn.Module] = set()
    owned: dict[int, nn.Parameter] = {}  # by id: a shared parameter counts once
    for row, status, stats, gradient in measured:
        parameters: tuple[ParameterProfile, ...] = ()
        if row.module not in seen:  # a module that runs twice has its parameters at its first row
            seen.add(row.module)
            named = {id(p): (name, p) for name, p in own[row.module]}
            if status is RowStatus.NOT_RUN and named and named.keys() <= owned.keys():
                continue  # it only lends its weights to rows that ran
            parameters = tuple([profile(name, p) for name, p in named.values()])
            owned |= {key: p for key, (_, p) in named.items()}
        rms, dependence, zeros = stats or (None, None, None)
        if not all_finite(
            rms, gradient, *(n for p in parameters for n in (p.norm, p.gradient_norm))
        ):
            status = RowStatus.NON_FINITE
        size = sum([p.size for p in parameters])
        about = (row.name, row.kind, row.level, row.line)
        numbers = (gradient, rms, dependence, zeros)
        inside = (parameters, row.contains)
        made = RowProfile(*about, status, size, *numbers, *inside, column=row.column, call=row.call)
        rows.append(made)
    orphans: list[ParameterProfile] = []
    if len(owned) < len(parameter_norms):
        others = {id(p): (n, p) for n, p in parameters_of(model) if id(p) not in owned}
        owned |= {key: p for key, (_, p) in others.items()}
        orphans = [profile(name, p) for name, p in others.values()]
    dtypes = {p.dtype for p in owned.values() if p.is_floating_point() or p.is_complex()}
    return GradientProfile(
        rows=tuple(rows),
        parameters=sum([p.numel() for p in owned.values()]),
        loss=value,
        smallest_gradient=max(torch.finfo(dtype).tiny for dtype in dtypes),
        orphans=tuple(orphans),
    )


def _biases_before_norm(
    model: nn.Module, modules: list[nn.Module], parameter_norms: _ParameterNorms
) -> set[int]:
    """Ids of biases whose layer feeds a normalisation over the batch, which subtracts them again.

    The order of registration stands for the order of execution, so the gradient must agree: it is
    zero up to rounding.
    """
    found: set[int] = set()
    if not any(isinstance(module, _NORMALISATIONS) for module in modules):
        return found
    for (_, layer), (_, after) in pairwise(leaves_of(model)):
        if not isinstance(layer, _BIASED) or not isinstance(after, _NORMALISATIONS):
            continue
        bias, weight = (
            parameter_norms.get(id(p), (0.0, None))[1] for p in (layer.bias, layer.weight)
        )
        if bias is not None and weight and bias < 1e-3 * weight:
            found.add(id(layer.bias))
    return found


def _uses_of(modules: list[nn.Module], called: set[nn.Module]) -> dict[int, Use]:
    """By id, the parameters of modules that the forward pass did not call.

    Those of an element of a list are idle where other elements of its class were called: an expert
    that got no token.
    """
    inside = {m for a in modules if isinstance(a, nn.MultiheadAttention) for m in modules_of(a)}
    holders = [m for m in modules if m._parameters and m not in inside]
    used = {id(p) for m in (called | inside) for p in m._parameters.values()}
    uses = {id(p): Use.UNCALLED for m in holders for p in m.parameters() if m not in called}
    for one in modules:
        if isinstance(one, nn.ModuleList):
            awake = {type(e) for e in one if not called.isdisjoint(modules_of(e))}
            for element in one:
                if type(element) in awake and called.isdisjoint(modules_of(element)):
                    uses |= {id(p): Use.IDLE for p in element.parameters()}
    return {key: use for key, use in uses.items() if key not in used}


@contextmanager
def _no_collection() -> Iterator[None]:
    """Thousands of small values are made at once and all are kept: no use to search for garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# ---- leaving no trace


@contextmanager
def undisturbed(model: nn.Module, modules: list[nn.Module] | None = None) -> Iterator[None]:
    """Restore buffers, modes and the global random states, whatever happens inside."""
    modules = modules or modules_of(model)
    training = [module.training for module in modules]
    buffers = [dict(module._buffers) if module._buffers else None for module in modules]
    kept = [copies for module in modules if (copies := _copies(module))]
    with ExitStack() as stack:
        stack.callback(_restore, modules, training, buffers, kept)
        stack.callback(torch.default_generator.set_state, torch.default_generator.get_state())
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            device = torch.cuda.current_device()
            stack.callback(torch.cuda.set_rng_state, torch.cuda.get_rng_state(device), device)
        stack.callback(random.setstate, random.getstate())
        if "numpy" in sys.modules:
            import numpy

            stack.callback(numpy.random.set_state, numpy.random.get_state())
        yield


def _copies(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The tensors that a forward pass may change in place, each with a copy."""
    changing = [buffer for buffer in module._buffers.values() if buffer is not None]
    if module.__dict__.get("max_norm") is not None:  # Embedding renormalises its weight in place
        changing += [p for p in module._parameters.values() if p is not None]
    return [(tensor, tensor.detach().clone()) for tensor in changing]


def _restore(
    modules: list[nn.Module],
    training: list[bool],
    buffers: list[dict[str, Tensor | None] | None],
    kept: list[list[tuple[Tensor, Tensor]]],
) -> None:
    for module, mode, before in zip(modules, training, buffers, strict=True):
        if module.training is not mode:
            module.training = mode
        if module._buffers or before:
            module._buffers.clear()
            module._buffers.update(before or {})
    with torch.no_grad():
        for copies in kept:
            for tensor, copy in copies:
                # Untouched tensors are not written: a write would count as a change.
                if not torch.equal(tensor, copy):
                    tensor.copy_(copy)


# ---- errors that name the row


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
    told = ModelError(f"the model failed{where}: {what}")
    told.row = row.place if row else None
    return told
