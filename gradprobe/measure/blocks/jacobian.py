"""A block taken apart: the Jacobian of each row, and one block's numbers step by step.

y = skip(x) + F(x), so ∂y/∂x = s + ∂F/∂x: what comes back through a block is what comes back through
its skip, plus what comes back through its branch.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradprobe.errors import InputError
from gradprobe.measure.blocks.chain import (
    Element,
    as_leaf,
    elements_of,
    pulled,
    recorded,
    rows_of,
    trace,
)
from gradprobe.measure.blocks.profile import BlockProfile, BranchLayer, Estimate, JacobianProfile
from gradprobe.measure.norms import activation_stats, norms
from gradprobe.measure.progress import Step, tell
from gradprobe.model.build import Network
from gradprobe.model.layers import Concat, Residual
from gradprobe.model.on_demand import held
from gradprobe.model.repeats import holds_weights
from gradprobe.model.seeds import derive, signs
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import in_float64

EXACT_FEATURES = 64  # up to so many the Jacobian is taken apart basis vector by basis vector
PROBES = 32  # random ±1 vectors for larger ones
_TILED_ELEMENTS = 1 << 21

# Layers through which one sample's output depends on another sample's input, or on chance.
_COUPLED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.RReLU)


def jacobians(subject: Subject) -> dict[str, JacobianProfile]:
    """highway, branch and gain of each row whose output has its input's shape, by row name.

    Each call of a row is differentiated alone; further calls of one row are numbered.
    """
    if isinstance(subject.model, Network):
        return _of_chain(subject)
    result = {}
    calls = recorded(subject)
    for number, call in enumerate(calls, 1):
        element = Element(call.name, number - 1, call.module, call)
        with held(call.module):
            result[call.name] = jacobian(element, call.x, subject.seed)
        tell(Step(number, len(calls), unit="block"))
    return result


def _of_chain(subject: Subject) -> dict[str, JacobianProfile]:
    result = {}
    rows, x = rows_of(subject), subject.args[0]
    for number, row in enumerate(rows, 1):
        with held(row.module):
            out = trace([row], x, subject.seed)[-1]
            if x.shape == out.shape and x.is_floating_point() and x.dim() > 1:
                result[row.name] = jacobian(row, x, subject.seed)
        x = out
        tell(Step(number, len(rows), unit="block"))
    return result


def jacobian(element: Element, x: Tensor, seed: int) -> JacobianProfile:
    """The Jacobian of one shape-preserving element at ``x`` of shape (batch, …).

    Exact where samples do not depend on each other and have at most 64 features; else estimated
    from 32 random ±1 vectors (Hutchinson 1990), with standard errors.
    """
    scale = element.residual.skip_scale if element.residual is not None else 1.0
    features = x[0].numel()
    coupled = any(_is_coupled(module) for module in element.module.modules())
    stackable = element.call is None or element.call.alone
    if features <= EXACT_FEATURES and stackable and not coupled:
        rows = _basis_pullbacks(element, x, seed)  # (features, batch, features): e_iᵀJ
        diagonal = torch.diagonal(rows, dim1=0, dim2=2)
        eye = torch.eye(features, dtype=rows.dtype, device=rows.device)[:, None, :]
        highway = float(diagonal.mean())
        gain = float(rows.square().sum((0, 2)).mean() / features)
        branch = float((rows - scale * eye).square().sum((0, 2)).mean() / features)
        return JacobianProfile(*map(Estimate, (highway, math.sqrt(branch), math.sqrt(gain))))
    generator = torch.Generator().manual_seed(derive(seed, f"jacobian/{element.name}"))
    leaf = as_leaf(x)
    with torch.enable_grad():
        out = element.run(leaf.clone(), seed)
    samples = []
    for _ in range(PROBES):
        v = signs(x.shape, generator).to(x)
        back, v = in_float64(pulled(out, leaf, v)), in_float64(v)
        parts = (v * back, (back - scale * v).square(), back.square())
        samples.append(torch.stack([part.flatten(1).mean(1) for part in parts]))
    highway_, branch_, gain_ = _estimates(torch.stack(samples), coupled)
    return JacobianProfile(highway_, _root(branch_), _root(gain_))


def _is_coupled(module: nn.Module) -> bool:
    # Attention and recurrent layers have their dropout as a number.
    dropout = getattr(module, "dropout", 0.0)
    draws = isinstance(dropout, float) and dropout > 0
    return draws or isinstance(module, _COUPLED) or "Fractional" in type(module).__name__


def _basis_pullbacks(element: Element, x: Tensor, seed: int) -> Tensor:
    """Row i of each sample's Jacobian for all i, from copies of the batch run side by side."""
    batch, features = x.shape[0], x[0].numel()
    at_once = max(1, min(features, _TILED_ELEMENTS // max(1, x.numel())))
    pullbacks = []
    for start in range(0, features, at_once):
        count = min(at_once, features - start)
        leaf = as_leaf(x.repeat(count, *[1] * (x.dim() - 1)))
        v = torch.zeros(count, batch, features, dtype=x.dtype, device=x.device)
        for i in range(count):
            v[i, :, start + i] = 1
        with torch.enable_grad():
            back = pulled(element.run(leaf.clone(), seed), leaf, v.view(leaf.shape))
        pullbacks.append(in_float64(back.reshape(count, batch, features)))
    return torch.cat(pullbacks)


def _estimates(samples: Tensor, coupled: bool) -> list[Estimate]:
    """Means over probes and batch of a (probes, quantities, batch) tensor, with standard errors.

    Only the random vectors are a source of error. Samples that do not depend on each other each
    have a variance of their own; coupled ones share one.
    """
    probes, _, batch = samples.shape
    if coupled:
        variance = samples.mean(2).var(0) / probes
    else:
        variance = samples.var(0).mean(1) / (probes * batch)
    means = samples.mean((0, 2))
    return [
        Estimate(float(mean), math.sqrt(float(v))) for mean, v in zip(means, variance, strict=True)
    ]


def _root(square: Estimate) -> Estimate:
    """The square root of an estimate, its error to first order."""
    value = math.sqrt(max(0.0, square.value))
    return Estimate(value, square.error / (2 * value) if value else 0.0)


def take_apart(subject: Subject, row: str | None = None) -> BlockProfile:
    """One block with its real numbers: the one called ``row``, else the middle residual block,
    else the middle row that holds weights.

    Args:
        subject: a spec's network, whose blocks say what is skip and what is branch.

    Raises:
        InputError: there is no such block.
    """
    elements, index = _find(subject, row)
    values = trace(elements, subject.args[0], subject.seed)
    tail = as_leaf(values[index + 1])
    with torch.enable_grad():
        out = tail.clone()
        for after in elements[index + 1 :]:
            out = after.run(out, subject.seed)
        (arriving,) = torch.autograd.grad(subject.loss(out), tail)
    return _block(subject, elements[index], values[index], arriving)


class Parts(NamedTuple):
    """A block run forward and backward, its skip and its branch each alone."""

    layers: tuple[BranchLayer, ...]  # of the branch
    outputs: tuple[Tensor, Tensor, Tensor]  # of branch, skip (zero where there is none) and block
    gradients: tuple[Tensor, Tensor, Tensor]  # through branch and skip, and autograd's own


def _parts(element: Element, leaf: Tensor, arriving: Tensor, seed: int) -> Parts:
    with torch.enable_grad():
        y = element.run(leaf.clone(), seed)
        (total,) = torch.autograd.grad(y, leaf, arriving)
        element.reseed(seed)
        skip, through_skip = torch.zeros_like(y), torch.zeros_like(total)
        if element.residual is not None:
            skip = element.residual.skip_of(leaf.clone())
        layers, branch = _branch(element, leaf)
        (through_branch,) = torch.autograd.grad(branch, leaf, arriving)
        if element.residual is not None:
            (through_skip,) = torch.autograd.grad(skip, leaf, arriving)
    return Parts(layers, (branch, skip, y), (through_branch, through_skip, total))


def _block(subject: Subject, element: Element, value: Tensor, arriving: Tensor) -> BlockProfile:
    residual, leaf = element.residual, as_leaf(value)
    if not leaf.requires_grad:
        raise InputError(f"row {element.name} takes tokens: no gradient leaves it")
    parts = _parts(element, leaf, arriving, subject.seed)
    row, square = subject.rows[element.row], parts.outputs[-1].shape == value.shape
    profile = profile_of(
        element.name,
        row.kind if row.name == element.name else type(element.module).__name__.lower(),
        (leaf, arriving),
        parts,
        jacobian(element, value, subject.seed) if square else None,
    )
    if residual is None:
        return profile
    return replace(
        profile,
        residual=True,
        skip_scale=residual.skip_scale,
        branch_scale=residual.branch_scale,
        shortcut=residual.shortcut is not None,
    )


def profile_of(
    name: str,
    kind: str,
    ends: tuple[Tensor, Tensor],
    parts: Parts,
    jacobian: JacobianProfile | None,
) -> BlockProfile:
    """The norms of a block's parts, as of one without a skip.

    Args:
        ends: the block's input x, and ∂L/∂y that arrives at its output.
    """
    (leaf, arriving), (branch, skip, total) = ends, parts.gradients
    gradients = [arriving, skip, branch, total, skip + branch - total]
    sizes = norms([t.contiguous() for t in gradients])
    a, b = in_float64(skip).flatten(), in_float64(branch).flatten()
    rms = [stats.rms for stats in activation_stats([t.detach() for t in (leaf, *parts.outputs)])]
    return BlockProfile(
        name=name,
        kind=kind,
        residual=False,
        skip_scale=0.0,
        branch_scale=1.0,
        shortcut=False,
        layers=parts.layers,
        input_rms=rms[0],
        branch_rms=rms[1],
        skip_rms=rms[2],
        output_rms=rms[3],
        arriving=sizes[0],
        skip_part=sizes[1],
        branch_part=sizes[2],
        total=sizes[3],
        cosine=float(a @ b) / (sizes[1] * sizes[2]) if sizes[1] and sizes[2] else None,
        error=sizes[4] / sizes[3] if sizes[3] else sizes[4],
        jacobian=jacobian,
    )


def _branch(element: Element, leaf: Tensor) -> tuple[tuple[BranchLayer, ...], Tensor]:
    """The layers of F with the RMS of their outputs, and F(x)."""
    module = element.module
    chain, scale = [("", module)], 1.0
    if isinstance(module, Residual):
        names = [name for name, child in module.named_children() if child is not module.shortcut]
        chain, scale = list(zip(names, module.branch, strict=True)), module.branch_scale
    elif type(module) is nn.Sequential:
        chain = list(module.named_children())
    x = leaf.clone()
    layers = []
    for name, layer in chain:
        x = layer(x)
        [stats] = activation_stats([x.detach()])
        path = f"{element.name}.{name}" if name else element.name
        layers.append(BranchLayer(path, _kind(layer), stats.rms))
    return tuple(layers), x if scale == 1 else x * scale


def _kind(module: nn.Module) -> str:
    if type(module) is nn.Sequential:
        return "sequential"
    name = type(module).__name__
    return name.lower() if isinstance(module, (Residual, Concat)) else name


def _find(subject: Subject, name: str | None) -> tuple[list[Element], int]:
    """The chain, and the index in it of the element to take apart."""
    elements = elements_of(subject)
    residual = [i for i, element in enumerate(elements) if element.residual is not None]
    if name is None and residual:
        return elements, residual[len(residual) // 2]
    named = [i for i, element in enumerate(elements) if element.name == name]
    named += [i for i in residual if elements[i].name.startswith(f"{name}.")]
    if named:
        return elements, named[0]
    # No residual block is meant: a row is taken as one block without a skip.
    rows = rows_of(subject)
    weighty = [i for i, row in enumerate(rows) if holds_weights(row.module)]
    if name is None and weighty:
        return rows, weighty[len(weighty) // 2]
    names = [row.name for row in rows]
    if name in names:
        return rows, names.index(name)
    listed = ", ".join([*names[:6], "…"] if len(names) > 6 else names)
    raise InputError(f"no row '{name}'", hint=f"rows: {listed}")
