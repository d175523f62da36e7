"""Zeros by chance, which another batch or another draw does not have, and zeros by design."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradprobe.measure.again import output_of
from gradprobe.measure.passes import model_errors, scalar
from gradprobe.model.repeats import holds_weights
from gradprobe.model.seeds import derive
from gradprobe.model.subject import Subject, copied_subject, named_parameters
from gradprobe.model.tensors import first_tensor, map_tensors

_TRIES = 8
_FAR = 30.0  # times as large as torch draws weights: a rounding does not hide that
_SAME = 1e-6  # what the order of a sum may change in float32
_MOST = 16  # weights and rows of which each is asked for alone


def other_tries(subject: Subject) -> Iterator[Subject]:
    """The same with other draws, of dropout and dropped paths, and with other batches."""
    for number in range(1, _TRIES + 1):
        seed = derive(subject.seed, f"try/{number}")
        yield replace(mixed(subject, seed), seed=seed)


def mixed(subject: Subject, seed: int) -> Subject:
    """The same with another batch of the same kind: each sample with a part of another one.

    Of a batch that was drawn here, at a right angle, so that its size stays; of a given one,
    between the two, so that it stays where data are. Masks and tokens stay what they are.
    """
    generator = torch.Generator().manual_seed(seed)

    def mix(x: Tensor) -> Tensor:
        if not x.is_floating_point() or x.dim() < 2 or len(x) < 2 or bool((x == x.round()).all()):
            return x
        share = 0.2 + 0.6 * float(torch.rand((), generator=generator, device="cpu"))
        other = x[torch.randperm(len(x), generator=generator, device="cpu").to(x.device)]
        return x * share + other * (math.sqrt(1 - share**2) if subject.drawn else 1 - share)

    args, kwargs = map_tensors(mix, (subject.args, dict(subject.kwargs)))
    return replace(subject, args=args, kwargs=kwargs)


def not_read(subject: Subject, names: Collection[str]) -> set[str]:
    """Those rows and weights that the loss does not depend on, whatever the weights are.

    All weights are drawn at random, so that nothing is dead by its init, and then each of these
    once more, large: where the loss stays the same but for rounding, nothing reads what they put
    out, as of the query of a stream whose output is thrown away. Where the loss does not depend on
    the inputs either, the network is cut, and none is named.
    """
    with model_errors():
        copied = copied_subject(subject)
    modules = {row.name: row.module for row in copied.rows}
    weights = named_parameters(copied)
    owned = {
        name: [weights[name]] if name in weights else list(modules[name].parameters())
        for name in names
        if name in weights or (name in modules and holds_weights(modules[name]))
    }
    if not owned or len(owned) > _MOST:
        return set()
    _draw(list(copied.model.parameters()), subject.seed)
    before = _loss(copied)
    if not math.isfinite(before) or before == _loss(mixed(copied, subject.seed)):
        return set()
    return _idle(copied, owned, before)


def dead_ends(subject: Subject, groups: Sequence[Collection[str]]) -> set[str]:
    """The weights of those groups that the loss does not depend on, to which no gradient leads.

    They feed what nothing reads: a pooler, or the norm behind the last layer of a backbone whose
    inner layers are used. Behind a detach() the loss would be another with other weights, unless a
    head of zeros hides that: what is all zero is drawn at random first.
    """
    with model_errors():
        copied = copied_subject(subject)
    _draw([p for p in copied.model.parameters() if not bool(p.any())], subject.seed)
    weights = named_parameters(copied)
    named = [[name for name in group if name in weights] for group in groups]
    chosen = {names[0]: names for names in named if names}
    owned = {first: [weights[n] for n in chosen[first]] for first in chosen}
    idle = _idle(copied, owned, _loss(copied))
    return {name for first in idle for name in chosen[first]}


def _idle(subject: Subject, owned: Mapping[str, Iterable[nn.Parameter]], before: float) -> set[str]:
    """Those whose parameters, drawn anew and large, leave the loss ``before`` but for rounding."""
    idle = set()
    for name, parameters in owned.items():
        _draw(parameters, derive(subject.seed, name), times=_FAR)
        after = _loss(subject)
        if math.isclose(after, before, rel_tol=_SAME):
            idle.add(name)
        before = after
    return idle


def reading_what_moves(subject: Subject, names: Collection[str]) -> set[str]:
    """Those weights that multiply nothing but zeros which a step changes.

    A gradient arrives at what they read, and goes on to the weights in front: a straight-through
    estimator may round all of that to 0 at first. Behind a dead ReLU nothing goes on.
    """
    modules = dict(subject.model.named_modules())
    read: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in [n for n in names if n.rpartition(".")[0] in modules][:_MOST]:
            note = partial(_note, read, name)
            module = modules[name.rpartition(".")[0]]
            hooks.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
        loss = loss_again(subject)
    weights = [p for p in subject.model.parameters() if p.requires_grad]
    return {name for name, x in read.items() if _passes_on(loss, x, weights)}


def _note(read: dict[str, Tensor], name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
    x = first_tensor([args, kwargs])
    if x is not None and x.grad_fn is not None and not bool(x.any()):
        read[name] = x


@model_errors()
def _passes_on(loss: Tensor, x: Tensor, weights: Sequence[Tensor]) -> bool:
    ask = partial(torch.autograd.grad, retain_graph=True, allow_unused=True)
    [arriving] = ask(loss, [x])
    if arriving is None:
        return False
    return any(bool(g.any()) for g in ask(x, weights, grad_outputs=arriving) if g is not None)


def _loss(subject: Subject) -> float:
    with torch.no_grad():
        return float(loss_again(subject))


@model_errors()
def loss_again(subject: Subject) -> Tensor:
    """The loss of one more forward pass, which draws what the first drew.

    Raises:
        ModelError: the model's code raised.
    """
    return scalar(subject.loss(output_of(subject)))


def _draw(parameters: Iterable[nn.Parameter], seed: int, times: float = 1.0) -> None:
    """Draw matrices as torch draws those of a Linear, biases small; scales stay, if not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            if not parameter.is_floating_point() or not parameter.numel():
                continue
            numbers = (
                torch.rand(parameter.shape, generator=generator, device="cpu").to(parameter) * 2 - 1
            )
            if parameter.dim() > 1:
                parameter.copy_(numbers * times / math.sqrt(parameter[0].numel()))
            elif not bool((parameter > 0).all()):  # a bias, or a scale that is zero
                parameter.copy_(0.1 * times * numbers)
