"""Import, build, call, measure: what runs in the process of a Python model.

Whatever the model's code raises ends as a ``ModelError`` at the user's own line; the frames of
gradprobe and torch are not the user's business.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gradprobe.errors import GradprobeError, InputError, ModelError
from gradprobe.measure.progress import writing
from gradprobe.measure.take import take, take_block, take_paths
from gradprobe.model import transformers
from gradprobe.model.losses import loss_of
from gradprobe.model.make import is_one_sample, module_subject
from gradprobe.model.ranks import joined
from gradprobe.model.seeds import seed_all
from gradprobe.model.spread import BY_HAND, WHOLE_WEIGHTS, built, spread
from gradprobe.model.subject import Subject, arguments_of
from gradprobe.model.weights import load_weights
from gradprobe.spec.network import is_target
from gradprobe.spec.options import OWN_LOSS
from gradprobe.worker import libraries
from gradprobe.worker.blame import blame, described, said, step
from gradprobe.worker.changes import change
from gradprobe.worker.cures import with_cures
from gradprobe.worker.drawn import draw
from gradprobe.worker.exchange import Failure, Reply, Request, decode, encode
from gradprobe.worker.guess import Guess, hint_for, text_of
from gradprobe.worker.inputs import check_call, inputs_of, moved
from gradprobe.worker.names import check_arguments, find
from gradprobe.worker.origin import origin_of
from gradprobe.worker.process import DONE, Note, serve
from gradprobe.worker.trial import tried


def main() -> None:
    """Serve one request; ``process.call`` starts it."""
    serve(answer)


def answer(request: bytes, note: Note) -> bytes:
    """An encoded ``Request`` → an encoded ``Reply``."""
    warnings.simplefilter("ignore")  # as in the command itself
    sys.argv[:] = ["gradprobe"]  # a model that reads its command line finds an empty one
    try:
        with writing(lambda line: note(f"{DONE}{line}")):
            result = reply(decode(Request, request.decode()), note)
    except BaseException as error:
        result = Reply(failure=Failure.of(blame(error, "probing")))
    return encode(result).encode()


def reply(request: Request, note: Note = lambda stage: None) -> Reply:
    """The measurement of the model that ``request`` names, or the error that it ended in."""
    try:
        with _imports_from(request.path), joined(request.options):
            subject = _subject(request, note)
            try:
                with step(note, "running the model"):
                    result = _measured(subject, request)
            except ModelError as error:
                if request.tensors and not error.hint:
                    error.hint = hint_for(subject.model, request.tensors[0])
                raise
            if request.tree is None:
                return result
            named = () if request.library else (find(request.target, note),)
            objects = (*named, type(subject.model))
            return result._replace(origin=origin_of(objects, request.tree))
    except GradprobeError as error:
        return Reply(failure=Failure.of(error))


def _check_batch(model: nn.Module, request: Request) -> None:
    """Refuse an ``--input`` that is one sample in place of a batch.

    Raises:
        InputError: it is; the hint has the option as it should be.
    """
    if request.tensors and is_one_sample(model, draw(request.tensors[0], 0, 0)):
        spec = request.tensors[0]
        message = f"--input {text_of(spec)} is the shape of one sample, without a batch"
        batch = replace(spec, shape=(32, *spec.shape))
        raise InputError(message, hint=f"the batch comes first: --input {text_of(batch)}")


def _measured(subject: Subject, request: Request) -> Reply:
    if request.what == "block":
        return Reply(block=take_block(subject, request.row))
    if request.what == "paths":
        return Reply(paths=take_paths(subject, request.max_paths))
    measurement = tried(subject, take(subject, request.options), request.options)
    return Reply(with_cures(subject, measurement, request.options))


def _subject(request: Request, note: Note) -> Subject:
    """The model that ``request`` names, what it is called with, and its loss."""
    if request.options.sharded:
        model, guessed = _spread(request, note)
        loaded = {}
    else:
        model = _model(request, note)
        with step(note, "loading its weights"):
            loaded = load_weights(model, request.weights, request.options.limits.memory)
        change(model, request.changes, request.options.seed)
        model = _adapted(model, request)
        guessed = inputs_of(model, request, note)
    inputs, labels = (guessed.inputs, None) if isinstance(guessed, Guess) else guessed
    _check_batch(model, request)
    args, kwargs = arguments_of(moved(inputs, model, request))
    check_call(model, args, kwargs)
    loss = _loss(request, labels, note)
    subject = module_subject(model, (tuple(args), kwargs), loss, request.options)
    sizes = [t.shape[0] for t in [*args, *kwargs.values()] if isinstance(t, Tensor) and t.dim()]
    resolved = {
        "batch_size": sizes[0] if sizes else None,
        "loss": request.loss,
        "data": request.options.data or request.function,
        "mode": "train" if model.training else "eval",
        **loaded,
    }
    if isinstance(guessed, Guess):
        resolved["inputs"] = guessed.source
        resolved["data"] = guessed.source if guessed.own else None
    own_loss = is_target(request.loss) or (labels is not None and request.loss != "projection")
    drawn, config = resolved["data"] is None, {**subject.told, **resolved}
    return replace(subject, drawn=drawn, own_loss=own_loss, told=config)


# ---- shared by the processes of torchrun


def _spread(request: Request, note: Note) -> tuple[nn.Module, Guess | tuple[Any, Tensor | None]]:
    """The model, of which each process has its part, and what it is called with."""
    if request.weights is not None:
        raise InputError(WHOLE_WEIGHTS)
    try:
        model, deferred = built(lambda: _adapted(_model(request, note), request))
    except ModelError as error:
        alone = "under torchrun it is built without its numbers; where it can be built alone, "
        error.hint = error.hint or alone + BY_HAND
        raise
    guessed = inputs_of(deepcopy(model).to("meta"), request, note)
    with step(note, "sharding it"):
        return spread(model, deferred, request.options), guessed


# ---- the user's names


@contextmanager
def _imports_from(path: str) -> Iterator[None]:
    before = list(sys.path)
    if path:
        sys.path.insert(0, os.path.abspath(path))
    try:
        yield
    finally:
        sys.path[:] = before


def _model(request: Request, note: Note) -> nn.Module:
    """The module that the target is, or gives when it is called with the arguments."""
    seed_all(request.options.seed)  # a module may be built while its file is imported
    model = libraries.builder(request, note) if request.library else find(request.target, note)
    arguments = json.loads(request.arguments)
    if isinstance(model, nn.Module):
        if arguments:
            raise InputError(f"{request.target} is built already: it takes no --arg")
        return model
    if not callable(model):
        raise InputError(
            f"{request.target} is {described(model)}: neither a module nor what makes one"
        )
    check_arguments(request.target, model, arguments)
    seed_all(request.options.seed)
    with step(note, f"building {request.target}"):
        model = model(**arguments)
    if not isinstance(model, nn.Module):
        weights = isinstance(model, dict) and any(isinstance(t, Tensor) for t in model.values())
        hint = "these are weights: name the class or the function that builds the network"
        message = f"{request.target} gives {described(model)}, not a torch.nn.Module"
        raise InputError(message, hint=hint if weights else "")
    return model


# ---- what comes out


def _loss(request: Request, labels: Tensor | None, note: Note) -> Callable[[Any], Tensor]:
    if request.loss == OWN_LOSS:
        return transformers.own_loss
    if not is_target(request.loss):
        return loss_of(request.loss, labels, request.options.seed)
    loss = find(request.loss, note)
    if isinstance(loss, type) and issubclass(loss, nn.Module):
        loss = loss()
    if not callable(loss):
        raise InputError(f"{request.loss} is {described(loss)}, not a function of the output")
    function: Callable[[Any], Tensor] = loss
    return function


def _adapted(model: nn.Module, request: Request) -> nn.Module:
    """The model in the dtype, mode and on the device that were asked for."""
    if request.options.dtype is not None:
        model.to(getattr(torch, request.options.dtype))
    # The default leaves it where it was built, and what is to be sharded is moved by then.
    if request.options.device != "cpu" and not request.options.sharded:
        try:
            model.to(request.options.device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise InputError(f"--device {request.options.device}: {said(error)}") from error
    return model if request.mode is None else model.train(request.mode == "train")
