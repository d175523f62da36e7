"""Changes of a network, made in the text of its spec: the least text, every other byte kept.

Each change becomes a few splices at places that the layout of the text knows; the result is parsed
again, and where it is not exactly the network that was meant, nothing is edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from yaml.nodes import MappingNode, Node, SequenceNode

from gradprobe.errors import InputError
from gradprobe.spec.network import InitSpec, NetworkSpec, Value
from gradprobe.spec.sources.yaml import parse
from gradprobe.tasks.fix.changes import (
    Change,
    Insert,
    Rename,
    SetArguments,
    SetClassInit,
    SetInit,
    Wrap,
    apply,
    same_network,
)
from gradprobe.tasks.fix.layout import CannotEditError, Layout, end_of, start_of, values_of


class Splice(NamedTuple):
    """``text`` instead of characters ``start`` to ``end``.

    ``follows``: its own lines are indented with those of the ``Shift`` that they stand in; the
    text that makes a shift necessary is not.
    """

    start: int
    end: int
    text: str
    follows: bool = True


class Shift(NamedTuple):
    """Lines that begin after ``start`` and before ``end`` are to be indented by ``by`` more."""

    start: int
    end: int
    by: int


Edits: TypeAlias = "list[Splice | Shift]"


def edit(text: str, spec: NetworkSpec, changes: Iterable[Change]) -> str:
    """``text``, from which ``spec`` was parsed, with the changes made in it.

    Raises:
        CannotEditError: it would not come out as exactly the network that the changes mean.
    """
    changes = tuple(changes)
    try:
        edited = _edited(Layout(text), changes)
        network = parse(edited.encode(), spec.source)
    except (InputError, LookupError, ValueError) as error:
        raise CannotEditError("the place of the change was not found in the text") from error
    if not same_network(network, apply(spec, changes)):
        raise CannotEditError("anchors, or an unusual layout, stand in the way")
    return edited


def _edited(layout: Layout, changes: Iterable[Change]) -> str:
    # What an alias repeats is edited once: a dictionary keeps the order and no duplicates.
    edits = dict.fromkeys(e for change in changes for e in _EDITS[type(change)](layout, change))
    shifts = [each for each in edits if isinstance(each, Shift)]
    splices = dict.fromkeys(each for each in edits if isinstance(each, Splice))
    splices |= dict.fromkeys(s for shift in shifts for s in _indented(layout.text, shift))
    text, eol = layout.text, layout.eol
    # From the end; where two begin alike, what replaces comes before what is put in front.
    for splice in sorted(splices, key=lambda s: (s.start, s.end), reverse=True):
        around = [shift for shift in shifts if shift.start <= splice.start <= shift.end]
        inside = sum(shift.by for shift in around) if splice.follows else 0
        fresh = splice.text.replace(eol, eol + " " * inside)
        text = text[: splice.start] + fresh + text[splice.end :]
    return text


def _indented(text: str, shift: Shift) -> Iterator[Splice]:
    line = text.find("\n", shift.start, shift.end) + 1
    while line:
        if text[line : shift.end].split("\n")[0].strip():
            yield Splice(line, line, " " * shift.by)
        line = text.find("\n", line, shift.end) + 1


# ---- one function for each kind of change


def _wrap(layout: Layout, change: Wrap) -> Edits:
    sequence = layout.list_of(change.owner)
    first, last = layout.item(sequence, change.start), layout.item(sequence, change.stop - 1)
    arguments = [f"{key}: {_scalar(value)}" for key, value in change.arguments.items()]
    if sequence.flow_style:
        head = f"residual: {{{', '.join(arguments)}, layers: [" if arguments else "residual: ["
        head += f"{change.norm}, " if change.norm else ""
        tail = "]}" if arguments else "]"
        return [Splice(first.start, first.start, head), Splice(last.end, last.end, tail)]
    dash = layout.dash(sequence, change.start)
    indent = layout.column(dash) + 4
    head = layout.lines(indent, "- residual:")
    if arguments:
        head += layout.lines(indent, *arguments)
        indent += 2
        head += layout.lines(indent, "layers:")
    head += layout.lines(indent, f"- {change.norm}") if change.norm else ""
    return [Splice(dash, dash, head, False), Shift(dash, last.end, indent - layout.column(dash))]


def _insert(layout: Layout, change: Insert) -> Edits:
    sequence = layout.list_of(change.owner)
    if sequence.flow_style:
        start = layout.item(sequence, change.at).start
        return [Splice(start, start, f"{change.kind}, ")]
    dash = layout.dash(sequence, change.at)
    return [Splice(dash, dash, layout.lines(layout.column(dash), f"- {change.kind}"))]


def _rename(layout: Layout, change: Rename) -> Edits:
    kind = layout.layer(change.place).kind
    return [Splice(layout.content(kind), end_of(kind), change.kind)]


def _set_arguments(layout: Layout, change: SetArguments) -> Edits:
    kind, body = layout.layer(change.place)
    texts = {key: _scalar(value) for key, value in change.arguments.items()}
    if isinstance(body, MappingNode):
        return _entries(layout, body, texts)
    assert isinstance(body, SequenceNode)
    if body.flow_style:
        start, end = start_of(body), end_of(body)
        return [Splice(start, start, f"{{{_pairs(texts)}, layers: "), Splice(end, end, "}")]
    dash = layout.dash(body, 0)
    column = layout.column(dash)
    indent = max(column, kind.start_mark.column + 2)
    arguments = [f"{key}: {text}" for key, text in texts.items()]
    head = " " * (indent - column) + layout.lines(indent, *arguments)
    head += layout.lines(indent + 2, "layers:")
    end = layout.item(body, len(body.value) - 1).end
    return [Splice(dash, dash, head, False), Shift(dash, end, indent + 2 - column)]


def _set_init(layout: Layout, change: SetInit) -> Edits:
    body = layout.layer(change.place).body
    return _entries(layout, values_of(body)["init"], _init_texts(change.init))


def _set_class_init(layout: Layout, change: SetClassInit) -> Edits:
    texts = {kind: _init_texts(inits) for kind, inits in change.init.items()}
    fresh = {kind: f"{{{_pairs(inits)}}}" for kind, inits in texts.items()}
    if "init" in layout.fields:
        section = layout.fields["init"][1]
        present = values_of(section)
        absent = {kind: text for kind, text in fresh.items() if kind not in present}
        edits = _entries(layout, section, absent)
        for kind in texts.keys() & present.keys():
            edits += _entries(layout, present[kind], texts[kind])
        return edits
    start = start_of(layout.fields["layers"][0])
    if layout.is_flow(layout.root):
        return [Splice(start, start, f"init: {{{_pairs(fresh)}}}, ")]
    lines = ["init:", *(f"  {kind}: {text}" for kind, text in fresh.items())]
    return [Splice(start, start, layout.lines(layout.column(start), *lines))]


_EDITS: dict[type, Callable[[Layout, Any], Edits]] = {
    Wrap: _wrap,
    Insert: _insert,
    Rename: _rename,
    SetArguments: _set_arguments,
    SetInit: _set_init,
    SetClassInit: _set_class_init,
}


def _entries(layout: Layout, mapping: Node, texts: Mapping[str, str]) -> Edits:
    """New values for keys that a mapping has, and new keys in front of its first."""
    assert isinstance(mapping, MappingNode)
    keys = {key.value: (key, value) for key, value in mapping.value}
    edits: Edits = [
        _value(layout, mapping, *keys[name], text) for name, text in texts.items() if name in keys
    ]
    fresh = {name: text for name, text in texts.items() if name not in keys}
    if not fresh:
        return edits
    start = start_of(mapping.value[0][0])
    if layout.is_flow(mapping):
        return [*edits, Splice(start, start, f"{_pairs(fresh)}, ")]
    lines = [f"{name}: {text}" for name, text in fresh.items()]
    return [*edits, Splice(start, start, layout.lines(layout.column(start), *lines))]


def _value(layout: Layout, mapping: Node, key: Node, value: Node, text: str) -> Splice:
    """A value replaced; one that stands on lines of its own moves up behind its key."""
    span = layout.span(mapping, key, value)
    start = layout.content(value) if span.start == start_of(value) else span.start
    colon = layout.text.index(":", end_of(key))
    if "\n" in layout.text[colon:start]:
        return Splice(colon + 1, span.end, f" {text}")
    return Splice(start, span.end, text)


# ---- values as a spec writes them


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _init_texts(inits: Mapping[str, InitSpec]) -> dict[str, str]:
    return {key: _init_text(init) for key, init in inits.items()}


def _init_text(init: InitSpec) -> str:
    if not init.arguments:
        return init.name
    inside = _pairs({key: _scalar(value) for key, value in init.arguments.items()})
    return f"{{{init.name}: {{{inside}}}}}"


def _pairs(texts: Mapping[str, str]) -> str:
    return ", ".join(f"{key}: {text}" for key, text in texts.items())
