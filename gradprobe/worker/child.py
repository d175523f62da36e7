"""Import, build, call, measure: what runs in the process of a Python model.

Whatever the model's code raises ends as a ``ModelError`` at the user's own line; the frames of
gradprobe and torch are not the user's business.
"""

from __future__ import annotations

import inspect
import json
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map

from gradprobe.errors import GradprobeError, InputError, ModelError, suggestion
from gradprobe.measure.take import take
from gradprobe.model.batch import load_batch
from gradprobe.model.losses import loss_of
from gradprobe.model.make import module_subject
from gradprobe.model.seeds import derive, reseed_all
from gradprobe.model.subject import Subject, arguments_of
from gradprobe.spec.network import TensorSpec, is_target, split
from gradprobe.worker.exchange import Failure, Reply, Request, decode, encode
from gradprobe.worker.frames import frames_of, users_frame
from gradprobe.worker.process import Note, serve
from gradprobe.worker.trial import tried


def main() -> None:
    """Serve one request; ``process.call`` starts it."""
    serve(answer)


def answer(request: bytes, note: Note) -> bytes:
    """An encoded ``Request`` → an encoded ``Reply``."""
    warnings.simplefilter("ignore")  # as in the command itself
    try:
        result = reply(decode(Request, request.decode()), note)
    except BaseException as error:
        result = Reply(failure=Failure.of(_blame(error, "probing")))
    return encode(result).encode()


def reply(request: Request, note: Note = lambda stage: None) -> Reply:
    """The measurement of the model that ``request`` names, or the error that it ended in."""
    try:
        with _imports_from(request.path):
            subject = _subject(request, note)
            with _step(note, "running the model"):
                return Reply(tried(subject, take(subject, request.options), request.options))
    except GradprobeError as error:
        return Reply(failure=Failure.of(error))


def _subject(request: Request, note: Note) -> Subject:
    """The model that ``request`` names, what it is called with, and its loss."""
    model = _adapted(_model(request, note), request)
    inputs, labels = _inputs(model, request, note)
    args, kwargs = arguments_of(_moved(inputs, model, request))
    _check_call(model, args, kwargs)
    loss = _loss(request, labels, note)
    subject = module_subject(model, (tuple(args), kwargs), loss, request.options)
    sizes = [t.shape[0] for t in [*args, *kwargs.values()] if isinstance(t, Tensor) and t.dim()]
    resolved = {
        "batch_size": sizes[0] if sizes else None,
        "loss": request.loss,
        "data": request.options.data or request.function,
        "mode": "train" if model.training else "eval",
    }
    own_loss = is_target(request.loss) or (labels is not None and request.loss != "projection")
    drawn, config = resolved["data"] is None, {**subject.told, **resolved}
    return replace(subject, drawn=drawn, own_loss=own_loss, told=config)


# ---- the user's names


@contextmanager
def _imports_from(path: str) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, os.path.abspath(path))
    try:
        yield
    finally:
        sys.path[:] = before


def _model(request: Request, note: Note) -> nn.Module:
    """The module that the target is, or gives when it is called with the arguments."""
    _seed(request.options.seed)  # a module may be built while its file is imported
    model = _find(request.target, note)
    arguments = json.loads(request.arguments)
    if isinstance(model, nn.Module):
        if arguments:
            raise InputError(f"{request.target} is built already: it takes no --arg")
        return model
    if not callable(model):
        raise InputError(f"{request.target} is {_a(model)}: neither a module nor what makes one")
    _check_arguments(request.target, model, arguments)
    _seed(request.options.seed)
    with _step(note, f"building {request.target}"):
        model = model(**arguments)
    if not isinstance(model, nn.Module):
        raise InputError(f"{request.target} gives {_a(model)}, not a torch.nn.Module")
    return model


def _find(target: str, note: Note) -> Any:
    """What ``package.module:name`` names.

    Raises:
        InputError: there is no such module or name; suggests the nearest.
        ModelError: the module raised while it was imported.
    """
    name, attribute = split(target)
    with _step(note, f"importing {name}"):
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            own = users_frame(frames_of(error)) is None
            if not own or not f"{name}.".startswith(f"{missing}."):
                raise
            hint = suggestion(name, _siblings(name)) or f"--path DIR: where {name} is imported from"
            raise InputError(f"there is no module {missing}", hint=hint) from error
    value: Any = module
    for part in attribute.split("."):
        with _step(note, f"importing {name}"):
            names = [word for word in dir(value) if not word.startswith("_")]
            there = hasattr(value, part)
        if not there:
            _check_shadowed(module)
            hint = suggestion(part, names) or f"it has: {', '.join(_models(module)) or 'no model'}"
            raise InputError(f"{name} has no {attribute}", hint=hint)
        value = getattr(value, part)
    return value


def _siblings(name: str) -> list[str]:
    """Full names of the modules that stand where ``name`` was looked for."""
    package, _, _ = name.rpartition(".")
    prefix = f"{package}." if package else ""
    paths = list(getattr(sys.modules.get(package), "__path__", [])) if package else None
    return [prefix + module.name for module in pkgutil.iter_modules(paths)]


def _models(module: ModuleType) -> list[str]:
    """Names of the models that ``module`` itself defines, at most eight."""

    def defines(value: object) -> bool:
        is_class = isinstance(value, type) and issubclass(value, nn.Module)
        return isinstance(value, nn.Module) or (is_class and value.__module__ == module.__name__)

    return [name for name, value in vars(module).items() if defines(value)][:8]


