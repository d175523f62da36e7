"""Files that hold no network, but are named by those who look for one → what to type instead."""

from __future__ import annotations

import ast
import os
import shlex
from pathlib import Path
from typing import NoReturn

from gradprobe.errors import InputError
from gradprobe.files import read_regular

_MAX_BYTES = 1 << 22  # of a Python file
_MOST = 8  # models of a file that are listed
_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".bin")
_GRAPHS = (".onnx", ".pb", ".h5", ".keras", ".tflite")
_BASES = ("Module", "LightningModule", "Sequential", "PreTrainedModel")


def is_no_target(target: str) -> bool:
    """Whether ``target`` is a file of Python code without a name in it, or a file of weights."""
    path = Path(target.removesuffix(":"))
    return path.suffix in (".py", *_WEIGHTS, *_GRAPHS) and os.path.isfile(path)


def refuse(target: str, options: object) -> NoReturn:
    """Say what the file is, and what to name.

    Raises:
        InputError: always.
    """
    target = target.removesuffix(":")
    path = Path(target)
    if path.suffix == ".py":
        names = models_in(path)
        if not names:
            hint = (
                f"gradprobe probe {shlex.quote(target)}:NAME, a class or a function that makes one"
            )
            raise InputError(f"{target} defines no torch.nn.Module that could be meant", hint=hint)
        listed = "; ".join(f"gradprobe probe {shlex.quote(target)}:{name}" for name in names)
        count = "one model" if len(names) == 1 else f"{len(names)} models"
        raise InputError(f"{target} is a file of Python code with {count}: name it", hint=listed)
    hint = "name the code that builds it: gradprobe probe file.py:Class"
    if path.suffix in _WEIGHTS:
        raise InputError(f"{target} holds weights, and not the network that they are of", hint=hint)
    raise InputError(f"{target} holds an exported graph, which PyTorch does not run", hint=hint)


def models_in(path: Path) -> list[str]:
    """Names of the classes that are modules by their bases, and of the functions that return one.

    The file is read and not run; the largest come last in most files, and so they do here.

    Raises:
        InputError: it cannot be read, or is no Python.
    """
    try:
        tree = ast.parse(read_regular(path, _MAX_BYTES))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not Python that this version reads: {error}") from error
    modules: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            if bases & {*_BASES, *modules}:
                modules.append(node.name)
        elif isinstance(node, ast.FunctionDef) and _returns(node) & set(modules):
            modules.append(node.name)
    return modules[-_MOST:]


def _returns(function: ast.FunctionDef) -> set[str]:
    """What the function calls where it returns, and what it is annotated to return."""
    names = {ast.unparse(function.returns).rpartition(".")[2]} if function.returns else set()
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
            names.add(ast.unparse(node.value.func).rpartition(".")[2])
    return names
