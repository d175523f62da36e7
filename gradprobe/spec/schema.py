"""The JSON Schema (draft-07) of a spec, made from the vocabulary's tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradprobe.spec.layers import LAYERS
from gradprobe.spec.vocabulary import (
    COMBINATORS,
    INITS,
    LOSSES,
    MAX_SIZE,
    MODES,
    TENSOR_DTYPES,
    THRESHOLDS,
    TYPES,
    Argument,
    arguments_of,
    layer_arguments,
)

_SIZE = {"type": "integer", "minimum": 1, "maximum": MAX_SIZE}
_LAYERS = {"$ref": "#/definitions/layers"}
_TARGET = {"type": "string", "pattern": r"^[^\s:.]+(\.[^\s:.]+)*:[^\s:.]+(\.[^\s:.]+)*$"}
_NAME = {"type": "string", "pattern": r"^(?![0-9]+$)[^.]+$"}


def spec_schema(rules: Sequence[str]) -> dict[str, Any]:
    """A schema that accepts what the parser accepts, as far as draft-07 can say it.

    Args:
        rules: the words by which a spec may name a rule.
    """
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "gradprobe network spec",
        # In layers, or as the Python code that builds it.
        "if": {"type": "object", "required": ["model"]},
        "then": _in_code(rules),
        "else": _in_layers(rules),
        "definitions": {
            "layers": {"type": "array", "minItems": 1, "items": {"$ref": "#/definitions/layer"}},
            "layer": _layer(),
            "init": _init(),
            "inits": {"type": "object", "additionalProperties": {"$ref": "#/definitions/init"}},
        },
    }


def _in_code(rules: Sequence[str]) -> dict[str, Any]:
    return _object(
        {
            "gradprobe": {"const": 1},
            "name": {"type": "string"},
            "model": _model(),
            "loss": {"anyOf": [{"enum": list(LOSSES)}, _TARGET]},
            "check": _check(rules),
        },
        ["model"],
    )


def _in_layers(rules: Sequence[str]) -> dict[str, Any]:
    return _object(
        {
            "gradprobe": {"const": 1},
            "name": {"type": "string"},
            "input": _object(
                {
                    "shape": {"type": "array", "items": _SIZE, "minItems": 1},
                    "tokens": _SIZE,
                    "batch_size": _SIZE,
                },
                ["shape"],
            ),
            "layers": _LAYERS,
            "loss": {"enum": list(LOSSES)},
            "init": _object({kind: {"$ref": "#/definitions/inits"} for kind in LAYERS}),
            "check": _check(rules),
        },
        ["input", "layers"],
    )


def _model() -> dict[str, Any]:
    scalar = {"type": ["null", "boolean", "number", "string"]}
    value = {"anyOf": [scalar, {"type": ["array", "object"]}]}
    tensor = _object(
        {
            "shape": {"type": "array", "items": _SIZE, "minItems": 1},
            "dtype": {"enum": list(TENSOR_DTYPES)},
            "high": _SIZE,
        },
        ["shape"],
    )
    return _object(
        {
            "target": _TARGET,
            "args": {"type": "object", "additionalProperties": value},
            "inputs": {"anyOf": [tensor, {"type": "array", "items": tensor}, _TARGET]},
            "path": {"type": "string"},
            "mode": {"enum": list(MODES)},
        },
        ["target"],
    )


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": required} if required else {})


def _one_key(properties: dict[str, Any]) -> dict[str, Any]:
    return _object(properties) | {"minProperties": 1, "maxProperties": 1}


def _layer() -> dict[str, Any]:
    bare = [kind for kind in LAYERS if not _required(layer_arguments(kind))]
    bodies: dict[str, Any] = {kind: _leaf(kind) for kind in LAYERS}
    bodies |= {kind: _combination(kind) for kind in COMBINATORS}
    return {"anyOf": [{"enum": bare}, _one_key(bodies)]}


def _leaf(kind: str) -> dict[str, Any]:
    arguments = layer_arguments(kind)
    inits: dict[str, Any] = {"$ref": "#/definitions/inits"}
    properties = _properties(arguments)
    properties["init"] = {"anyOf": [properties["init"], inits]} if "init" in properties else inits
    properties["name"] = _NAME
    required = _required(arguments)
    schema = _object(properties, required)
    # ``- Linear:`` with nothing behind it is a layer without arguments.
    return schema if required else {"anyOf": [{"type": "null"}, schema]}


def _combination(kind: str) -> dict[str, Any]:
    arguments = layer_arguments(kind)
    properties = _properties(arguments) | {"name": _NAME}
    if kind == "concat":
        inside: dict[str, Any] = {
            "type": "array",
            "minItems": 1,
            "items": {"type": "array", "items": {"$ref": "#/definitions/layer"}},
        }
        full = _object(properties | {"branches": inside}, ["branches"])
    else:
        inside = _LAYERS
        if kind == "residual":
            properties["shortcut"] = {"anyOf": [_LAYERS, {"$ref": "#/definitions/layer"}]}
        full = _object(properties | {"layers": inside}, ["layers", *_required(arguments)])
    return full if _required(arguments) else {"anyOf": [inside, full]}


def _check(rules: Sequence[str]) -> dict[str, Any]:
    limits = {key: {"type": "number", "exclusiveMinimum": 0} for key in THRESHOLDS}
    ignore = _object(
        {"rule": {"enum": list(rules)}, "reason": {"type": "string", "pattern": r"\S"}},
        ["rule", "reason"],
    )
    return _object({"thresholds": _object(limits), "ignore": {"type": "array", "items": ignore}})


def _init() -> dict[str, Any]:
    bare = [name for name, entry in INITS.items() if not _required(arguments_of(entry))]
    arguments = {name: arguments_of(entry) for name, entry in INITS.items()}
    bodies = {name: _object(_properties(a), _required(a)) for name, a in arguments.items()}
    return {"anyOf": [{"enum": bare}, _one_key(bodies)]}


def _properties(arguments: dict[str, Argument]) -> dict[str, Any]:
    return {name: _type(argument.types) for name, argument in arguments.items()}


def _type(types: tuple[str, ...]) -> dict[str, Any]:
    schemas = [TYPES[name].schema for name in types]
    return dict(schemas[0]) if len(schemas) == 1 else {"anyOf": schemas}


def _required(arguments: dict[str, Argument]) -> list[str]:
    return [name for name, argument in arguments.items() if argument.required]
