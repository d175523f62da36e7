"""A spec in YAML → ``NetworkSpec``. Runs no code and imports no torch."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gradprobe.errors import InputError, suggestion
from gradprobe.files import near_file, read_start
from gradprobe.spec.layers import LAYERS
from gradprobe.spec.network import (
    CheckSpec,
    CodeSpec,
    Ignore,
    InitSpec,
    InputSpec,
    LayerSpec,
    NetworkSpec,
    Value,
    check_layer_count,
)
from gradprobe.spec.options import misordered
from gradprobe.spec.sources.nodes import MAX_BYTES, Document, describe, optional
from gradprobe.spec.sources.python import read_model
from gradprobe.spec.vocabulary import (
    COMBINATORS,
    INITS,
    LOSSES,
    THRESHOLDS,
    Argument,
    arguments_of,
    layer_arguments,
)

TOP_LEVEL = ("gradprobe", "name", "input", "layers", "loss", "init", "check", "model")
VERSION = 1  # of the language: what ``gradprobe:`` may say
_OF_LAYERS = ("input", "layers", "init")  # what ``model`` stands in place of


def load(target: str) -> NetworkSpec:
    """The network of a spec file, or of standard input where ``target`` is ``-``.

    Raises:
        InputError: no such file, not a spec, or one that names code; with file, line and column.
    """
    return parse(read_bytes(target), _file(target))


def load_or_code(target: str) -> NetworkSpec | CodeSpec:
    """Like ``load``, for those that can run the code that a spec may name."""
    return parse_any(read_bytes(target), _file(target))


def _file(target: str) -> str:
    return "<stdin>" if target == "-" else target


def read_bytes(target: str) -> bytes:
    """At most one byte more than a spec may have, so that the parser can refuse the rest."""
    if target == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    if not target:
        raise InputError("the target is empty: name a spec file, -, plain or residual")
    path = Path(target)
    try:
        if path.is_dir():
            hint = f"gradprobe check {shlex.quote(target)} checks every spec below it"
            raise InputError(f"{target} is a directory: name a spec file in it", hint=hint)
        return read_start(path, MAX_BYTES + 1)
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
    if "gradprobe" in fields:
        document.integer(fields["gradprobe"], "gradprobe", VERSION, VERSION)
    if "model" in fields:
        return _code(document, fields)
    for required in ("input", "layers"):
        if required not in fields:
            document.fail(f"the spec has no '{required}'", document.root)
    loss = document.word(fields["loss"], "loss", LOSSES) if "loss" in fields else LOSSES[0]
    spec = NetworkSpec(
        input=_input(document, fields["input"]),
        layers=_layers(document, fields["layers"], "layers"),
        name=optional(document.string, fields, "name"),
        loss=loss,
        init=_class_inits(document, fields["init"]) if "init" in fields else {},
        check=_check(document, fields["check"]) if "check" in fields else CheckSpec(),
        source=file,
        lines=document.lines,
    )
    check_layer_count(spec)
    return spec


def parse_init(text: str) -> InitSpec:
    """The initialisation that ``--init`` names: ``kaiming_normal``, ``{normal: {std: 0.05}}``."""
    document = Document(text.encode("utf-8", "replace"), "--init")
    return _init(document, document.root, "--init")


def _code(document: Document, fields: dict[str, Node]) -> CodeSpec:
    for key in _OF_LAYERS:
        if key in fields:
            document.fail(f"'{key}' and 'model' exclude each other", fields[key])
    code = read_model(document, fields["model"], fields.get("loss"))
    return replace(
        code,
        name=optional(document.string, fields, "name"),
        check=_check(document, fields["check"]) if "check" in fields else CheckSpec(),
        source=document.file,
        lines=document.lines,
    )


def _input(document: Document, node: Node) -> InputSpec:
    fields = document.mapping(node, "input", ("shape", "tokens", "batch_size"))
    hint = "shape: [64] is one sample, no batch"
    document.require(fields, ("shape",), "input", node, hint)
    sizes = document.sequence(fields["shape"], "input shape")
    if not sizes:
        document.fail("input shape: the list is empty", fields["shape"])
    counts = {
        key: document.integer(fields[key], f"input {key}") if key in fields else None
        for key in ("tokens", "batch_size")
    }
    return InputSpec(
        shape=tuple(document.integer(size, "input shape") for size in sizes),
        tokens=counts["tokens"],
        batch_size=counts["batch_size"],
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
        if wrong := misordered(THRESHOLDS | thresholds):
            document.fail(wrong, fields["thresholds"])
    ignores = []
    for item in document.sequence(fields["ignore"], "ignore") if "ignore" in fields else []:
        entry = document.mapping(item, "ignore", ("rule", "reason"))
        document.require(entry, ("rule", "reason"), "ignore", item)
        rule, reason = (document.string(entry[key], key) for key in ("rule", "reason"))
        if not reason.strip():
            document.fail("ignore: the reason is empty", entry["reason"])
        places = (document.place(item), document.place(entry["rule"]))
        ignores.append(Ignore(rule, reason, *places))
    return CheckSpec(thresholds=thresholds, ignore=tuple(ignores))


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
        content = f"{len(node.value)} keys" if isinstance(node, MappingNode) else describe(node)
        hint = "a layer is a name, or one name with its arguments: Linear: {out_features: 64}"
        document.fail(f"layer: expected one layer, found {content}", node, hint=hint)
    if kind in LAYERS:
        return _leaf(document, kind, kind_node, body)
    if kind in COMBINATORS:
        if body is None:
            document.fail(f"{kind}: the layers inside are missing", kind_node)
        return _combined(document, kind, kind_node, body)
    hint = (
        suggestion(kind, (*LAYERS, *COMBINATORS))
        or "a layer is a torch.nn class that takes one tensor"
    )
    document.fail(f"unknown layer '{kind}'", kind_node, hint=hint)


def _leaf(document: Document, kind: str, kind_node: Node, body: Node | None) -> LayerSpec:
    signature = layer_arguments(kind)
    fields: dict[str, Node] = {}
    if body is not None and not (isinstance(body, ScalarNode) and not (body.value or body.style)):
        fields = document.mapping(body, kind, (*signature, "init", "name"))
    init: Mapping[str, InitSpec] = {}
    # PReLU alone has an argument of torch's own that is called init, and it is a number.
    if "init" in fields and ("init" not in signature or isinstance(fields["init"], MappingNode)):
        init = _parameter_inits(document, fields.pop("init"))
    name = _name(document, fields)
    arguments = _arguments(document, kind, kind_node, signature, fields)
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
    """``kind: [layers]``, or ``kind: {layers: […], …}``; a ``concat`` has ``branches`` instead."""
    signature = layer_arguments(kind)
    key = "branches" if kind == "concat" else "layers"
    if isinstance(body, SequenceNode):
        fields: dict[str, Node] = {key: body}
    else:
        inside = (key, "shortcut") if kind == "residual" else (key,)
        fields = document.mapping(body, kind, (*inside, *signature, "name"))
    if key not in fields:
        document.fail(f"{kind}: '{key}' is missing", kind_node)
    if kind == "concat":
        branches = _branches(document, fields.pop(key), body)
    else:
        branches = [_layers(document, fields.pop(key), f"{kind} layers")]
    if "shortcut" in fields:
        shortcut = fields.pop("shortcut")
        if isinstance(shortcut, SequenceNode):
            branches.append(_layers(document, shortcut, "shortcut"))
        else:
            branches.append((_layer(document, shortcut),))
    name = _name(document, fields)
    hint = "repeat: {times: 24, layers: […]}" if kind == "repeat" else ""
    arguments = _arguments(document, kind, kind_node, signature, fields, hint)
    place = document.place(kind_node)
    return LayerSpec(kind, arguments, tuple(branches), name=name, place=place)


def _branches(document: Document, node: Node, body: Node) -> list[tuple[LayerSpec, ...]]:
    """The branches of a ``concat``; an empty one hands its input on: DenseNet's [x, F(x)]."""
    items = document.sequence(node, "concat")
    if not items:
        document.fail("concat: the list is empty", body)
    return [
        ()
        if isinstance(item, SequenceNode) and not item.value
        else _layers(document, item, "concat")
        for item in items
    ]


