"""Bytes → a tree of YAML nodes that is safe to walk, and the reading of typed scalars from it.

PyYAML resolves ``yes`` to true, ``017`` to 15 and ``1:30`` to 90, keeps the last of two equal keys
and lets a few hundred bytes of aliases expand to gigabytes. So: the events are walked first with
limits on their number, depth and expansion, and each scalar is read by the type its field wants.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gradprobe.errors import InputError, Place, located, suggestion
from gradprobe.spec.network import MAX_DEPTH, Value
from gradprobe.spec.vocabulary import MAX_SIZE, TYPES

T = TypeVar("T")

MAX_BYTES = 1 << 20
MAX_NODES = 20_000  # with every alias expanded
_SHORT = 1 << 16  # characters of a text that is read twice to explain what is wrong
MAX_NUMBER = 1e30  # of a plain number in a spec, either sign

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_DIGITS = re.compile(r"[-+]?[0-9][0-9_]*|0[xob][0-9a-fA-F_]+")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAMES: dict[type[Node], str] = {MappingNode: "a mapping", SequenceNode: "a list"}


class _Extent(NamedTuple):
    """How much an anchor stands for: its nodes, aliases expanded, and how deep they nest."""

    nodes: int
    depth: int


class Document:
    """One YAML document: its root node, and errors that know the file and the line."""

    def __init__(self, data: bytes, file: str) -> None:
        self.file = file
        self.lines: tuple[str, ...] = ()
        text = self._decode(data)
        self.lines = tuple(text.splitlines())
        try:
            root = self._tree(text)
        except yaml.MarkedYAMLError as error:
            unclosed = any(word in (error.context or "") for word in ("flow", "quoted"))
            mark = error.context_mark if unclosed else error.problem_mark
            self.fail(self._explain(error), mark=mark)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
            self.fail(f"not valid YAML: {str(error).splitlines()[0]}")
        if root is None or (isinstance(root, ScalarNode) and root.value == "" and not root.style):
            self.fail("the spec is empty")
        self.root: Node = root

    def _tree(self, text: str) -> Node | None:
        """By libyaml, which is fast; a short text with an error again by Python, which says more.

        Raises:
            YAMLError: not YAML.
        """
        fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            self._walk_events(fast(text))
            return cast("Node | None", fast(text).get_single_node())
        except yaml.YAMLError:
            if len(text) > _SHORT:
                raise
        self._walk_events(yaml.SafeLoader(text))
        return yaml.SafeLoader(text).get_single_node()

    # ---- errors

    def place(self, node: Node) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def fail(
        self, message: str, node: Node | None = None, *, mark: Any = None, hint: str = ""
    ) -> NoReturn:
        mark = mark if node is None else node.start_mark
        place = Place(self.file, mark.line + 1, mark.column + 1) if mark else Place(self.file, 1)
        raise located(message, place, self.lines, hint)

    @staticmethod
    def _explain(error: yaml.MarkedYAMLError) -> str:
        problem = error.problem or "not valid YAML"
        if "'\\t'" in problem:
            return "a tab cannot indent YAML: use spaces"
        if error.context and "flow" in error.context:
            return f"this bracket is not closed ({problem})"
        if error.context and "quoted" in error.context and "end of stream" in problem:
            return "this quote is not closed"
        return problem

    # ---- from bytes to events

    def _decode(self, data: bytes) -> str:
        if len(data) > MAX_BYTES:
            self.fail("the file is too large: a spec has at most 1 MiB")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            offset = error.start
            byte = f"byte 0x{data[offset]:02x} at byte offset {offset}"
            self._fail_after(data[:offset].decode("utf-8-sig", "ignore"), f"not UTF-8: {byte}")
        if bad := _FORBIDDEN.search(text):
            offset = len(text[: bad.start()].encode()) + (3 if data[:3] == b"\xef\xbb\xbf" else 0)
            code = f"U+{ord(bad[0]):04X}"
            message = f"the control character {code} at byte offset {offset} is not allowed"
            self._fail_after(text[: bad.start()], message)
        return text

    def _fail_after(self, before: str, message: str) -> NoReturn:
        """Fail at the place where the text ``before`` ends."""
        lines = before.split("\n")
        raise InputError(message, place=Place(self.file, len(lines), len(lines[-1]) + 1))

    def _walk_events(self, loader: Any) -> None:
        """Limits on count, depth and expansion; no tags, no second document, no undefined alias."""
        extents: dict[str, _Extent] = {}  # of each anchor
        opened: list[tuple[str | None, int, int]] = []  # anchor, nodes before it, depth inside it
        count = documents = 0
        while loader.check_event():
            event = loader.get_event()
            deep = 0  # below the collections that are open
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.fail("a second document starts here: a spec is one", mark=event.start_mark)
            elif isinstance(event, yaml.AliasEvent):
                if any(anchor == event.anchor for anchor, _, _ in opened):
                    self.fail(f"alias '{event.anchor}' contains itself", mark=event.start_mark)
                if event.anchor not in extents:
                    self.fail(f"undefined alias '{event.anchor}'", mark=event.start_mark)
                count += extents[event.anchor].nodes
                deep = extents[event.anchor].depth
            elif isinstance(event, yaml.NodeEvent):
                count += 1
                self._refuse_tag(event)
                if isinstance(event, yaml.CollectionStartEvent):
                    opened.append((event.anchor, count - 1, 0))
                elif event.anchor is not None:
                    extents[event.anchor] = _Extent(1, 0)
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before, inside = opened.pop()
                deep = inside + 1
                if anchor is not None:
                    extents[anchor] = _Extent(count - before, deep)
            if opened and deep > opened[-1][2]:
                opened[-1] = (*opened[-1][:2], deep)
            if len(opened) + deep > MAX_DEPTH:
                self.fail(f"nested more than {MAX_DEPTH} deep", mark=event.start_mark)
            if count > MAX_NODES:
                what = f"more than {MAX_NODES:,} nodes, aliases expanded"
                self.fail(f"the spec is too large: {what}", mark=event.start_mark)

    def _refuse_tag(self, event: yaml.NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            self.fail(f"unsupported tag '{shown}': a spec has none", mark=event.start_mark)

    # ---- collections

    def mapping(self, node: Node, what: str, keys: Iterable[str] | None = None) -> dict[str, Node]:
        """The values of a mapping by key; with ``keys``, any other key is an error."""
        return {key: value for key, (_, value) in self.items(node, what, keys).items()}

    def items(
        self, node: Node, what: str, keys: Iterable[str] | None = None
    ) -> dict[str, tuple[Node, Node]]:
        """Like ``mapping``, with the key's node beside the value's."""
        if not isinstance(node, MappingNode):
            self.fail(f"{what}: expected a mapping, found {describe(node)}", node)
        pairs: dict[str, tuple[Node, Node]] = {}
        names = None if keys is None else list(keys)
        for key_node, value in node.value:
            if not isinstance(key_node, ScalarNode):
                self.fail(f"{what}: a key must be a word, found {describe(key_node)}", key_node)
            key = key_node.value
            if key == "<<" and not key_node.style:
                self.fail("merge keys ('<<') are not supported", key_node)
            if key in pairs:
                first = pairs[key][0].start_mark.line + 1
                line = key_node.start_mark.line + 1
                self.fail(f"'{key}' stands twice: on line {first} and on line {line}", key_node)
            if names is not None and key not in names:
                hint = suggestion(key, names) or f"known: {', '.join(names)}"
                self.fail(f"{what}: unknown key '{key}'", key_node, hint=hint)
            pairs[key] = (key_node, value)
        return pairs

    def require(
        self, fields: Mapping[str, Node], keys: Iterable[str], what: str, node: Node, hint: str = ""
    ) -> None:
        """Fail at ``node`` where one of ``keys`` is not among the fields."""
        for key in keys:
            if key not in fields:
                self.fail(f"{what}: '{key}' is missing", node, hint=hint)

    def sequence(self, node: Node, what: str) -> list[Node]:
        if not isinstance(node, SequenceNode):
            self.fail(f"{what}: expected a list, found {describe(node)}", node)
        return list(node.value)

    # ---- scalars, each read by the type that its field wants

    def value(self, node: Node, what: str, types: tuple[str, ...]) -> Value:
        """The value of ``node`` as the first of ``types`` that it fits (``vocabulary.TYPES``)."""
        if isinstance(node, SequenceNode):
            for name in types:
                if name in _LISTS:
                    if not node.value:
                        self.fail(f"{what}: the list is empty", node)
                    return tuple(self.value(item, what, (_LISTS[name],)) for item in node.value)
        scalar_types = [name for name in types if name in _READERS]
        if isinstance(node, ScalarNode):
            # What looks like none of them is refused as what is wanted most, which is never null.
            likely = [name for name in scalar_types if _looks_like(node, name)]
            likely += sorted(scalar_types, key=lambda name: name == "null")
            if likely:
                return _READERS[likely[0]](self, node, what)
        wanted = " or ".join(TYPES[name].words for name in types)
        self.fail(f"{what}: expected {wanted}, found {describe(node)}", node)

    def string(self, node: Node, what: str) -> str:
        """A string; a plain word that YAML would read as something else must be quoted."""
        if not isinstance(node, ScalarNode):
            self.fail(f"{what}: expected a string, found {describe(node)}", node)
        if node.tag != "tag:yaml.org,2002:str":
            hint = f"quote it to mean the word: '{node.value}'"
            self.fail(f"{what}: expected a string, found {describe(node)}", node, hint=hint)
        return str(node.value)

    def integer(self, node: Node, what: str, low: int = 1, high: int = MAX_SIZE) -> int:
        """A plain decimal integer in [low, high]."""
        text = node.value if isinstance(node, ScalarNode) and not node.style else None
        if text is None or not _INTEGER.fullmatch(text):
            if text is not None and _DIGITS.fullmatch(text):
                self.fail(f"{what}: '{text}' is ambiguous: write a plain decimal integer", node)
            self.fail(f"{what}: expected an integer, found {describe(node)}", node)
        if len(text) > 20 or not low <= int(text) <= high:
            shown = text if len(text) <= 20 else f"an integer of {len(text)} digits"
            self.fail(f"{what}: {shown} is out of range ({low:,} to {high:,})", node)
        return int(text)

    def number(self, node: Node, what: str) -> float:
        """A finite number; ``1e-3`` is one."""
        text = node.value if isinstance(node, ScalarNode) and not node.style else ""
        if re.fullmatch(r"[-+]?\.(inf|nan)", text, re.IGNORECASE):
            self.fail(f"{what}: must be finite, found '{text}'", node)
        if re.match(r"[-+]?0[0-9]", text):
            self.fail(f"{what}: '{text}' is ambiguous: write it without the leading zero", node)
        if not _NUMBER.fullmatch(text):
            self.fail(f"{what}: expected a number, found {describe(node)}", node)
        value = float(text)
        if not math.isfinite(value) or abs(value) > MAX_NUMBER:
            self.fail(f"{what}: must be finite and at most {MAX_NUMBER:g}, found '{text}'", node)
        return value

    def boolean(self, node: Node, what: str) -> bool:
        """Exactly ``true`` or ``false``."""
        if isinstance(node, ScalarNode) and not node.style and node.value in ("true", "false"):
            return bool(node.value == "true")
        self.fail(f"{what}: expected true or false, found {describe(node)}", node)

    def word(self, node: Node, what: str, words: Sequence[str]) -> str:
        """One of ``words``."""
        word = self.string(node, what)
        if word not in words:
            hint = suggestion(word, words) or f"known: {', '.join(words)}"
            self.fail(f"{what}: unknown {what} '{word}'", node, hint=hint)
        return word

    def plain(self, node: Node, what: str) -> Value:
        """A value whose type nobody states, by its form: null, boolean, number, string, list or
        mapping.

        Only what reads one way is taken: ``yes``, ``017`` and dates must be quoted.
        """
        if isinstance(node, SequenceNode):
            return tuple(self.plain(item, what) for item in node.value)
        if isinstance(node, MappingNode):
            return {key: self.plain(item, key) for key, item in self.mapping(node, what).items()}
        if isinstance(node, ScalarNode) and not node.style and _INTEGER.fullmatch(node.value):
            return self.integer(node, what, -(2**63), 2**63 - 1)
        return self.value(node, what, ("null", "bool", "float", "str"))

    def null(self, node: Node, what: str) -> None:
        if not _looks_like(node, "null"):
            self.fail(f"{what}: expected null, found {describe(node)}", node)


def optional(read: Callable[[Node, str], T], fields: Mapping[str, Node], key: str) -> T | None:
    """The field ``key`` as ``read`` reads it; ``None`` where it is left out."""
    return read(fields[key], key) if key in fields else None


_LISTS = {"sizes": "size", "counts": "count", "ints": "int", "floats": "float"}
_READERS: dict[str, Callable[[Document, Node, str], Value]] = {
    "size": lambda document, node, what: document.integer(node, what, 1),
    "count": lambda document, node, what: document.integer(node, what, 0),
    "int": lambda document, node, what: document.integer(node, what, -MAX_SIZE),
    "float": Document.number,
    "bool": Document.boolean,
    "str": Document.string,
    "null": Document.null,
}


def _looks_like(node: Node, name: str) -> bool:
    if not isinstance(node, ScalarNode) or node.style:
        return name == "str" and isinstance(node, ScalarNode)
    if name == "null":
        return node.value in ("null", "~", "")
    if name == "bool":
        return node.value in ("true", "false")
    number = bool(re.match(r"[-+.]?[0-9]|[-+]?\.(inf|nan)", node.value, re.IGNORECASE))
    return not number if name == "str" else number


def describe(node: Node) -> str:
    """What a node is, in a few words, for an error message."""
    if isinstance(node, ScalarNode):
        text = node.value if len(node.value) <= 30 else node.value[:29] + "…"
        return f"the string '{text}'" if node.style else (f"'{text}'" if text else "nothing")
    return _NAMES[type(node)]
