"""``NetworkSpec`` → YAML that reads back as the same network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from gradprobe.errors import InputError, printable
from gradprobe.spec.network import ArchitectureSpec, CodeSpec, InitSpec, LayerSpec, NetworkSpec


def render_target(target: NetworkSpec | CodeSpec | ArchitectureSpec) -> str:
    """What ``--emit-spec`` prints of a target.

    Raises:
        InputError: no spec describes it.
    """
    if isinstance(target, CodeSpec):
        raise InputError(f"--emit-spec: {target.source} is code, which no spec describes")
    if isinstance(target, ArchitectureSpec):
        raise InputError("--emit-spec prints a spec, and this is no spec")
    return render_spec(target)


def render_spec(spec: NetworkSpec) -> str:
    """The spec as a YAML file."""
    body: dict[str, Any] = {"name": spec.name} if spec.name else {}
    body["input"] = {"shape": list(spec.input.shape)}
    for key in ("tokens", "batch_size"):
        value = getattr(spec.input, key)
        if value is not None:
            body["input"][key] = value
    if spec.init:
        body["init"] = {kind: _inits(inits) for kind, inits in spec.init.items()}
    body["layers"] = list(map(_layer, spec.layers))
    body["loss"] = spec.loss
    if spec.check.thresholds or spec.check.ignore:
        ignore = [{"rule": i.rule, "reason": i.reason} for i in spec.check.ignore]
        body["check"] = {"thresholds": dict(spec.check.thresholds), "ignore": ignore}
    text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=100)
    if all(printable(line) == line for line in text.splitlines()):
        return text
    return yaml.safe_dump(body, sort_keys=False, width=100)  # ASCII: the rest as escapes


def _layer(layer: LayerSpec) -> Any:
    body = {key: _plain(value) for key, value in layer.arguments.items()}
    if layer.kind == "concat":
        body["branches"] = [list(map(_layer, branch)) for branch in layer.branches]
    elif layer.branches:
        body["layers"] = list(map(_layer, layer.branches[0]))
        if len(layer.branches) > 1:
            body["shortcut"] = list(map(_layer, layer.branches[1]))
    if layer.init:
        body["init"] = _inits(layer.init)
    if layer.name is not None:
        body["name"] = layer.name
    if list(body) == ["layers"]:
        return {layer.kind: body["layers"]}
    return {layer.kind: body} if body else layer.kind


def _inits(inits: Mapping[str, InitSpec]) -> dict[str, Any]:
    return {
        key: {i.name: {k: _plain(v) for k, v in i.arguments.items()}} if i.arguments else i.name
        for key, i in inits.items()
    }


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
