"""One forward, one backward: a subject → ``GradientProfile``.

Two ways to collect the same numbers. A network built from a spec is a chain of rows, whose graph
``segments`` cuts; any other module is measured through ``hooks``.

The subject is left as it was: state dict, buffers, modes, ``.grad``, hooks, random state.
"""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradprobe.measure.graph import names_of
from gradprobe.measure.hooks import measure_hooked
from gradprobe.measure.idle import uses_of, with_idle
from gradprobe.measure.norms import extremes_of
from gradprobe.measure.obstacles import without_alternation
from gradprobe.measure.passes import ParameterNorms, Pass, RowPass
from gradprobe.measure.profile import GradientProfile, ParameterProfile, RowProfile, RowStatus, Use
from gradprobe.measure.segments import can_be_cut, measure_chain
from gradprobe.measure.streamed import measure_streamed
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.measure.warned import heard
from gradprobe.model.build import Network
from gradprobe.model.repeats import holds_weights
from gradprobe.model.rows import Row, leaves_of, modules_of, parameters_of, with_leaves
from gradprobe.model.seeds import derive, reseed_all
from gradprobe.model.streamed import Streamed
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import stored, tensors_in
from gradprobe.numbers import all_finite

_NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_BIASED = (nn.Linear, nn.modules.conv._ConvNd)


