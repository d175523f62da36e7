"""``package.module:name`` and what goes with it → ``CodeSpec``. Reads names; imports nothing."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gradprobe.errors import InputError, suggestion
from gradprobe.files import near_file
from gradprobe.spec.network import (
    CodeSpec,
    TensorSpec,
    Value,
    is_target,
    script_of,
    split,
)
from gradprobe.spec.options import Shown, choose, option
from gradprobe.spec.sources.nodes import Document, optional
from gradprobe.spec.vocabulary import LOSSES, MAX_SIZE, MODES, TENSOR_DTYPES

MODEL_KEYS = ("target", "args", "inputs", "path", "mode")  # of a spec's ``model:``
_INTEGERS = ("int64", "int32", "uint8")
_EXAMPLE = "like shape=32,64/dtype=float32 or shape=8,128/dtype=int64/high=1000"


@dataclass(frozen=True, slots=True)
class CodeOptions:
    """What the command line says about a Python model; what is ``None`` or empty it leaves open."""

    arguments: Mapping[str, Value] = option(
        dict,
        Shown(
            "An argument; repeatable.",
            ("--arg",),
            metavar="KEY=VALUE",
            read=lambda texts: read_arguments(texts),
            kind=list[str],
        ),
    )
    path: str | None = option(None, Shown("Import from here; default .", metavar="DIR"))
    tensors: tuple[TensorSpec, ...] = option(
        (),
        Shown(
            "shape=32,64/dtype=float32 or shape=8,128/dtype=int64/high=1000, the batch first; "
            "once for each argument.",
            ("--input",),
            metavar="TENSOR",
            read=lambda texts: tuple(map(read_tensor, texts)),
            kind=list[str],
        ),
    )
    function: str | None = option(
        None,
        Shown(
            "It gives a tensor, a tuple of arguments, a dict of keywords, or (tuple, dict).",
            ("--inputs",),
            metavar="package.module:function",
        ),
    )
    train: bool | None = option(
        None, Shown("Default: as it was built.", ("--train-mode/--eval-mode",))
    )
    allow_code: bool = option(False, Shown("Run what a spec's model: names."))  # of a spec file
    loss: str | None = None

    def __post_init__(self) -> None:
        if self.tensors and self.function:
            raise InputError("--input and --inputs exclude each other")
        if self.function:
            split(self.function)

    @property
    def inputs(self) -> tuple[TensorSpec, ...] | str | None:
        """The tensors, or the name of the function that makes them."""
        return self.function or self.tensors or None

    @property
    def mode(self) -> str | None:
        """``train`` or ``eval``, where either is asked for."""
        return None if self.train is None else MODES[0 if self.train else 1]


def load(target: str, options: CodeOptions) -> CodeSpec:
    """The network that ``target`` names on the command line.

    Raises:
        InputError: an option does not fit.
    """
    name, path = resolved(target, options.path)
    split(name)
    return completed(CodeSpec(name, path=path, source=target), replace(options, path=None))


def resolved(target: str, path: str | None) -> tuple[str, str]:
    """``package.module:name`` and the folder to import it from, of a name or ``file.py:name``.

    A file's module is named from the folder above its packages, or from ``path`` where it is given.

    Raises:
        InputError: there is no such file, or Python cannot import a file of that name.
    """
    script = script_of(target)
    if script is None:
        return target, path or "."
    file, name = script
    if not os.path.isfile(file):
        raise InputError(f"there is no file {file}", hint=near_file(file, suffixes=(".py",)))
    root = Path(path) if path else file.parent
    while path is None and (root / "__init__.py").is_file() and root != root.parent:
        root = root.absolute().parent if root in (Path(), Path(".")) else root.parent
    try:
        inside = file.absolute().relative_to(root.absolute()).with_suffix("")
    except ValueError as error:
        raise InputError(f"{file} does not lie below --path {root}") from error
    module = ".".join(inside.parts[:-1] if inside.name == "__init__" else inside.parts)
    if not is_target(f"{module}:x"):
        raise InputError(f"{file} cannot be imported: '{module}' is no name of a module")
    return f"{module}:{name}", str(root)


def completed(code: CodeSpec, options: CodeOptions) -> CodeSpec:
    """``code`` with what the command line says about it, which goes before what a file says.

    Raises:
        InputError: there is no such folder.
    """
    code = replace(
        code,
        arguments={**code.arguments, **options.arguments},
        path=options.path or code.path,
        inputs=options.inputs or code.inputs,
        mode=options.mode or code.mode,
        loss=options.loss or code.loss,
    )
    require_allowed(code, options.allow_code)
    if not Path(code.path).is_dir():
        raise code.error(f"there is no folder {code.path} to import from", code.place)
    return code


def require_allowed(code: CodeSpec, allowed: bool) -> None:
    """Refuse what a spec file would run, unless code was allowed; a target was named to be run.

    Raises:
        InputError: at the spec's ``model:``.
    """
    if code.place is not None and not allowed:
        hint = "--allow-code runs it, in a process of its own: only where you trust the file"
        raise code.error(f"this spec runs code: {code.target}", code.place, hint)


def read_argument(text: str) -> tuple[str, Value]:
    """Name and value of ``--arg key=value``; the value is JSON, or read as a spec's.

    Raises:
        InputError: not of that form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise InputError(f"--arg: '{text}' is not of the form key=value")
    if not value:
        return key, ""
    if value[0] == "{":
        with contextlib.suppress(ValueError, RecursionError):
            return key, json.loads(value)
    document = Document(value.encode("utf-8", "replace"), f"--arg {key}")
    if isinstance(document.root, MappingNode):
        document.fail(f"{key}: not JSON", document.root, hint='a mapping is {"name": 1}')
    return key, document.plain(document.root, key)


