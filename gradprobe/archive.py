"""Measured values ↔ JSON text, exactly: every double comes back as it was, NaN and infinity too.

For the cache and for what a child process hands back. Not for users: their JSON, which has no NaN,
is ``render/json.py``. Decoding believes nothing: what is not of the shape that was written is a
``ValueError``, and nothing but plain values is ever built from it.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, NamedTuple, TypeVar

from gradprobe.report import GradientProfile
from gradprobe.spec import CheckSpec

T = TypeVar("T")


class Measurement(NamedTuple):
    """One probe of one target, with what is needed to judge it without reading the target again."""

    profile: GradientProfile
    name: str | None  # what the spec calls the network
    check: CheckSpec  # the spec's own section
    config: Mapping[str, bool | int | float | str | None]  # what the probe was told, resolved


def encode(value: object) -> str:
    """A value type as one line of JSON (Python's dialect, which has NaN and Infinity)."""
    return json.dumps(_plain(value), separators=(",", ":"))


def decode(kind: type[T], text: str) -> T:
    """The value of type ``kind`` that ``encode`` made ``text`` of.

    Raises:
        ValueError: it did not.
    """
    try:
        found = _typed(kind, json.loads(text))
    except (TypeError, KeyError, IndexError, RecursionError, AttributeError) as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from error
    assert isinstance(found, kind)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return [_plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):  # a NamedTuple too
        return [_plain(one) for one in value]
    return value


def _typed(kind: Any, value: Any) -> Any:
    """``value`` as a ``kind``, which may be a record, a tuple, a mapping, a union or a scalar."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _one_of(inside, value)
    if origin is tuple:
        _demand(isinstance(value, list), kind, value)
        return tuple([_typed(inside[0], one) for one in value])
    if origin is not None and issubclass(origin, Mapping):
        _demand(isinstance(value, dict), kind, value)
        return {key: _typed(inside[1], one) for key, one in value.items()}
    if issubclass(kind, Enum):
        return kind(value)
    if members := _members(kind):
        _demand(isinstance(value, list) and len(value) == len(members), kind, value)
        return kind(*[_typed(one, part) for one, part in zip(members, value, strict=True)])
    if kind is float and type(value) is int:
        value = float(value)
    _demand(type(value) is kind, kind, value)
    return value


def _one_of(kinds: Sequence[Any], value: Any) -> Any:
    if value is None:
        _demand(types.NoneType in kinds, kinds, value)
        return None
    left = [kind for kind in kinds if kind is not types.NoneType]
    exact = [kind for kind in left if kind is type(value)]
    return _typed(exact[0] if exact else left[-1], value)


@cache
def _members(kind: type) -> tuple[Any, ...]:
    """The types of a record's fields, in order; none where it is no record."""
    if not (is_dataclass(kind) or hasattr(kind, "_fields")):
        return ()
    hints = typing.get_type_hints(kind)
    names = kind._fields if hasattr(kind, "_fields") else [f.name for f in fields(kind)]
    return tuple(hints[name] for name in names)


def _demand(true: bool, kind: object, value: object) -> None:
    if not true:
        raise ValueError(f"expected {kind}, found {str(value)[:40]}")
