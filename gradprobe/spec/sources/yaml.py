"""A spec in YAML → ``NetworkSpec``. Runs no code and imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gradprobe.errors import InputError, suggestion
from gradprobe.files import near_file
from gradprobe.spec.layers import LAYERS
from gradprobe.spec.network import (
    CheckSpec,
    CodeSpec,
    Ignore,
    InitSpec,
    InputSpec,
    LayerSpec,
    NetworkSpec,
    check_layer_count,
)
from gradprobe.spec.options import ascending
from gradprobe.spec.sources.init import class_inits, parameter_inits, read_arguments
from gradprobe.spec.sources.nodes import MAX_BYTES, Document, describe
from gradprobe.spec.sources.python import read_model
from gradprobe.spec.vocabulary import (
    COMBINATORS,
    LOSSES,
    THRESHOLDS,
    layer_arguments,
)

TOP_LEVEL = ("name", "input", "layers", "loss", "init", "check", "model")
_OF_LAYERS = ("input", "layers", "init")  # what ``model`` stands in place of


def load(target: str) -> NetworkSpec:
    """The network of a spec file, or of standard input where ``target`` is ``-``.

    Raises:
        InputError: no such file, not a spec, or one that names code; with file, line and column.
    """
    return parse(*_read(target))


def load_or_code(target: str) -> NetworkSpec | CodeSpec:
    """Like ``load``, for those that can run the code that a spec may name."""
    return parse_any(*_read(target))


def _read(target: str) -> tuple[bytes, str]:
    return read_bytes(target), "<stdin>" if target == "-" else target


def read_bytes(target: str) -> bytes:
    """At most one byte more than a spec may have, so that the parser can refuse the rest."""
    if target == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    if not target:
        raise InputError("the target is empty: name a spec file, -, plain or residual")
    path = Path(target)
    try:
        if path.is_dir():
            raise InputError(f"{target} is a directory: name a spec file in it")
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        hint = near_file(path, "plain", "residual")
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot read {target}: {reason}", hint=hint) from error
    except ValueError as error:  # a NUL in the name
        raise InputError(f"cannot read {target!r}: {error}") from error


def parse(data: bytes, file: str) -> NetworkSpec:
    """The network that ``data`` describes; ``file`` is the name that errors carry.

    Raises:
        InputError: not a spec.
    """
    spec = parse_any(data, file)
    if isinstance(spec, CodeSpec):
        hint = "gradprobe probe --allow-code runs it, in a process of its own"
        raise spec.error(f"this spec runs code: {spec.target}", spec.place, hint)
    return spec


def parse_any(data: bytes, file: str) -> NetworkSpec | CodeSpec:
    """The network that ``data`` describes in layers, or as the code that builds it.

    Raises:
        InputError: not a spec.
    """
    document = Document(data, file)
    fields = document.mapping(document.root, "spec", TOP_LEVEL)
    if "model" in fields:
        return _code(document, fields)
    for required in ("input", "layers"):
        if required not in fields:
            document.fail(f"the spec has no '{required}'", document.root)
    loss = document.word(fields["loss"], "loss", LOSSES) if "loss" in fields else LOSSES[0]
    spec = NetworkSpec(
        input=_input(document, fields["input"]),
        layers=_layers(document, fields["layers"], "layers"),
        name=document.string(fields["name"], "name") if "name" in fields else None,
        loss=loss,
        init=class_inits(document, fields["init"]) if "init" in fields else {},
        check=_check(document, fields["check"]) if "check" in fields else CheckSpec(),
        source=file,
        lines=document.lines,
    )
    check_layer_count(spec)
    return spec


def _code(document: Document, fields: dict[str, Node]) -> CodeSpec:
    for key in _OF_LAYERS:
        if key in fields:
            document.fail(f"'{key}' and 'model' exclude each other", fields[key])
    code = read_model(document, fields["model"], fields.get("loss"))
    return replace(
        code,
        name=document.string(fields["name"], "name") if "name" in fields else None,
        check=_check(document, fields["check"]) if "check" in fields else CheckSpec(),
        source=document.file,
        lines=document.lines,
    )


def _input(document: Document, node: Node) -> InputSpec:
    fields = document.mapping(node, "input", ("shape", "tokens", "batch_size"))
    if "shape" not in fields:
        document.fail("input: 'shape' is missing", node, hint="shape: [64] is one sample, no batch")
    sizes = document.sequence(fields["shape"], "input shape")
    if not sizes:
        document.fail("input shape: the list is empty", fields["shape"])
    optional = {
        key: document.integer(fields[key], f"input {key}") if key in fields else None
        for key in ("tokens", "batch_size")
    }
    return InputSpec(
        shape=tuple(document.integer(size, "input shape") for size in sizes),
        tokens=optional["tokens"],
        batch_size=optional["batch_size"],
        place=document.place(node),
    )


def _check(document: Document, node: Node) -> CheckSpec:
    fields = document.mapping(node, "check", ("thresholds", "ignore"))
    thresholds: dict[str, float] = {}
    if "thresholds" in fields:
        limits = document.mapping(fields["thresholds"], "thresholds", THRESHOLDS)
        for key, value in limits.items():
            thresholds[key] = document.number(value, key)
            if thresholds[key] <= 0:
                document.fail(f"{key}: must be greater than 0", value)
        merged = THRESHOLDS | thresholds
        if not ascending(merged):
            order = " ≤ ".join(f"{key} {merged[key]:g}" for key in THRESHOLDS)
            document.fail(f"thresholds: must ascend: {order}", fields["thresholds"])
    ignores = []
    for item in document.sequence(fields["ignore"], "ignore") if "ignore" in fields else []:
        entry = document.mapping(item, "ignore", ("rule", "reason"))
        for key in ("rule", "reason"):
            if key not in entry:
                document.fail(f"ignore: '{key}' is missing", item)
        rule, reason = (document.string(entry[key], key) for key in ("rule", "reason"))
        if not reason.strip():
            document.fail("ignore: the reason is empty", entry["reason"])
        places = (document.place(item), document.place(entry["rule"]))
        ignores.append(Ignore(rule, reason, *places))
    return CheckSpec(thresholds=thresholds, ignore=tuple(ignores))


# ---- layers


def _layers(document: Document, node: Node, what: str) -> tuple[LayerSpec, ...]:
    items = document.sequence(node, what)
    if not items:
        document.fail(f"{what}: the list is empty", node)
    layers = tuple(_layer(document, item) for item in items)
    names: set[str | None] = set()
    for layer, item in zip(layers, items, strict=True):
        if layer.name is not None and layer.name in names:
            document.fail(f"two layers are named '{layer.name}'", item)
        names.add(layer.name)
    return layers


def _layer(document: Document, node: Node) -> LayerSpec:
    kind_node, body = node, None
    if isinstance(node, ScalarNode):
        kind = node.value
    elif isinstance(node, MappingNode) and len(node.value) == 1:
        [(kind, (kind_node, body))] = document.items(node, "layer").items()
    else:
        found = describe(node)
        if isinstance(node, MappingNode):
            found = f"{len(node.value)} keys"
        hint = "a layer is a name, or one name with its arguments: Linear: {out_features: 64}"
        document.fail(f"layer: expected one layer, found {found}", node, hint=hint)
    if kind in LAYERS:
        return _leaf(document, kind, kind_node, body)
    if kind in COMBINATORS:
        if body is None:
            document.fail(f"{kind}: the layers inside are missing", kind_node)
        return (_concat if kind == "concat" else _combined)(document, kind, kind_node, body)
    known = (*LAYERS, *COMBINATORS)
    hint = suggestion(kind, known) or "a layer is a torch.nn class that takes one tensor"
    document.fail(f"unknown layer '{kind}'", kind_node, hint=hint)


def _leaf(document: Document, kind: str, kind_node: Node, body: Node | None) -> LayerSpec:
    if body is None or (isinstance(body, ScalarNode) and body.value == "" and not body.style):
        fields: dict[str, Node] = {}
    else:
        fields = document.mapping(body, kind, (*layer_arguments(kind), "init", "name"))
    known = layer_arguments(kind)
    init: Mapping[str, InitSpec] = {}
    # PReLU alone has an argument of torch's own that is called init, and it is a number.
    if "init" in fields and ("init" not in known or isinstance(fields["init"], MappingNode)):
        init = parameter_inits(document, fields.pop("init"))
    name = _name(document, fields)
    arguments = read_arguments(document, kind, known, fields)
    for argument in known.values():
        if argument.required and argument.name not in arguments:
            document.fail(f"{kind}: '{argument.name}' is missing", kind_node)
    if arguments.get("batch_first") is False:
        document.fail(f"{kind}: here the batch always comes first", fields["batch_first"])
    return LayerSpec(kind, arguments, init=init, name=name, place=document.place(kind_node))


def _name(document: Document, fields: dict[str, Node]) -> str | None:
    if "name" not in fields:
        return None
    node = fields.pop("name")
    name = document.string(node, "name")
    if not name or name.isdigit() or "." in name:
        document.fail("name: must not be empty, a number or contain a dot", node)
    return name


def _combined(document: Document, kind: str, kind_node: Node, body: Node) -> LayerSpec:
    """``kind: [layers]``, or ``kind: {layers: […], …}`` with further keys."""
    known = layer_arguments(kind)
    if isinstance(body, SequenceNode):
        fields: dict[str, Node] = {"layers": body}
    else:
        inside = ("layers", "shortcut") if kind == "residual" else ("layers",)
        fields = document.mapping(body, kind, (*inside, *known, "name"))
    if "layers" not in fields:
        document.fail(f"{kind}: 'layers' is missing", kind_node)
    branches = [_layers(document, fields.pop("layers"), f"{kind} layers")]
    if "shortcut" in fields:
        shortcut = fields.pop("shortcut")
        if isinstance(shortcut, SequenceNode):
            branches.append(_layers(document, shortcut, "shortcut"))
        else:
            branches.append((_layer(document, shortcut),))
    name = _name(document, fields)
    arguments = read_arguments(document, kind, known, fields)
    for argument in known.values():
        if argument.required and argument.name not in arguments:
            hint = "repeat: {times: 24, layers: […]}" if kind == "repeat" else ""
            document.fail(f"{kind}: '{argument.name}' is missing", kind_node, hint=hint)
    place = document.place(kind_node)
    return LayerSpec(kind, arguments, tuple(branches), name=name, place=place)


def _concat(document: Document, kind: str, kind_node: Node, body: Node) -> LayerSpec:
    """``concat: [[layers], [layers]]``, or ``{branches: [[…], […]], dim: 1}``."""
    known = layer_arguments(kind)
    if isinstance(body, SequenceNode):
        fields: dict[str, Node] = {"branches": body}
    else:
        fields = document.mapping(body, kind, ("branches", *known, "name"))
    if "branches" not in fields:
        document.fail(f"{kind}: 'branches' is missing", kind_node)
    items = document.sequence(fields.pop("branches"), kind)
    if not items:
        document.fail(f"{kind}: the list is empty", body)
    branches = tuple(
        # an empty branch hands its input on: DenseNet's [x, F(x)]
        () if isinstance(item, SequenceNode) and not item.value else _layers(document, item, kind)
        for item in items
    )
    name = _name(document, fields)
    arguments = read_arguments(document, kind, known, fields)
    return LayerSpec(kind, arguments, branches, name=name, place=document.place(kind_node))
