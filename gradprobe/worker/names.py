"""``package.module:name`` → what it names, and what that takes."""

from __future__ import annotations

import inspect
import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from gradprobe.errors import InputError, suggestion
from gradprobe.spec.network import split
from gradprobe.worker.blame import step
from gradprobe.worker.frames import frames_of, users_frame
from gradprobe.worker.process import Note

_LEAST = 0.75  # likeness of a module's name that is suggested: there are hundreds


def find(target: str, note: Note) -> Any:
    """What ``package.module:name`` names.

    Raises:
        InputError: there is no such module or name; suggests the nearest.
        ModelError: the module raised while it was imported.
    """
    name, attribute = split(target)
    with step(note, f"importing {name}"):
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            own = users_frame(frames_of(error)) is None
            if not own or not f"{name}.".startswith(f"{missing}."):
                raise
            near = suggestion(name, _siblings(name), _LEAST)
            hint = near or f"--path DIR: where {name} is imported from"
            raise InputError(f"there is no module {missing}", hint=hint) from error
    value: Any = module
    for part in attribute.split("."):
        with step(note, f"importing {name}"):
            names = [word for word in dir(value) if not word.startswith("_")]
            there = hasattr(value, part)
        if not there:
            _check_shadowed(module)
            hint = suggestion(part, names) or f"it has: {', '.join(_models(module)) or 'no model'}"
            raise InputError(f"{name} has no {attribute}", hint=hint)
        value = getattr(value, part)
    return value


def _siblings(name: str) -> list[str]:
    """Full names of the modules that stand where ``name`` was looked for; Python's own are none."""
    package, _, _ = name.rpartition(".")
    prefix = f"{package}." if package else ""
    paths = list(getattr(sys.modules.get(package), "__path__", [])) if package else None
    names = {prefix + module.name for module in pkgutil.iter_modules(paths)}
    return sorted(names - sys.stdlib_module_names)


def _models(module: ModuleType) -> list[str]:
    """Names of the models that ``module`` itself defines, at most eight."""
    from torch import nn

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


def check_arguments(target: str, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    signature = signature_of(function)
    if signature is None:
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        unknown = [name for name in arguments if name not in signature.parameters]
        hint = suggestion(unknown[0], signature.parameters) if unknown else "--arg name=value"
        raise InputError(f"{target}{signature}: {error}", hint=hint) from error


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Its parameters without annotations; ``None`` where Python cannot tell."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)
