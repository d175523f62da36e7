"""The bytes of a YAML file → whether it is a spec of gradprobe's, or somebody else's."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gradprobe.errors import InputError, suggestion
from gradprobe.files import SPEC_SUFFIXES
from gradprobe.spec.layers import LAYERS
from gradprobe.spec.network import is_target
from gradprobe.spec.sources.nodes import Document
from gradprobe.spec.sources.python import MODEL_KEYS
from gradprobe.spec.sources.yaml import TOP_LEVEL
from gradprobe.spec.vocabulary import COMBINATORS

_NAMED = tuple(f".gradprobe{suffix}" for suffix in SPEC_SUFFIXES)
_SCHEMA = re.compile(rb"(\xef\xbb\xbf)?\s*#\s*yaml-language-server\s*:\s*\$schema=\S*gradprobe")
_MARK = re.compile(rb"^(\xef\xbb\xbf)?gradprobe\s*:\s*1\s*(#.*)?\r?$", re.M)
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")  # what ends the reading of any YAML
_CODE = re.compile(rb"\btarget[\"']?\s*:\s*[\"']?[\w.]+:[\w.]+")
_WORDS = (b"layers", b"model", b"gradprobe")


def is_spec(name: str, data: bytes) -> bool:
    """Whether a file says that it is a spec, or cannot be anything else.

    It says so by its name, by the schema in its first line, or by ``gradprobe: 1``. Another file is
    a spec where its whole top level is the language's own: an ``input`` with a shape and a list of
    ``layers``, or a ``model`` with the target of a spec that names code.
    """
    if name.endswith(_NAMED) or _SCHEMA.match(data) or _MARK.search(data):
        return True
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return b"layers" in data.replace(b"\0", b"")
    if not any(word in data for word in _WORDS):
        return False
    try:
        root = Document(data, name).root
        return isinstance(root, MappingNode) and _speaks(_fields(root))
    except InputError:  # what came before the error decides
        keys = _keys_before_error(data)
        code = "model" in keys and names_code(data)
        return ("layers" in keys or code) and _own(keys)


def names_code(data: bytes) -> bool:
    """Whether the bytes of a spec look as if they named code."""
    return _CODE.search(data) is not None


def _fields(node: Node) -> dict[str, Node]:
    pairs = node.value if isinstance(node, MappingNode) else []
    return {str(key.value): value for key, value in pairs}


def _own(keys: set[str]) -> bool:
    """Whether each key is a word of the language's top level, or one misspelt."""
    return all(key in TOP_LEVEL or suggestion(key, TOP_LEVEL) for key in keys)


def _speaks(fields: Mapping[str, Node]) -> bool:
    if "gradprobe" in fields:
        return str(getattr(fields["gradprobe"], "value", "")).isdecimal()  # a later language too
    if not _own(set(fields)):
        return False
    if "model" in fields:
        model = _fields(fields["model"])
        target = getattr(model.get("target"), "value", None)
        return set(model) <= set(MODEL_KEYS) and isinstance(target, str) and is_target(target)
    layers = fields.get("layers")
    shaped = "input" in fields and "shape" in _fields(fields["input"])
    return shaped and isinstance(layers, SequenceNode) and any(map(_is_layer, layers.value))


def _is_layer(node: Node) -> bool:
    """Whether the language has this layer, or one that is spelt nearly so."""
    known = (*LAYERS, *COMBINATORS)
    words = [node.value] if isinstance(node, ScalarNode) else list(_fields(node))
    return len(words) == 1 and (words[0] in known or bool(suggestion(words[0], known)))


def _keys_before_error(data: bytes) -> set[str]:
    """The keys of the outermost mapping, up to where the file is no YAML; none where it has tags,
    which a spec has not."""
    depth, keys, count = 0, set(), 0
    try:
        text = _CONTROL.split(data.decode("utf-8", "replace"), maxsplit=1)[0]
        for event in yaml.parse(text, yaml.SafeLoader):
            if getattr(event, "tag", None) is not None:
                return set()
            if isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif depth == 1:
                if count % 2 == 0 and isinstance(event, yaml.ScalarEvent):
                    keys.add(event.value)
                count += 1
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
    except (yaml.YAMLError, ValueError, RecursionError):
        pass
    return keys
