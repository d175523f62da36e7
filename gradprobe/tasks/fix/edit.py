"""Changes of a network, made in the text of its spec: the least text, every other byte kept.

PyYAML's nodes know where they begin and end. Each change becomes a few splices at such places; the
result is parsed again, and where it is not exactly the network that was meant, nothing is edited.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gradprobe.errors import InputError, Place
from gradprobe.spec.network import InitSpec, NetworkSpec, Value
from gradprobe.spec.sources.yaml import parse
from gradprobe.spec.vocabulary import COMBINATORS
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

_ANCHOR = re.compile(r"&\S+\s+")


class Span(NamedTuple):
    """Characters ``start`` to ``end`` of the text."""

    start: int
    end: int


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


class CannotEditError(Exception):
    """The file is written in a way in which this change cannot be made safely."""


def edit(text: str, spec: NetworkSpec, changes: Iterable[Change]) -> str:
    """``text``, from which ``spec`` was parsed, with the changes made in it.

    Raises:
        CannotEditError: it would not come out as exactly the network that the changes mean.
    """
    wanted = tuple(changes)
    try:
        edited = _Editor(text).edited(wanted)
        found = parse(edited.encode(), spec.source)
    except (InputError, LookupError, ValueError) as error:
        raise CannotEditError("the place of the change was not found in the text") from error
    if not same_network(found, apply(spec, wanted)):
        raise CannotEditError("anchors, or an unusual layout, stand in the way")
    return edited


class _Loader(yaml.SafeLoader):
    """Remembers where each alias stands: its node is the one that it repeats."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.aliases: dict[tuple[int, int], Span] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            span = Span(_start(event), _stop(event))
            self.aliases[id(parent), index if isinstance(index, int) else id(index)] = span
        return super().compose_node(parent, index)


class _Layer(NamedTuple):
    """A layer in the text: the node of its kind, and of what follows, if anything does."""

    kind: Node
    body: Node | None


