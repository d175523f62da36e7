"""A subject and a cure → a copy of the subject with the cure in it.

Each does what the advice says, to modules as they stand: activations change their class and blocks
get hooks, so that rows, paths and weights stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradprobe.measure.measurement import Cure
from gradprobe.measure.undisturbed import alone, undisturbed
from gradprobe.model.rows import leaves_of
from gradprobe.model.seeds import derive, reseed_all
from gradprobe.model.subject import Subject, copied_subject

_LEAST = 1e-6  # added to a feature's standard deviation: it may be constant


def cured(subject: Subject, cure: Cure) -> Subject | None:
    """A copy of ``subject`` with the cure; ``None`` where the cure cannot be tried.

    Raises:
        Exception: whatever a model raises that cannot be copied.
    """
    way = _WAYS.get(cure.kind)
    if way is None:
        return None
    with alone(subject), undisturbed(subject.model), torch.inference_mode(False), torch.no_grad():
        reseed_all(derive(subject.seed, "cure"))
        copy = copied_subject(subject)
        return way(copy, cure)


def _weights(subject: Subject, cure: Cure) -> Iterator[tuple[nn.Module, nn.Parameter]]:
    """The weights that the cure names, each with its module."""
    for name in cure.weights:
        path, _, last = name.removeprefix("(model).").rpartition(".")
        module = subject.model.get_submodule(path)
        yield module, getattr(module, last)


def _changed(change: Callable[[Tensor, Cure], object]) -> Callable[[Subject, Cure], Subject]:
    def way(subject: Subject, cure: Cure) -> Subject:
        for _, weight in _weights(subject, cure):
            change(weight.data, cure)
        return subject

    return way


def _forget(bias: Tensor, cure: Cure) -> None:
    gate = int(cure.number)
    bias[gate : 2 * gate] = 1


def _scaled(subject: Subject, cure: Cure) -> Subject | None:
    first, *rest = subject.args or (None,)
    if not isinstance(first, Tensor) or not first.is_floating_point():
        return None
    x = (first - first.mean(0)) / (first.std(0) + _LEAST)
    return replace(subject, args=(x, *rest))


def _normalised(subject: Subject, cure: Cure) -> Subject:
    for module, weight in _weights(subject, cure):
        module.register_forward_pre_hook(_norm_images if weight.dim() > 2 else _norm_features)
    return subject


def _norm_features(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (F.layer_norm(args[0], args[0].shape[-1:]), *args[1:])


def _norm_images(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (F.group_norm(args[0], 1), *args[1:])


def _with_skips(subject: Subject, cure: Cure) -> Subject | None:
    """x + f(x) of each block that keeps its input's shape."""
    blocks = [row.module for row in subject.rows if row.is_block]
    for block in blocks:
        block.register_forward_hook(_skipped)
    return subject if blocks else None


def _skipped(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    x = next(iter(args), None)
    fits = isinstance(output, Tensor) and isinstance(x, Tensor) and x.shape == output.shape
    return x + output if fits and x is not None else output


def _another_class(
    of: type[nn.Module] | None, into: type[nn.Module], **attributes: object
) -> Callable[[Subject, Cure], Subject | None]:
    """Every activation of one class becomes another; by default of the class the cure is about."""

    def way(subject: Subject, cure: Cure) -> Subject | None:
        kind = of or getattr(nn, cure.of)
        modules = [module for module in subject.model.modules() if type(module) is kind]
        for module in modules:
            module.__class__ = into
            vars(module).update(attributes)
        return subject if modules else None

    return way


def _dropped(subject: Subject, cure: Cure) -> Subject | None:
    """Without the activation at the output, where that is the last module."""
    *_, (_, last) = leaves_of(subject.model)
    if type(last) is not getattr(nn, cure.of):
        return None
    last.__class__ = nn.Identity
    return subject


_draw = _changed(lambda weight, cure: nn.init.kaiming_normal_(weight))

_WAYS: Mapping[str, Callable[[Subject, Cure], Subject | None]] = {
    "init": _draw,
    "draw": _draw,
    "gain": _changed(lambda weight, cure: weight.mul_(cure.number)),
    "orthogonal": _changed(lambda weight, cure: nn.init.orthogonal_(weight)),
    "zero bias": _changed(lambda bias, cure: bias.zero_()),
    "forget": _changed(_forget),
    "norm": _normalised,
    "norm inside": _normalised,
    "skip": _with_skips,
    "skipless norm": _with_skips,
    "scale": _scaled,
    "smooth": _another_class(None, nn.GELU, approximate="none"),
    "between": _another_class(nn.Softmax, nn.ReLU, inplace=False),
    "leaky": _another_class(nn.ReLU, nn.LeakyReLU, negative_slope=0.1, inplace=False),
    "drop": _dropped,
}
