"""The text of a spec → where its layers, lists and entries stand in it, to the character."""

from __future__ import annotations

import re
from typing import Any, NamedTuple, cast

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gradprobe.errors import Place
from gradprobe.spec.vocabulary import COMBINATORS

_ANCHOR = re.compile(r"&\S+\s+")


class CannotEditError(Exception):
    """The file is written in a way in which this change cannot be made safely."""


class Span(NamedTuple):
    """Characters ``start`` to ``end`` of the text."""

    start: int
    end: int


class LayerText(NamedTuple):
    """A layer in the text: the node of its kind, and of what follows, if anything does."""

    kind: Node
    body: Node | None


class _Loader(yaml.SafeLoader):
    """Remembers where each alias stands: its node is the one that it repeats."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.aliases: dict[tuple[int, int], Span] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self.aliases[_child(parent, index)] = Span(start_of(event), end_of(event))
        return super().compose_node(parent, index)


class Layout:
    """A spec's text with the nodes that PyYAML finds in it.

    Raises:
        LookupError, ValueError: a layer or list is not where a spec has it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.eol = "\r\n" if "\r\n" in text else "\n"
        loader = _Loader(text)
        self.root = cast(MappingNode, loader.get_single_node())
        self._aliases = loader.aliases
        self.fields = {key.value: (key, value) for key, value in self.root.value}
        self._layers: dict[tuple[int, int], LayerText] = {}
        self._lists: dict[tuple[int, int] | None, SequenceNode] = {}
        self._find_list(self.fields["layers"][1], None)

    # ---- the layers of the text, by line and column of their kind

    def layer(self, place: Place) -> LayerText:
        """The layer whose kind stands at ``place``."""
        return self._layers[place.line, place.column]

    def list_of(self, owner: Place | None) -> SequenceNode:
        """The first list of layers inside ``owner``, or the network's own."""
        return self._lists[(owner.line, owner.column) if owner else None]

    def _find_list(self, node: Node, owner: tuple[int, int] | None, first: bool = True) -> None:
        assert isinstance(node, SequenceNode)
        if first:
            self._lists[owner] = node
        for item in node.value:
            self._find_layer(item)

    def _find_layer(self, node: Node) -> None:
        if isinstance(node, ScalarNode):
            self._layers[_position(node)] = LayerText(node, None)
            return
        assert isinstance(node, MappingNode)
        [(kind, body)] = node.value
        self._layers[_position(kind)] = LayerText(kind, body)
        if kind.value not in COMBINATORS:
            return
        inside = {"layers": body} if isinstance(body, SequenceNode) else values_of(body)
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

    # ---- where things begin and end

    def span(self, parent: Node, index: int | Node, node: Node) -> Span:
        """Where ``node`` stands as a child of ``parent``, its anchor included."""
        return self._aliases.get(_child(parent, index)) or Span(start_of(node), self._end(node))

    def item(self, sequence: SequenceNode, index: int) -> Span:
        """Where an item of a list stands, without its dash."""
        return self.span(sequence, index, sequence.value[index])

    def _end(self, node: Node) -> int:
        """The end of its last character: PyYAML ends a block where the next token begins."""
        if isinstance(node, ScalarNode) or self.is_flow(node) or not node.value:
            return end_of(node)
        if isinstance(node, SequenceNode):
            return self.item(node, len(node.value) - 1).end
        key, value = node.value[-1]
        return max(self.span(node, key, value).end, end_of(key) + 1)

    def content(self, node: Node) -> int:
        """Where a node begins, behind its anchor."""
        start = start_of(node)
        anchor = _ANCHOR.match(self.text, start)
        return anchor.end() if anchor else start

    def is_flow(self, node: Node) -> bool:
        """Whether a list or mapping stands in brackets."""
        return self.text[self.content(node)] in "[{"

    def column(self, offset: int) -> int:
        """How many characters of its line stand in front of a character."""
        return offset - self._line_start(offset)

    def _line_start(self, offset: int) -> int:
        return self.text.rfind("\n", 0, offset) + 1

    def dash(self, sequence: SequenceNode, index: int) -> int:
        """Where the ``-`` of an item of a block list stands.

        Raises:
            CannotEditError: something else stands between the two.
        """
        start = self.item(sequence, index).start
        dash = self.text.rindex("-", self._line_start(start), start)
        if self.text[dash + 1 : start].strip():
            raise CannotEditError("an item does not stand behind its dash")
        return dash

    def lines(self, indent: int, *lines: str) -> str:
        """Lines, each followed by the indentation of the next."""
        return "".join(line + self.eol + " " * indent for line in lines)


def start_of(thing: Any) -> int:
    """The character at which a node or an event begins."""
    return int(thing.start_mark.index)


def end_of(thing: Any) -> int:
    """The character behind a node or an event."""
    return int(thing.end_mark.index)


def values_of(mapping: Any) -> dict[str, Any]:
    """The values of a mapping by the text of their keys."""
    return {key.value: value for key, value in mapping.value}


def _position(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _child(parent: Any, index: Any) -> tuple[int, int]:
    """What tells a child of a node apart: its number in a list, its key in a mapping."""
    return id(parent), index if isinstance(index, int) else id(index)
