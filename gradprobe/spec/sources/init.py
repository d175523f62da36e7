"""Initialisations and arguments in YAML → ``InitSpec`` and values."""

from __future__ import annotations

from collections.abc import Mapping

from yaml.nodes import MappingNode, Node

from gradprobe.errors import suggestion
from gradprobe.spec.layers import LAYERS
from gradprobe.spec.network import InitSpec, Value
from gradprobe.spec.sources.nodes import Document, describe
from gradprobe.spec.vocabulary import INITS, Argument, arguments_of


def parse_init(text: str) -> InitSpec:
    """The initialisation that ``--init`` names: ``kaiming_normal``, ``{normal: {std: 0.05}}``."""
    document = Document(text.encode("utf-8", "replace"), "--init")
    return _init(document, document.root, "--init")


# ---- sections


def read_arguments(
    document: Document, kind: str, known: Mapping[str, Argument], fields: Mapping[str, Node]
) -> dict[str, Value]:
    return {
        key: document.value(node, f"{kind} {key}", known[key].types) for key, node in fields.items()
    }


def class_inits(document: Document, node: Node) -> dict[str, Mapping[str, InitSpec]]:
    inits: dict[str, Mapping[str, InitSpec]] = {}
    for kind, (key_node, body) in document.items(node, "init").items():
        if kind not in LAYERS:
            hint = suggestion(kind, LAYERS)
            document.fail(f"init: unknown layer '{kind}'", key_node, hint=hint)
        inits[kind] = parameter_inits(document, body)
    return inits


def parameter_inits(document: Document, node: Node) -> dict[str, InitSpec]:
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
    known = arguments_of(INITS[name])
    fields = {} if body is None else document.mapping(body, name, known)
    arguments = read_arguments(document, name, known, fields)
    for argument in known.values():
        if argument.required and argument.name not in arguments:
            document.fail(f"{name}: '{argument.name}' is missing", name_node)
    return InitSpec(name, arguments, document.place(name_node))
