"""A spec → a subject: its network, its batch and its loss, ready to be measured."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradprobe.errors import InputError, ModelError, first_line
from gradprobe.model import transformers
from gradprobe.model.batch import Batch, load_batch, random_batch
from gradprobe.model.build import Network, assembled
from gradprobe.model.classes import classes_of
from gradprobe.model.fits import fits, room_between
from gradprobe.model.kept import Store
from gradprobe.model.losses import LOSSES, loss_of
from gradprobe.model.plan import Planned, plan
from gradprobe.model.ranks import ranks_of, unwrapped
from gradprobe.model.rows import find_rows
from gradprobe.model.saved import read_by_block
from gradprobe.model.sharded import class_of
from gradprobe.model.spread import WHOLE_WEIGHTS, sharded
from gradprobe.model.streamed import streamed
from gradprobe.model.subject import Loss, Subject, batch_and_labels, subject_of
from gradprobe.model.tensors import beside, first_tensor, placed, tensors_in, word_of
from gradprobe.model.weights import load_weights
from gradprobe.spec.network import ArchitectureSpec, Idiom, NetworkSpec
from gradprobe.spec.options import (
    ARCHITECTURE_BATCH_SIZE,
    DEFAULT_BATCH_SIZE,
    OWN_LOSS,
    ProbeOptions,
    choose,
)
from gradprobe.spec.vocabulary import MODES


def make(
    spec: NetworkSpec | ArchitectureSpec,
    options: ProbeOptions,
    inputs: Tensor | None = None,
    streams: bool = False,
) -> Subject:
    """Build the network of ``spec``, with a batch and a loss.

    Args:
        inputs: instead of the batch that the options or the spec describe; batch first.
        streams: whether a network that does not fit in memory may be one of ``model.streamed``.

    Raises:
        InputError: the spec, an option or the data do not fit.
        ModelError: the network could not be built.
    """
    if options.sharded and spec.weights is not None:
        raise InputError(WHOLE_WEIGHTS)
    whole = options.needs_whole is not None or options.sharded
    streams = streams and not whole and read_by_block(spec.weights)
    if isinstance(spec, ArchitectureSpec):
        if options.stream and options.deep:
            message = "--deep needs the whole model, and --stream makes one block at a time"
            raise InputError(message, hint="leave one of them out; of a spec both are taken")
        return _architecture(spec, options, streams and not options.deep)
    return _layers(spec, options, inputs, streams)


def _layers(
    spec: NetworkSpec, options: ProbeOptions, inputs: Tensor | None, streams: bool
) -> Subject:
    if options.rows is not None:
        raise InputError("--rows: a spec's rows are its layers")
    loss = options.loss or spec.loss
    choose("--loss", loss, tuple(LOSSES))
    device, dtype = device_of(options.device), dtype_of(options.dtype)
    batch = _batch_at_hand(spec, options, inputs)
    size = options.batch_size or spec.input.batch_size or DEFAULT_BATCH_SIZE
    size = size if batch is None else batch.inputs.shape[0]
    here = torch.get_default_device().type == "cpu"  # else a call of torch takes longer
    try:
        by_blocks = options.stream or options.sharded
        planned = plan(spec, size, options.limits, by_blocks or (None if streams else False))
        with nullcontext() if here else torch.device("cpu"):
            network = _network(planned, spec, options, streams)
        # The plan has held its size against the limits by now.
        drawn = batch or random_batch(spec.input, size, options.seed)
        x = placed(drawn.inputs, device, dtype)
    except (RuntimeError, MemoryError) as error:
        raise ModelError(f"the network could not be built: {first_line(error)}") from error
    loaded = load_weights(network, spec.weights, options.limits.memory)
    return Subject(
        model=network,
        args=(x,),
        kwargs={},
        loss=loss_of(loss, drawn.labels, options.seed),
        projection=loss_of("projection", None, options.seed),
        rows=tuple(network.rows),
        ranks=ranks_of(network),
        seed=options.seed,
        memory=options.limits.memory,
        name=spec.name,
        work=network.work,
        drawn=batch is None,
        own_loss=drawn.labels is not None and loss != "projection",
        told={"batch_size": size, "dtype": word_of(dtype), "loss": loss, **loaded},
    )


def _network(planned: Planned, spec: NetworkSpec, options: ProbeOptions, streams: bool) -> Network:
    device, dtype = device_of(options.device), dtype_of(options.dtype)
    if options.sharded:
        return sharded(lambda: assembled(planned, spec, options.seed).to(dtype=dtype), options)
    if options.stream or (streams and not fits(planned, options.limits)):
        store = partial(Store, room_between(planned, options.limits), options.boundaries)
        like = torch.empty(0, dtype=dtype, device=device)
        return streamed(planned, spec, options.seed, like, store)
    return assembled(planned, spec, options.seed).to(dtype=dtype, device=device)


def _batch_at_hand(spec: NetworkSpec, options: ProbeOptions, inputs: Tensor | None) -> Batch | None:
    if inputs is None and options.data is not None:
        size = options.batch_size or spec.input.batch_size
        return load_batch(options.data, spec.input, size, options.limits.memory)
    return None if inputs is None else Batch(inputs)


def _architecture(spec: ArchitectureSpec, options: ProbeOptions, streams: bool) -> Subject:
    if options.data is not None or options.by != "row" or options.theory:
        raise InputError("--data, --by and --theory are about specs, not Hugging Face models")
    loss = options.loss or "projection"
    size = options.batch_size or ARCHITECTURE_BATCH_SIZE
    dtype = dtype_of(options.dtype)
    device = device_of(options.device)
    model, inputs = transformers.build(
        spec, options, batch_size=size, dtype=dtype, device=device, streams=streams
    )
    loaded = load_weights(model, spec.weights, options.limits.memory)
    model.train(spec.mode != MODES[1])
    own = transformers.own_loss if loss == OWN_LOSS else _main_loss(loss, options.seed)
    return Subject(
        model=model,
        args=(),
        kwargs=inputs,
        loss=own,
        projection=_main_loss("projection", options.seed),
        rows=tuple(find_rows(model, options.rows)),
        ranks=ranks_of(model),
        seed=options.seed,
        memory=options.limits.memory,
        name=class_of(model).__name__,
        drawn=True,
        main=lambda output: first_tensor(transformers.main_output(output)),
        idiom=Idiom("config", settings=transformers.settings_of(model)),
        told={
            "batch_size": size,
            "dtype": word_of(dtype),
            "loss": loss,
            "mode": spec.mode or MODES[0],
            **loaded,
        },
    )


def module_subject(
    model: nn.Module,
    inputs: Any,
    loss: str | Loss | None = None,
    options: ProbeOptions | None = None,
) -> Subject:
    """A module that is there already, in the mode, dtype and on the device that it is in.

    Args:
        inputs: as ``subject_of`` takes them.
        loss: as ``gradprobe.probe`` takes it; by default ``projection``.
        options: its seed, rows and limits count.

    Raises:
        InputError: the model has no numbers or nothing to train, or no rows of that name.
    """
    options = options or ProbeOptions()
    if options.stream:
        hint = "gradprobe.load gives a spec"
        raise InputError("--stream is for specs: a module is in memory already", hint=hint)
    _check_trainable(model)
    ranks, model = ranks_of(model), unwrapped(model)
    parameter = next(model.parameters())
    batch, labels = batch_and_labels(model, inputs)
    word, function, batch = _loss_and_batch(loss, batch, labels, options.seed)
    subject = subject_of(model, batch, function, seed=options.seed, rows=options.rows)
    if any(t.dim() and not len(t) for t in tensors_in([subject.args, dict(subject.kwargs)])):
        raise InputError("inputs: the batch holds no samples")
    _check_batch(model, subject.args)
    return replace(
        subject,
        ranks=ranks,
        memory=options.limits.memory,
        name=class_of(model).__name__,
        criterion=loss if isinstance(loss, nn.Module) else None,
        own_loss=word == "custom" or (labels is not None and word in ("cross_entropy", "mse")),
        idiom=Idiom("code", classes_of(model, [row.name for row in subject.rows])),
        told={"dtype": word_of(parameter.dtype), "device": str(parameter.device), "loss": word},
    )


def _loss_and_batch(
    loss: str | Loss | None, batch: Any, labels: Tensor | None, seed: int
) -> tuple[str, Loss, Any]:
    """What the report calls the loss, the loss of the output alone, and what the model takes.

    A loss of (output, target), such as ``nn.CrossEntropyLoss()``, has its target beside the input:
    ``(x, target)`` or ``[x, target]``, as a DataLoader gives them.
    """
    if loss is None or isinstance(loss, str):
        word = loss or "projection"
        if word == OWN_LOSS:
            return word, transformers.own_loss, batch
        choose("--loss", word, (*LOSSES, OWN_LOSS))
        return word, loss_of(word, labels, seed), batch
    if not _takes_target(loss):
        return "custom", loss, batch
    with_target: Callable[..., Tensor] = loss
    match batch if labels is None else (batch, labels):
        case (x, Tensor() as target):
            return "custom", lambda output: with_target(output, target), x
    hint = "inputs=(x, target), or a function of the output alone"
    raise InputError("the loss takes an output and a target, and there is no target", hint=hint)


def _takes_target(loss: Loss) -> bool:
    function = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return len([p for p in needed if p.kind is not p.VAR_POSITIONAL]) == 2


def check_is_module(model: object) -> None:
    """Refuse what the caller has taken for a module.

    Raises:
        InputError: it is none.
    """
    if not isinstance(model, nn.Module):
        hint = "of an exported program take program.module(); gradprobe.load gives a spec"
        raise InputError(f"the model is no nn.Module but a {type(model).__name__}", hint=hint)


def _check_trainable(model: nn.Module) -> None:
    from torch.nn.parameter import is_lazy

    check_is_module(model)
    parameters = list(model.parameters())
    if any(is_lazy(p) for p in parameters):
        raise InputError("the model has lazy layers: run it once, so that they know their sizes")
    if any(p.is_meta for p in parameters):
        raise InputError("the model is on the meta device: it has no numbers to measure")
    if not parameters:
        raise InputError("the model has no trainable parameters")


def is_one_sample(model: nn.Module, x: Any) -> bool:
    """Whether ``x`` is one sample in place of a batch, by what the first layer takes."""
    holders = (m for m in model.modules() if m._parameters and not list(m.children()))
    first = next(holders, None)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return False
    if isinstance(first, nn.Linear):
        return x.shape == (first.in_features,)
    if isinstance(first, nn.modules.conv._ConvNd):
        return x.dim() == 1 + len(first.kernel_size) and len(x) == first.in_channels
    return False


def _check_batch(model: nn.Module, args: tuple[Any, ...]) -> None:
    if args and is_one_sample(model, args[0]):
        shape = list(args[0].shape)
        message = f"inputs: {shape} is the shape of one sample, and a batch of several is needed"
        raise InputError(message, hint=f"{[32, *shape]}: the batch comes first")


def _main_loss(name: str, seed: int) -> Callable[[Any], Tensor]:
    """The loss called ``name`` of what a Hugging Face model is for: its main output.

    ``projection`` also reads what stands beside it, such as BERT's pooled state.
    """
    loss = loss_of(name, None, seed)

    def of(output: Any) -> Tensor:
        main = transformers.main_output(output)
        return loss([main, beside(main, output)] if name == "projection" else main)

    return of


def device_of(name: str) -> torch.device:
    """The device called ``name``, which can hold a tensor.

    Raises:
        InputError: there is none, or it cannot be had here.
    """
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it has no memory to measure in")
    except RuntimeError as error:
        hint = "cpu, cuda, cuda:1, mps"
        raise InputError(f"--device: unknown device '{name}'", hint=hint) from error
    try:
        torch.empty(1, device=device)
    except Exception as error:
        reason = first_line(error).split(". ")[0]
        raise InputError(f"--device {name} is not to be had here: {reason}") from error
    return device


def dtype_of(name: str | None) -> torch.dtype:
    """The dtype called ``name``; ``None``: float32."""
    dtype: torch.dtype = getattr(torch, name or "float32")
    return dtype