class _Editor:
    def __init__(self, text: str) -> None:
        self.text = text
        self.eol = "\r\n" if "\r\n" in text else "\n"
        loader = _Loader(text)
        self.root = cast(MappingNode, loader.get_single_node())
        self.aliases = loader.aliases
        self.fields = {key.value: (key, value) for key, value in self.root.value}
        self.layers: dict[tuple[int, int], _Layer] = {}
        self.lists: dict[tuple[int, int] | None, SequenceNode] = {}
        self._find_list(self.fields["layers"][1], None)

    def edited(self, changes: tuple[Change, ...]) -> str:
        splices: dict[Splice, None] = {}  # in order; what an alias repeats is edited once
        shifts: list[Shift] = []
        for change in changes:
            new, shift = _EDITS[type(change)](self, change)
            splices |= dict.fromkeys(new)
            shifts += [shift] if shift else []
        splices |= dict.fromkeys(s for shift in shifts for s in self._indented(shift))
        text = self.text
        # From the end; where two begin alike, what replaces comes before what is put in front.
        for splice in sorted(splices, key=lambda s: (s.start, s.end), reverse=True):
            around = [shift for shift in shifts if shift.start <= splice.start <= shift.end]
            inside = sum(shift.by for shift in around) if splice.follows else 0
            fresh = splice.text.replace(self.eol, self.eol + " " * inside)
            text = text[: splice.start] + fresh + text[splice.end :]
        return text

    # ---- the layers of the text, by line and column of their kind

    def _find_list(self, node: Node, owner: tuple[int, int] | None, first: bool = True) -> None:
        assert isinstance(node, SequenceNode)
        if first:
            self.lists[owner] = node
        for item in node.value:
            self._find_layer(item)

    def _find_layer(self, node: Node) -> None:
        if isinstance(node, ScalarNode):
            self.layers[_position(node)] = _Layer(node, None)
            return
        assert isinstance(node, MappingNode)
        [(kind, body)] = node.value
        self.layers[_position(kind)] = _Layer(kind, body)
        if kind.value not in COMBINATORS:
            return
        inside = {"layers": body} if isinstance(body, SequenceNode) else _values(body)
        if kind.value == "concat":
            branches = body if isinstance(body, SequenceNode) else inside["branches"]
            for index, branch in enumerate(branches.value):
                self._find_list(branch, _position(kind), index == 0)
            return
        self._find_list(inside["layers"], _position(kind))
        shortcut = inside.get("shortcut")
        if isinstance(shortcut, SequenceNode):
            self._find_list(shortcut, None, first=False)
        elif shortcut is not None:
            self._find_layer(shortcut)

    def layer(self, place: Place) -> _Layer:
        return self.layers[place.line, place.column]

    def list_of(self, owner: Place | None) -> SequenceNode:
        return self.lists[(owner.line, owner.column) if owner else None]

    # ---- where things begin and end

    def span(self, parent: Node, index: int | Node, node: Node) -> Span:
        """Where ``node`` stands as a child of ``parent``, its anchor included."""
        key = (id(parent), index if isinstance(index, int) else id(index))
        return self.aliases.get(key) or Span(_start(node), self._end(node))

    def item(self, sequence: SequenceNode, index: int) -> Span:
        return self.span(sequence, index, sequence.value[index])

    def _end(self, node: Node) -> int:
        """The end of its last character: PyYAML ends a block where the next token begins."""
        bracket = self.text[self._content(node)] in "[{"
        if isinstance(node, ScalarNode) or bracket or not node.value:
            return _stop(node)
        if isinstance(node, SequenceNode):
            return self.item(node, len(node.value) - 1).end
        key, value = node.value[-1]
        return max(self.span(node, key, value).end, _stop(key) + 1)

    def _content(self, node: Node) -> int:
        """Where a node begins, behind its anchor."""
        start = _start(node)
        anchor = _ANCHOR.match(self.text, start)
        return anchor.end() if anchor else start

    def column(self, offset: int) -> int:
        return offset - self._line_start(offset)

    def _line_start(self, offset: int) -> int:
        return self.text.rfind("\n", 0, offset) + 1

    def dash(self, sequence: SequenceNode, index: int) -> int:
        """Where the ``-`` of an item of a block list stands."""
        start = self.item(sequence, index).start
        dash = self.text.rindex("-", self._line_start(start), start)
        if self.text[dash + 1 : start].strip():
            raise CannotEditError("an item does not stand behind its dash")
        return dash

    def lines(self, indent: int, *lines: str) -> str:
        """Lines, each followed by the indentation of the next."""
        return "".join(line + self.eol + " " * indent for line in lines)

    def _indented(self, shift: Shift) -> Iterator[Splice]:
        line = self.text.find("\n", shift.start, shift.end) + 1
        while line:
            if self.text[line : shift.end].split("\n")[0].strip():
                yield Splice(line, line, " " * shift.by)
            line = self.text.find("\n", line, shift.end) + 1

    # ---- one method for each kind of change

    def wrap(self, change: Wrap) -> tuple[list[Splice], Shift | None]:
        sequence = self.list_of(change.owner)
        first, last = self.item(sequence, change.start), self.item(sequence, change.stop - 1)
        arguments = [f"{key}: {_scalar(value)}" for key, value in change.arguments.items()]
        if sequence.flow_style:
            head = f"residual: {{{', '.join(arguments)}, layers: [" if arguments else "residual: ["
            head += f"{change.norm}, " if change.norm else ""
            tail = "]}" if arguments else "]"
            return [Splice(first.start, first.start, head), Splice(last.end, last.end, tail)], None
        dash = self.dash(sequence, change.start)
        indent = self.column(dash) + 4
        head = "- residual:" + self.eol + " " * indent
        if arguments:
            head += self.lines(indent, *arguments)
            indent += 2
            head += self.lines(indent, "layers:")
        head += self.lines(indent, f"- {change.norm}") if change.norm else ""
        return [Splice(dash, dash, head, False)], Shift(dash, last.end, indent - self.column(dash))

    def insert(self, change: Insert) -> tuple[list[Splice], Shift | None]:
        sequence = self.list_of(change.owner)
        if sequence.flow_style:
            start = self.item(sequence, change.at).start
            return [Splice(start, start, f"{change.kind}, ")], None
        dash = self.dash(sequence, change.at)
        return [Splice(dash, dash, self.lines(self.column(dash), f"- {change.kind}"))], None

    def rename(self, change: Rename) -> tuple[list[Splice], Shift | None]:
        kind = self.layer(change.place).kind
        return [Splice(self._content(kind), _stop(kind), change.kind)], None

    def set_arguments(self, change: SetArguments) -> tuple[list[Splice], Shift | None]:
        layer = self.layer(change.place)
        texts = {key: _scalar(value) for key, value in change.arguments.items()}
        if isinstance(layer.body, MappingNode):
            return self._entries(layer.body, texts), None
        assert isinstance(layer.body, SequenceNode)
        arguments = [f"{key}: {value}" for key, value in texts.items()]
        if layer.body.flow_style:
            start, end = _start(layer.body), _stop(layer.body)
            head = f"{{{', '.join(arguments)}, layers: "
            return [Splice(start, start, head), Splice(end, end, "}")], None
        dash = self.dash(layer.body, 0)
        indent = max(self.column(dash), layer.kind.start_mark.column + 2)
        shift = indent + 2 - self.column(dash)
        head = " " * (indent - self.column(dash)) + self.lines(indent, *arguments)
        head += "layers:" + self.eol + " " * (indent + 2)
        end = self.item(layer.body, len(layer.body.value) - 1).end
        return [Splice(dash, dash, head, False)], Shift(dash, end, shift)

    def set_init(self, change: SetInit) -> tuple[list[Splice], Shift | None]:
        body = self.layer(change.place).body
        return self._entries(_values(body)["init"], _init_texts(change.init)), None

    def set_class_init(self, change: SetClassInit) -> tuple[list[Splice], Shift | None]:
        texts = {kind: _init_texts(inits) for kind, inits in change.init.items()}
        fresh = {kind: f"{{{_pairs(inits)}}}" for kind, inits in texts.items()}
        if "init" in self.fields:
            section = self.fields["init"][1]
            known = _values(section)
            splices = self._entries(section, {k: t for k, t in fresh.items() if k not in known})
            for kind in texts.keys() & known.keys():
                splices += self._entries(known[kind], texts[kind])
            return splices, None
        start = _start(self.fields["layers"][0])
        if self.text[self._content(self.root)] == "{":
            return [Splice(start, start, f"init: {{{_pairs(fresh)}}}, ")], None
        indent = self.column(start)
        section = [f"  {kind}: {text}" for kind, text in fresh.items()]
        lines = [section[0], *(" " * indent + line for line in section[1:])]
        head = "init:" + self.eol + " " * indent + self.eol.join(lines)
        return [Splice(start, start, head + self.eol + " " * indent)], None

    def _entries(self, mapping: Node, texts: Mapping[str, str]) -> list[Splice]:
        """New values for keys that a mapping has, and new keys in front of its first."""
        assert isinstance(mapping, MappingNode)
        known = {key.value: (key, value) for key, value in mapping.value}
        splices = [
            self._value(mapping, *known[name], text)
            for name, text in texts.items()
            if name in known
        ]
        fresh = {name: text for name, text in texts.items() if name not in known}
        if not fresh:
            return splices
        start = _start(mapping.value[0][0])
        if self.text[self._content(mapping)] == "{":
            return [*splices, Splice(start, start, f"{_pairs(fresh)}, ")]
        lines = [f"{name}: {text}" for name, text in fresh.items()]
        return [*splices, Splice(start, start, self.lines(self.column(start), *lines))]

    def _value(self, mapping: Node, key: Node, value: Node, text: str) -> Splice:
        """A value replaced; one that stands on lines of its own moves up behind its key."""
        span = self.span(mapping, key, value)
        start = self._content(value) if span.start == _start(value) else span.start
        colon = self.text.index(":", _stop(key))
        if "\n" in self.text[colon:start]:
            return Splice(colon + 1, span.end, f" {text}")
        return Splice(start, span.end, text)


_EDITS: dict[type, Callable[[_Editor, Any], tuple[list[Splice], Shift | None]]] = {
    Wrap: _Editor.wrap,
    Insert: _Editor.insert,
    Rename: _Editor.rename,
    SetArguments: _Editor.set_arguments,
    SetInit: _Editor.set_init,
    SetClassInit: _Editor.set_class_init,
}


def _start(thing: Any) -> int:
    """The character at which a node or an event begins."""
    return int(thing.start_mark.index)


def _stop(thing: Any) -> int:
    return int(thing.end_mark.index)


def _position(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _values(mapping: Any) -> dict[str, Any]:
    return {key.value: value for key, value in mapping.value}


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