def _check_shadowed(module: ModuleType) -> None:
    """Python keeps the first module of a name: a file called random.py is not imported."""
    file = Path(sys.path[0], *module.__name__.split(".")).with_suffix(".py")
    loaded = getattr(module, "__file__", None)
    if file.is_file() and (loaded is None or not file.samefile(loaded)):
        hint = f"rename {file.name}, or import it through a package"
        raise InputError(f"another module is called {module.__name__}: {loaded}", hint=hint)


def _check_arguments(target: str, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    signature = _signature(function)
    if signature is None:
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        unknown = [name for name in arguments if name not in signature.parameters]
        hint = suggestion(unknown[0], signature.parameters) if unknown else "--arg name=value"
        raise InputError(f"{target}{signature}: {error}", hint=hint) from error


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Its parameters without annotations; ``None`` where Python cannot tell."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)


# ---- what goes in


def _inputs(model: nn.Module, request: Request, note: Note) -> tuple[Any, Tensor | None]:
    """What the model is called with, and labels where a data file has them."""
    options = request.options
    if options.data is not None:
        batch = load_batch(options.data, None, options.batch_size, options.limits.memory)
        return batch.inputs, batch.labels
    if request.function is not None:
        function = _find(request.function, note)
        _seed(options.seed)
        with _step(note, f"calling {request.function}"):
            return function(), None
    if request.tensors:
        return tuple(_drawn(spec, i, options.seed) for i, spec in enumerate(request.tensors)), None
    signature = _signature(model.forward)
    if signature is not None and not signature.parameters:
        return (), None
    shown = f"{type(model).__name__}.forward{signature or '(...)'}"
    hint = "--input shape=32,64/dtype=float32, --inputs package.module:function or --data FILE"
    raise InputError(f"{shown} needs inputs: none are given", hint=hint)


def _drawn(spec: TensorSpec, index: int, seed: int) -> Tensor:
    """The first is drawn as a spec's input is, so that the same network gets the same batch."""
    path = f"input/{index}" if index else "input"
    generator = torch.Generator().manual_seed(derive(seed, path))
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if dtype.is_floating_point:
        return torch.randn(spec.shape, generator=generator).to(dtype)
    return torch.randint(spec.high or 2, spec.shape, generator=generator).to(dtype)


def _moved(value: Any, model: nn.Module, request: Request) -> Any:
    """``value`` on the model's device; its numbers in the model's dtype where that is known."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        return value
    numbers = request.options.dtype is not None or request.options.data is not None

    def move(part: Any) -> Any:
        moved = part
        if isinstance(part, (Tensor, PackedSequence)):
            moved = moved.to(parameter.device)
            cast = numbers and moved.data.is_floating_point()
            moved = moved.to(parameter.dtype) if cast else moved
        return moved

    # A PackedSequence moves itself: its batch sizes stay on the CPU.
    return tree_map(move, value, is_leaf=lambda part: isinstance(part, PackedSequence))


def _check_call(model: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> None:
    signature = _signature(model.forward)
    if signature is None:
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        shown = f"{type(model).__name__}.forward{signature}"
        hint = "each --input is one argument, in order; --inputs can name them"
        raise InputError(f"{shown} does not take these inputs: {error}", hint=hint) from error


# ---- what comes out


def _loss(request: Request, labels: Tensor | None, note: Note) -> Callable[[Any], Tensor]:
    if not is_target(request.loss):
        return loss_of(request.loss, labels, request.options.seed)
    loss = _find(request.loss, note)
    if isinstance(loss, type) and issubclass(loss, nn.Module):
        loss = loss()
    if not callable(loss):
        raise InputError(f"{request.loss} is {_a(loss)}, not a function of the output")
    function: Callable[[Any], Tensor] = loss
    return function


def _adapted(model: nn.Module, request: Request) -> nn.Module:
    """The model in the dtype, mode and on the device that were asked for."""
    if request.options.dtype is not None:
        model.to(getattr(torch, request.options.dtype))
    if request.options.device != "cpu":  # the default leaves it where it was built
        try:
            model.to(request.options.device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise InputError(f"--device {request.options.device}: {_said(error)}") from error
    return model if request.mode is None else model.train(request.mode == "train")


# ---- errors


@contextmanager
def _step(note: Note, stage: str) -> Iterator[None]:
    """Whatever is raised inside comes out as an error at the user's line."""
    note(stage)
    try:
        yield
    except KeyboardInterrupt:
        raise
    except GradprobeError as error:
        raise _placed(error) from error.__cause__
    except BaseException as error:
        raise _blame(error, stage) from error


def _blame(error: BaseException, stage: str) -> ModelError:
    what = f"{type(error).__name__}: {_said(error)}".removesuffix(": ")
    if isinstance(error, SystemExit):
        what = f"sys.exit({error.code!r}) was called"
    frame = users_frame(frames_of(error))
    where = f" in {frame.function}" if frame and frame.function != "<module>" else ""
    message = f"{stage} failed{where}: {what}"
    if frame is None:
        return ModelError(message)
    return ModelError(message, place=frame.place, excerpt=frame.excerpt)


def _placed(error: GradprobeError) -> GradprobeError:
    """``error`` at the user's line that caused it, where there is one."""
    frame = users_frame(frames_of(error.__cause__)) if error.__cause__ else None
    if frame is None or error.place is not None or isinstance(error, InputError):
        return error
    return ModelError(error.message, place=frame.place, excerpt=frame.excerpt, hint=error.hint)


def _said(error: BaseException) -> str:
    """The first line of what an exception says, whose own code may fail at that."""
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        return next(iter(text.strip().splitlines()), "")
    except Exception:
        return ""


def _a(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def _seed(seed: int) -> None:
    """Every stream that a model may draw its weights from, that of an unused GPU too."""
    torch.manual_seed(seed)
    reseed_all(seed)
