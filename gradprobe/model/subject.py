"""A target made ready: what every measurement takes, wherever it came from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader

from gradprobe.errors import InputError
from gradprobe.model.build import Network
from gradprobe.model.losses import loss_of
from gradprobe.model.ranks import Ranks
from gradprobe.model.rows import Row, find_rows, parameters_of
from gradprobe.model.tensors import first_tensor
from gradprobe.spec.network import A_SPEC, Idiom

Loss = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Subject:
    """A module, what it is called with, and the loss that its output goes into.

    ``loss`` is what the user asked for; ``projection`` is the fixed random direction of the main
    output in which a second look is taken, as the calibration's networks were. ``told`` is what was
    resolved for the report: ``dtype``, ``device``, ``batch_size``, the loss's name. ``work`` is how
    many multiplications its forward pass takes, where a plan has counted them.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    loss: Loss
    projection: Loss
    rows: tuple[Row, ...]  # of level 0
    seed: int = 0
    memory: int = 8 * 2**30  # bytes that a measurement may take
    name: str | None = None  # what the network is called
    work: int | None = None
    drawn: bool = False  # whether the batch was made up here, and not given
    criterion: nn.Module | None = None  # the module that the loss is, with a state of its own
    own_loss: bool = False  # whether the loss is the user's: a function, or with labels of theirs
    main: Callable[[Any], Tensor | None] = first_tensor  # of the output, what the model is for
    idiom: Idiom = A_SPEC
    ranks: Ranks | None = None  # the processes that share the model
    told: Mapping[str, bool | int | float | str | None] = field(default_factory=dict)


def named_parameters(subject: Subject) -> dict[str, nn.Parameter]:
    """The parameters by all of their names, those of rows that the model does not hold too."""
    by_row = [parameters_of(row.module, f"{row.name}.") for row in subject.rows]
    return dict(chain(parameters_of(subject.model), *by_row))


def subject_of(
    model: nn.Module,
    inputs: Any,
    loss: Loss,
    *,
    projection: Loss | None = None,
    seed: int = 0,
    rows: str | None = None,
) -> Subject:
    """A module with its inputs, as a subject.

    Args:
        inputs: a tensor (batch first), a tuple of positional arguments, a mapping of keyword
            arguments, or both as ``((...), {...})``.
        loss: from the model's output to a scalar.
        projection: as the subject's; left out, of the first floating tensor in the output.
        seed: of the loss's direction, and of what the forward pass draws.
        rows: a glob over ``named_modules()`` paths that says which modules are the blocks.

    Raises:
        InputError: ``rows`` matches nothing, or is given for a spec, whose rows are its layers.
    """
    args, kwargs = arguments_of(inputs)
    if isinstance(model, Network) and rows:
        raise InputError("rows: a spec's rows are its layers")
    return Subject(
        model=model,
        args=tuple(args),
        kwargs=kwargs,
        loss=loss,
        projection=projection or loss_of("projection", None, seed),
        rows=tuple(model.rows if isinstance(model, Network) else find_rows(model, rows)),
        seed=seed,
    )


def copied_subject(subject: Subject) -> Subject:
    """The same with a copy of its model, which may be changed."""
    copy = deepcopy(subject.model)
    paths = {module: path for path, module in subject.model.named_modules()}
    copies = dict(copy.named_modules())
    rows = tuple(row._replace(module=copies[paths[row.module]]) for row in subject.rows)
    return replace(subject, model=copy, rows=rows)


def arguments_of(inputs: Any) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments from what ``subject_of`` takes as ``inputs``."""
    match inputs:
        case PackedSequence():  # it is a tuple
            return [inputs], {}
        case (tuple() | list() as args, Mapping() as kwargs) if isinstance(inputs, tuple):
            return list(args), dict(kwargs)
        case tuple():
            return list(inputs), {}
        case Mapping():  # a tokenizer's BatchEncoding is no dict
            return [], dict(inputs)
    return [inputs], {}


def batch_and_labels(model: nn.Module, inputs: Any) -> tuple[Any, Tensor | None]:
    """``inputs`` without the labels that stand beside them, ``(x, labels)`` or ``[x, labels]``.

    Of a DataLoader the first batch. Two tensors are such a pair where the model takes one argument;
    a list of two alike is that argument.
    """
    if isinstance(inputs, DataLoader):
        with torch.random.fork_rng(devices=[]):  # it draws the seed of its workers
            inputs = next(iter(inputs))
        inputs = inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs
    match inputs:
        case (Tensor() as x, Tensor() as labels) if _takes_one(model):
            alike = (x.dtype, x.shape) == (labels.dtype, labels.shape)
            if isinstance(inputs, tuple) or not alike:
                return x, labels
    return inputs, None


def _takes_one(model: nn.Module) -> bool:
    """Whether its forward takes one argument by position and no second without a name."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return False
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(places) == 1 and not any(p.kind is p.VAR_POSITIONAL for p in parameters)