def _arguments(
    document: Document,
    kind: str,
    kind_node: Node,
    signature: Mapping[str, Argument],
    fields: Mapping[str, Node],
    hint: str = "",
) -> dict[str, Value]:
    """The arguments in ``fields``, of which none that is required may be missing."""
    arguments = {
        key: document.value(node, f"{kind} {key}", signature[key].types)
        for key, node in fields.items()
    }
    required = [argument.name for argument in signature.values() if argument.required]
    document.require(fields, required, kind, kind_node, hint)
    return arguments


def _class_inits(document: Document, node: Node) -> dict[str, Mapping[str, InitSpec]]:
    inits: dict[str, Mapping[str, InitSpec]] = {}
    for kind, (key_node, body) in document.items(node, "init").items():
        if kind not in LAYERS:
            hint = suggestion(kind, LAYERS)
            document.fail(f"init: unknown layer '{kind}'", key_node, hint=hint)
        inits[kind] = _parameter_inits(document, body)
    return inits


def _parameter_inits(document: Document, node: Node) -> dict[str, InitSpec]:
    if not isinstance(node, MappingNode):
        hint = "init: {weight: kaiming_normal, bias: zeros}"
        document.fail(f"init: expected a mapping, found {describe(node)}", node, hint=hint)
    return {key: _init(document, body, key) for key, body in document.mapping(node, "init").items()}


def _init(document: Document, node: Node, what: str) -> InitSpec:
    if isinstance(node, MappingNode) and len(node.value) == 1:
        [(name, (name_node, body))] = document.items(node, what).items()
    else:
        name, name_node, body = document.string(node, what), node, None
    if name not in INITS:
        hint = suggestion(name, INITS) or f"known: {', '.join(INITS)}"
        document.fail(f"{what}: unknown initialisation '{name}'", name_node, hint=hint)
    signature = arguments_of(INITS[name])
    fields = {} if body is None else document.mapping(body, name, signature)
    arguments = _arguments(document, name, name_node, signature, fields)
    return InitSpec(name, arguments, document.place(name_node))