def measure(subject: Subject, level: str = "blocks") -> GradientProfile:
    """One forward and one backward pass, in the mode that each submodule is in.

    The subject is left as it was, also when it raises.

    Args:
        level: ``blocks`` for the rows alone, ``leaves`` for the leaves inside them too.

    Raises:
        InputError: the loss is no scalar.
        ModelError: the forward or backward pass raised; names the row.
    """
    model, rows = subject.model, list(subject.rows)
    modules = modules_of(model)
    one_by_one = isinstance(model, Network) and subject.ranks is None and level == "blocks"
    if level == "leaves":
        rows = with_leaves(rows, model.places if isinstance(model, Network) else {})
    with (
        heard() as warnings,
        undisturbed(model, modules),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        reseed_all(derive(subject.seed, "forward"))
        if isinstance(model, Streamed):
            result = measure_streamed(model, subject.args[0], subject.loss)
        elif one_by_one and can_be_cut(modules):
            with _no_collection():
                result = measure_chain(rows, subject.args[0], subject.loss)
        else:
            result = measure_hooked(subject, rows)
    result = result._replace(around=result.around._replace(warnings=tuple(warnings)))
    return profile_of(model, rows, result, tensors_in([subject.args, subject.kwargs]))


def profile_of(
    model: nn.Module, rows: list[Row], result: Pass, inputs: Iterable[Tensor]
) -> GradientProfile:
    """What a pass gave of ``model``, beside what its parameters are.

    Args:
        inputs: the tensors that the model was called with.
    """
    inputs = list(inputs)
    given = [t for t in inputs if t.is_floating_point()]
    finite = all(bool(torch.isfinite(stored(t)).all()) or _is_mask(stored(t)) for t in given)
    empty = bool(given) and not any(map(_is_data, inputs))
    modules = modules_of(model)
    around = result.around._replace(
        inputs_zero=empty,
        inputs_same=_are_same(inputs),
        idle_norms=_idle_norms(model, modules),
        shared=_shared(model, modules),
        tied=result.around.tied or _are_tied(modules),
    )
    result = result._replace(around=around, rows=_without_stray(result))
    own = {row.module: _filled(parameters_of(row.module, f"{row.name}.")) for row in rows}
    with _no_collection():
        useless = _biases_before_norm(model, modules, result.parameters)
        uses = {} if result.called is None else uses_of(modules, result.called)
        extremes = result.extremes
        if extremes is None:
            extremes = extremes_of((id(p), p) for _, p in parameters_of(model))
        parameters = _Parameters(result.parameters, useless, uses, extremes, result.unread)
        profile = without_alternation(_profile(model, own, result, parameters, finite))
    return with_idle(profile, model)


def _without_stray(result: Pass) -> list[RowPass]:
    """The rows without a gradient of NaN that reaches no weight: that of a detector's boxes.

    Where nothing is trained it stays, as all that there is.
    """
    trained = [norm for _, norm in result.parameters.values() if norm is not None]
    if not trained or not all_finite(*trained):
        return result.rows
    return [
        row
        if all_finite(row.gradient_norm)
        else row._replace(gradient_norm=None, status=RowStatus.NO_GRADIENT)
        for row in result.rows
    ]


def _filled(named: Iterable[tuple[str, nn.Parameter]]) -> list[tuple[str, nn.Parameter]]:
    """Those with elements: a model without class tokens may keep an empty one."""
    return [(name, p) for name, p in named if p.numel()]


def _are_tied(modules: Sequence[nn.Module]) -> bool:
    """Whether an embedding's weight is a linear layer's as well.

    To read ``module.weight`` of a parametrised one would run its parametrisation.
    """
    embedding, linear = (
        {id(m._parameters.get("weight")) for m in modules if isinstance(m, kind)} - {id(None)}
        for kind in (nn.Embedding, nn.Linear)
    )
    return not embedding.isdisjoint(linear)


def _is_mask(x: Tensor) -> bool:
    """Whether it is what attention adds to its scores: 0 and -inf."""
    return bool(((x == 0) | (x == -math.inf)).all())


def _is_data(x: Tensor) -> bool:
    """Whether an input tells something: numbers that are not 0, or integers that are no mask."""
    numbers = stored(x)
    if x.is_floating_point() or x.is_complex():
        return bool(numbers.any())
    if x.dtype is torch.bool or not numbers.numel():
        return False
    return bool((numbers > 1).any() or (numbers != numbers.reshape(-1)[0]).any())


def _are_same(inputs: Sequence[Tensor]) -> bool:
    """Whether all samples are equal, of which there are two at least."""
    dense = [x for x in inputs if x.dim() and len(x) > 1 and x.layout is torch.strided]
    samples = [x for x in dense if x.dim() > 1 or not x.is_floating_point()]
    first, last = [x[:1] for x in samples], [x[-1:] for x in samples]
    if not samples or not all(map(torch.equal, first, last)):
        return False
    return all(bool((x == x[:1]).all()) for x in samples)


_Own = Mapping[nn.Module, list[tuple[str, nn.Parameter]]]  # names and parameters of each row


class _Parameters(NamedTuple):
    norms: ParameterNorms
    before_norm: set[int]
    uses: Mapping[int, Use]
    extremes: Mapping[int, tuple[float, float]]
    unread: Mapping[int, str]

    def profile(self, name: str, parameter: nn.Parameter) -> ParameterProfile:
        key = id(parameter)
        norm, gradient_norm = self.norms[key]
        low, high = self.extremes.get(key, (None, None))
        return ParameterProfile(
            name=name,
            size=parameter.numel(),
            dimensions=parameter.dim(),
            norm=norm,
            gradient_norm=gradient_norm,
            trainable=parameter.requires_grad,
            before_norm=key in self.before_norm,
            use=self.uses.get(key, Use.CALLED),
            low=low,
            high=high,
            unread=self.unread.get(key, ""),
        )


def _profile(
    model: nn.Module, own: _Own, result: Pass, parameters: _Parameters, finite: bool
) -> GradientProfile:
    rows: list[RowProfile] = []
    names = {measured.position: measured.row.name for measured in result.rows}
    owners = _owners(result.rows)
    owned: dict[int, nn.Parameter] = {}  # by id: a shared parameter counts once
    for measured in result.rows:
        module = measured.row.module
        named: dict[int, tuple[str, nn.Parameter]] = {}
        if owners[module] is measured:
            named = {id(p): (name, p) for name, p in own[module]}
            if measured.status is RowStatus.NOT_RUN and named and named.keys() <= owned.keys():
                continue  # it only lends its weights to rows that ran
            owned |= {key: p for key, (_, p) in named.items()}
        profiles = tuple([parameters.profile(name, p) for name, p in named.values()])
        feeders = names_of(measured.reads.feeders, names)
        made = _row_profile(measured, profiles)
        rows.append(made._replace(feeders=feeders, new_input=measured.reads.new))
    orphans: list[ParameterProfile] = []
    if len(owned) < len(result.parameters):
        others = {id(p): (n, p) for n, p in _filled(parameters_of(model)) if id(p) not in owned}
        owned |= {key: p for key, (_, p) in others.items()}
        orphans = [parameters.profile(name, p) for name, p in others.values()]
    dtypes = {p.dtype for p in owned.values() if p.is_floating_point() or p.is_complex()}
    return GradientProfile(
        rows=tuple(rows),
        parameters=sum([p.numel() for p in owned.values()]),
        loss=result.loss,
        smallest_gradient=max(torch.finfo(dtype).tiny for dtype in dtypes or {torch.float32}),
        orphans=tuple(orphans),
        input_finite=finite,
        around=result.around,
        cut_checkpoint=result.cut_checkpoint,
    )


def _owners(rows: Sequence[RowPass]) -> dict[nn.Module, RowPass]:
    """The row of each module that has its parameters: its first call with a gradient, or first."""
    without = (RowStatus.NO_GRADIENT, RowStatus.NOT_RUN)
    owners: dict[nn.Module, RowPass] = {}
    for measured in sorted(rows, key=lambda row: row.status in without):
        owners.setdefault(measured.row.module, measured)
    return owners


def _row_profile(measured: RowPass, parameters: tuple[ParameterProfile, ...]) -> RowProfile:
    row, gradient_norm = measured.row, measured.gradient_norm
    rms, dependence, zeros = measured.stats or (None, None, None)
    norms = [norm for p in parameters for norm in (p.norm, p.gradient_norm)]
    finite = all_finite(rms, gradient_norm, *norms)
    return RowProfile(
        name=row.name,
        kind=row.kind,
        level=row.level,
        line=row.line,
        status=measured.status if finite else RowStatus.NON_FINITE,
        size=sum([p.size for p in parameters]),
        gradient_norm=gradient_norm,
        activation_rms=rms,
        input_dependence=dependence,
        zero_fraction=zeros,
        weighted_rms=measured.weighted_rms,
        parameters=parameters,
        contains=row.contains,
        column=row.column,
        call=row.call,
    )


def _idle_norms(model: nn.Module, modules: list[nn.Module]) -> tuple[str, ...]:
    """The normalisations over the batch that are the identity: in eval mode, mean 0, variance 1."""

    def idle(norm: nn.Module) -> bool:
        mean, variance = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
        if norm.training or mean is None or variance is None:
            return False
        return not mean.any() and bool((variance == 1).all())

    idlers = {m for m in modules if isinstance(m, _NORMALISATIONS) and idle(m)}
    return tuple(name for name, m in model.named_modules() if m in idlers) if idlers else ()


def _shared(model: nn.Module, modules: list[nn.Module]) -> tuple[tuple[str, int], ...]:
    """The lists that hold one module with weights several times, and how often."""
    lists = [m for m in modules if isinstance(m, (nn.ModuleList, nn.Sequential))]
    times = {m: most for m in lists if (most := _most_often(m)) > 1}
    return tuple((n, times[m]) for n, m in model.named_modules() if m in times) if times else ()


def _most_often(holder: nn.Module) -> int:
    """How often it holds the module with weights that it holds most often."""
    counts = Counter(m for m in holder._modules.values() if m is not None)
    return max((n for m, n in counts.items() if n > 1 and holds_weights(m)), default=1)


def _biases_before_norm(
    model: nn.Module, modules: list[nn.Module], parameter_norms: ParameterNorms
) -> set[int]:
    """Ids of biases whose layer feeds a normalisation over the batch, which subtracts them again.

    The order of registration stands for the order of execution, so the gradient must agree: it is
    zero up to rounding.
    """
    useless: set[int] = set()
    if not any(isinstance(module, _NORMALISATIONS) for module in modules):
        return useless
    for (_, layer), (_, after) in pairwise(leaves_of(model)):
        if not isinstance(layer, _BIASED) or not isinstance(after, _NORMALISATIONS):
            continue
        bias, weight = (
            parameter_norms.get(id(p), (0.0, None))[1] for p in (layer.bias, layer.weight)
        )
        if bias is not None and weight and bias < 1e-3 * weight:
            useless.add(id(layer.bias))
    return useless


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
