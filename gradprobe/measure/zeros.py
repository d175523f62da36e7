"""Zeros of the first step: which of them a step wakes up, and what a zero head hides."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from gradprobe.errors import GradprobeError
from gradprobe.measure.chance import (
    dead_ends,
    loss_again,
    not_read,
    other_tries,
    reading_what_moves,
)
from gradprobe.measure.checkpoints import keeping_graph
from gradprobe.measure.one_pass import measure
from gradprobe.measure.passes import gradients_of, model_errors
from gradprobe.measure.profile import GradientProfile, ParameterProfile, RowStatus, Use
from gradprobe.measure.streamed import Replay
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.on_demand import parts_of
from gradprobe.model.rows import parameters_of
from gradprobe.model.seeds import derive, reseed_all
from gradprobe.model.sharded import whole
from gradprobe.model.streamed import Streamed
from gradprobe.model.subject import Subject, copied_subject, named_parameters

_GAIN = 2e-3  # from here down a gain starts near zero: CaiT's are 1e-5, DeiT-III's 1e-6
_AWAKE = 0.1  # what it soon comes to; that of CaiT with few layers
_FAINT = 1e-2  # a reach below which it may be by such gains
_GROUPS = 8  # of weights without a gradient that are asked for one by one
_STEPS = 3
_STEP = 0.01  # of a parameter's own norm; of 1 where that is zero


@contextmanager
def behind_zeros(
    profile: GradientProfile, subject: Subject, again: Callable[[], GradientProfile]
) -> Iterator[GradientProfile]:
    """Meanwhile what lets no gradient through at the first step alone is drawn at random.

    Args:
        again: measures once more.

    Yields:
        ``profile``, or what was measured then, unless that failed.
    """
    seen = profile
    with ExitStack() as drawn:
        try:
            while hidden := _hiding(seen, subject):
                drawn.enter_context(_drawn_at_random(subject, hidden))
                seen = _with_redrawn(again(), seen, hidden)
        except GradprobeError:  # a model that runs once alone, or memory for one pass alone
            drawn.close()
            seen = profile
        yield seen


def _hiding(profile: GradientProfile, subject: Subject) -> tuple[str, ...]:
    """The weights at zero, or near it, that let no gradient through, and wake up later.

    Those of the head where nothing comes out of it, else all: a head of zeros (He et al. 2022,
    arXiv 2111.06377, and torchvision's ViT) tells nothing about what it reads.
    """
    trunk = profile.trunk
    if not trunk or 0.0 not in (trunk[0].gradient_norm, trunk[-1].gradient_norm):
        return _faint(profile, subject)
    behind = profile.ran[profile.ran.index(trunk[-1]) + 1 :]
    head = [p for row in behind for p in row.parameters] + list(profile.orphans)
    everything = [p for row in profile.rows if not row.level for p in row.parameters]
    groups = (head, everything) if trunk[-1].gradient_norm == 0 else (everything,)
    # Zero weights behind one another wake one at a time.
    asleep = set() if profile.still_zero is None else _zeros(profile) - set(profile.still_zero)
    waking = ([p.name for p in g if p.wakes_up or _wakes(p, asleep)] for g in groups)
    hidden = next(filter(None, waking), ())
    return tuple(name for name in hidden if name not in profile.redrawn)


def _with_redrawn(
    profile: GradientProfile, before: GradientProfile, names: tuple[str, ...]
) -> GradientProfile:
    """``profile``, measured behind weights that were set anew, with the loss of ``before``."""
    near = tuple(p.name for p in _owned(before) if p.norm and p.name in names)
    return replace(
        profile,
        loss=before.loss,
        redrawn=before.redrawn + names,
        near_zero=before.near_zero + near,
    )


def _faint(profile: GradientProfile, subject: Subject) -> tuple[str, ...]:
    """The gains near zero, as of a layer scale, where hardly any gradient gets to the first row.

    A class token reads the patches through such gains alone (Touvron et al. 2021, arXiv
    2103.17239). Those whose gradient is larger than they are wake up at the next step, with a loss
    whose gradient at the end of the trunk is 1: a small head does not keep them asleep.
    """
    reaches = [part.unpooled_reach for part in profile.parts]
    if not any(reach and reach < _FAINT for reach in reaches):
        return ()
    end = profile.trunk[-1].gradient_norm or 1.0
    gains = [
        p for p in _owned(profile) if not p.is_bias and (p.gradient_norm or 0.0) > p.norm * end
    ]
    weights = named_parameters(subject)
    return tuple(p.name for p in gains if p.name in weights and _is_faint(weights[p.name]))


def _owned(profile: GradientProfile) -> Iterator[ParameterProfile]:
    """The parameters of no row, and those of the rows."""
    return chain(profile.orphans, *(row.parameters for row in profile.rows if not row.level))


def _is_faint(weight: nn.Parameter) -> bool:
    """Whether it is one number near zero and not zero, for each channel or for all."""
    if weight.is_meta or not weight.requires_grad or not weight.is_floating_point():
        return False
    if weight.layout is not torch.strided or not 0 < weight.numel() <= max(weight.shape, default=1):
        return False
    values = whole(weight.detach()).flatten().float()
    return bool((values == values[0]).all()) and 0 < abs(float(values[0])) <= _GAIN


def _wakes(parameter: ParameterProfile, asleep: Collection[str]) -> bool:
    return parameter.norm == 0 and parameter.dimensions > 1 and parameter.name in asleep


@contextmanager
def _drawn_at_random(subject: Subject, names: Collection[str]) -> Iterator[None]:
    """Meanwhile these weights are uniform within ±1/√(fan-in), as torch draws those of a Linear.

    A gain near zero is 0.1.
    """
    if isinstance(subject.model, Streamed):
        with subject.model.changed(partial(_redraw, subject, names)):
            yield
        return
    weights = named_parameters(subject)
    chosen = {weights[name]: name for name in names}  # once each, also what has several names
    own = {weight: weight.data for weight in chosen}

    def redraw(outline: nn.Parameter, weight: nn.Parameter) -> None:
        if name := chosen.get(outline):
            weight.data = _drawn(weight.data, derive(subject.seed, f"zero/{name}"))

    parts = parts_of(subject.model.modules())
    try:
        for part in parts:
            part.change = redraw
        for weight in chosen:
            redraw(weight, weight)
        yield
    finally:
        for part in parts:
            part.change = None
        for weight, value in own.items():
            weight.data = value


def _redraw(subject: Subject, names: Collection[str], index: int, module: nn.Module) -> None:
    named = parameters_of(module, f"{subject.rows[index].name}.")
    for weight, name in {weight: name for name, weight in named if name in names}.items():
        weight.data = _drawn(weight.data, derive(subject.seed, f"zero/{name}"))


def _drawn(weight: Tensor, seed: int) -> Tensor:
    if not weight.is_meta and bool(weight.any()):
        return torch.full_like(weight, _AWAKE)
    fan_in = weight.numel() / len(weight) if weight.dim() > 1 else 1
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(weight.shape, generator=generator, device="cpu")
    return ((numbers * 2 - 1) / math.sqrt(fan_in)).to(weight)


def with_still_zero(profile: GradientProfile, subject: Subject) -> GradientProfile:
    """``profile`` with ``still_zero`` and ``not_read``, where a gradient is zero or none is there.

    A zero head, branch or LoRA matrix gives a gradient of zero to everything upstream of it, at the
    first step only. Whether it is only that shows after a step, which a copy of the model takes; of
    zero weights behind one another, each step wakes one. What is zero in this batch or at this draw
    alone, as behind a dropped path, shows in others.
    """
    parameters = [p for row in profile.rows if not row.level for p in row.parameters]
    profile = _with_dead_ends(profile, subject)
    zeros = _zeros(profile)
    hidden = zeros - _padded(subject.model) if zeros else zeros
    if not hidden:
        return replace(profile, still_zero=()) if zeros else profile
    # Where nothing reads what the trunk begins with, the network is cut, whatever was meant.
    first = {n for row in profile.trunk[:1] for n in (row.name, *(p.name for p in row.parameters))}
    try:
        with undisturbed(subject.model):
            steps = _steps(subject) if any(p.wakes_up for p in parameters) else ()
            for other in chain(steps, other_tries(subject)):
                hidden &= _zeros_among(hidden, other)
                if not hidden:
                    break
            in_memory = not any(p.is_meta for p in subject.model.parameters())
            if hidden and in_memory:
                with keeping_graph():
                    hidden -= reading_what_moves(subject, hidden)
            rest = hidden - first if in_memory else set()
            unread = not_read(subject, rest) if rest else set()
    except (GradprobeError, RuntimeError):
        # A model that cannot be copied or run otherwise, or tensors of a kind for which torch
        # lacks an operation: it is not known what the step would bring.
        return profile
    still = tuple(sorted(hidden - unread))
    unread |= set(profile.not_read)
    return replace(profile, still_zero=still, not_read=tuple(sorted(unread)))


def _padded(model: nn.Module) -> set[str]:
    """The weights of embeddings that give padding no gradient, which may be all that they got."""
    embeddings = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Embedding)]
    return {f"{name}.weight" for name, m in embeddings if m.padding_idx is not None}


def _with_dead_ends(profile: GradientProfile, subject: Subject) -> GradientProfile:
    lost = _lost(profile)
    if not lost or any(p.is_meta for p in subject.model.parameters()):
        return profile
    if not any(p.gradient_norm for p in _owned(profile)):
        return profile  # the whole network is cut
    try:
        with undisturbed(subject.model):
            return replace(profile, not_read=tuple(sorted(dead_ends(subject, lost))))
    except (GradprobeError, RuntimeError):
        return profile


def _lost(profile: GradientProfile) -> list[list[str]]:
    """By row, the trained weights of layers that ran to which no gradient leads.

    What feeds an output that the loss leaves out is another matter.
    """
    lost: dict[str, list[str]] = defaultdict(list)
    for row in profile.rows:
        for p in row.parameters:
            called = p.use is Use.CALLED and row.status is not RowStatus.NOT_RUN
            if called and p.trainable and p.gradient_norm is None and not p.unread:
                lost[row.name].append(p.name)
    groups = list(lost.values())
    return groups if len(groups) <= _GROUPS else [list(chain(*groups))]


def _steps(subject: Subject) -> Iterator[Subject]:
    for _ in range(_STEPS):
        subject = _stepped(subject)
        yield subject


def _zeros(profile: GradientProfile) -> set[str]:
    weights = [p for row in profile.ran for p in row.parameters if p.dimensions > 1]
    cold_rows = {row.name for row in profile.ran if row.gradient_norm == 0}
    return cold_rows | {p.name for p in weights if p.gradient_norm == 0}


def _zeros_among(names: set[str], subject: Subject) -> set[str]:
    """Those of the names whose gradient is zero for this subject.

    Where they are all weights, the backward pass ends at the first of them.
    """
    weights = {name: p for name, p in named_parameters(subject).items() if not p.is_meta}
    if not names <= weights.keys():
        return _zeros(measure(subject))
    asked = sorted(names)
    with keeping_graph():
        gradients = gradients_of(loss_again(subject), [weights[name] for name in asked])
    pairs = zip(asked, gradients, strict=True)
    return {name for name, g in pairs if g is not None and not bool(g.to_dense().any())}


def _stepped(subject: Subject) -> Subject:
    """The same with a copy of the model after one step of gradient descent."""
    with keeping_graph(), model_errors():
        if isinstance(subject.model, Streamed):
            reseed_all(derive(subject.seed, "forward"))
            replay = Replay(subject.model, subject.args[0], subject.loss)
            return replace(subject, model=replay.moved(partial(_move_row, replay)))
        copied = copied_subject(subject)
        trained = [p for p in copied.model.parameters() if p.requires_grad]
        gradients = gradients_of(loss_again(copied), trained)
    _move(trained, gradients)
    return copied


def _move_row(replay: Replay, index: int, module: nn.Module) -> None:
    trained = [p for p in module.parameters() if p.requires_grad]
    _move(trained, gradients_of(replay.root(index, module)[1], trained))


def _move(trained: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    with torch.no_grad():
        for parameter, gradient in zip(trained, gradients, strict=True):
            dense = None if gradient is None else gradient.to_dense()
            size = 0.0 if dense is None else float(torch.linalg.vector_norm(dense))
            if dense is not None and size > 0:
                own = float(torch.linalg.vector_norm(parameter)) or 1.0
                parameter.sub_(dense * (_STEP * own / size))