def read_arguments(texts: Sequence[str]) -> dict[str, Value]:
    """The values of all ``--arg`` options by name.

    Raises:
        InputError: not of the form, or the same name twice.
    """
    arguments: dict[str, Value] = {}
    for key, value in map(read_argument, texts):
        if key in arguments:
            raise InputError(f"--arg: '{key}' is given twice")
        arguments[key] = value
    return arguments


def read_tensor(text: str) -> TensorSpec:
    """The tensor of ``--input shape=8,128/dtype=int64/high=1000``.

    Raises:
        InputError: not of that form, or out of range.
    """
    fields: dict[str, str] = {}
    for part in text.split("/"):
        key, equals, value = part.partition("=")
        if key not in ("shape", "dtype", "high") or not equals or key in fields:
            hint = suggestion(key, ("shape", "dtype", "high")) if equals else ""
            raise InputError(f"--input: cannot read '{part}'", hint=hint or _EXAMPLE)
        fields[key] = value
    if "shape" not in fields:
        raise InputError("--input: 'shape' is missing", hint=_EXAMPLE)
    sizes = [size.strip() for size in fields["shape"].split(",")]
    for number in (*sizes, *([fields["high"]] if "high" in fields else [])):
        if not re.fullmatch("[0-9]{1,10}", number) or not 1 <= int(number) <= MAX_SIZE:
            raise InputError(f"--input: '{number}' is no size (1 to {MAX_SIZE:,})", hint=_EXAMPLE)
    high = int(fields["high"]) if "high" in fields else None
    dtype = fields.get("dtype", "float32")
    choose("--input dtype", dtype, tuple(TENSOR_DTYPES))
    tensor = TensorSpec(tuple(map(int, sizes)), dtype, high)
    if wrong := misfit(tensor):
        raise InputError(f"--input: {wrong}")
    return tensor


def size_in_bytes(tensor: TensorSpec) -> int:
    """What the tensor takes in memory."""
    return math.prod(tensor.shape) * TENSOR_DTYPES[tensor.dtype]


def misfit(tensor: TensorSpec) -> str:
    """What is wrong with a tensor that is to be drawn; an empty string where nothing is."""
    if tensor.dtype in _INTEGERS and tensor.high is None:
        return f"{tensor.dtype} needs 'high': what is drawn lies between 0 and high - 1"
    if tensor.dtype not in _INTEGERS and tensor.high is not None:
        return f"'high' is for integers, not for {tensor.dtype}"
    if tensor.dtype == "uint8" and (tensor.high or 0) > 256:
        return f"uint8 holds 0 to 255, not {tensor.high} values"
    return ""


def read_model(document: Document, node: Node, loss: Node | None) -> CodeSpec:
    """The ``model:`` section of a spec file.

    Raises:
        InputError: at the place of what is wrong.
    """
    fields = document.mapping(node, "model", MODEL_KEYS)
    document.require(fields, ("target",), "model", node, "target: package.module:name")
    arguments = document.mapping(fields["args"], "args") if "args" in fields else {}
    mode = document.word(fields["mode"], "mode", MODES) if "mode" in fields else None
    folder = Path() if document.file.startswith("<") else Path(document.file).parent
    path = optional(document.string, fields, "path")
    return CodeSpec(
        target=_name(document, fields["target"], "target"),
        arguments={key: document.plain(value, key) for key, value in arguments.items()},
        path=str(folder / (path or ".")),
        inputs=_inputs(document, fields["inputs"]) if "inputs" in fields else None,
        mode=mode,
        loss=_loss(document, loss) if loss is not None else LOSSES[0],
        place=document.place(fields["target"]),
    )


def _name(document: Document, node: Node, what: str) -> str:
    name = document.string(node, what)
    if not is_target(name):
        document.fail(f"{what}: '{name}' is not of the form package.module:name", node)
    return name


def _loss(document: Document, node: Node) -> str:
    name = document.string(node, "loss")
    return name if is_target(name) else document.word(node, "loss", LOSSES)


def _inputs(document: Document, node: Node) -> tuple[TensorSpec, ...] | str:
    """One tensor, a list of them, or the name of the function that makes them."""
    if isinstance(node, SequenceNode):
        return tuple(_tensor(document, item) for item in document.sequence(node, "inputs"))
    if isinstance(node, ScalarNode):
        return _name(document, node, "inputs")
    return (_tensor(document, node),)


def _tensor(document: Document, node: Node) -> TensorSpec:
    fields = document.mapping(node, "inputs", ("shape", "dtype", "high"))
    document.require(fields, ("shape",), "inputs", node, "shape: [32, 64], batch included")
    sizes = document.sequence(fields["shape"], "shape")
    tensor = TensorSpec(
        shape=tuple(document.integer(size, "shape") for size in sizes),
        dtype=document.word(fields["dtype"], "dtype", tuple(TENSOR_DTYPES))
        if "dtype" in fields
        else "float32",
        high=optional(document.integer, fields, "high"),
    )
    if not sizes:
        document.fail("shape: the list is empty", fields["shape"])
    if wrong := misfit(tensor):
        document.fail(f"inputs: {wrong}", node)
    return tensor
