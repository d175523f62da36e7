"""Measured values ↔ JSON text, exactly: every number comes back as it was, NaN and infinity too.

For the cache and for what a child process hands back. Not for users: their JSON, which has no NaN,
is ``render/json.py``. Decoding believes nothing: what is not of the shape that was written is a
``ValueError``, and nothing but plain values is ever built from it.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, NamedTuple, TypeVar

from gradprobe.errors import ExitCode, GradprobeError, InputError, ModelError, Place
from gradprobe.measure.profile import GradientProfile
from gradprobe.spec.network import CheckSpec
from gradprobe.verdict.report import Training

T = TypeVar("T")


class Measurement(NamedTuple):
    """One probe of one target, with what is needed to judge it without reading the target again."""

    profile: GradientProfile
    name: str | None  # what the spec calls the network
    check: CheckSpec  # the spec's own section
    config: Mapping[str, bool | int | float | str | None]  # what the probe was told, resolved
    training: Training | None = None  # on request


class Failure(NamedTuple):
    """Why a target has no measurement: a ``GradprobeError``, as values."""

    exit_code: ExitCode
    message: str
    hint: str = ""
    place: Place | None = None
    excerpt: str = ""

    @classmethod
    def of(cls, error: GradprobeError) -> Failure:
        """``error`` as values."""
        told = (error.message, error.hint, error.place, error.excerpt)
        return cls(error.exit_code, *told)

    @property
    def error(self) -> GradprobeError:
        """What it was made of."""
        kind = InputError if self.exit_code is ExitCode.USAGE else ModelError
        return kind(self.message, place=self.place, excerpt=self.excerpt, hint=self.hint)


class Reply(NamedTuple):
    """What was measured, or why it was not."""

    measurement: Measurement | None = None
    failure: Failure | None = None

    @property
    def found(self) -> Measurement | Failure | None:
        """The one that it holds; ``None``: neither, and it is no reply."""
        return self.measurement or self.failure


def encode(value: object) -> str:
    """A value type as one line of JSON (Python's dialect, which has NaN and Infinity)."""
    return json.dumps(_plain(value), separators=(",", ":"))


def decode(kind: type[T], text: str) -> T:
    """The value of type ``kind`` that ``encode`` made ``text`` of.

    Raises:
        ValueError: it did not.
    """
    try:
        reader: Decoder = _decoder(typing.cast(Any, kind))
        found = reader(json.loads(text))
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


Decoder = Callable[[Any], Any]  # from what JSON holds; ValueError where it is of another kind


@cache
def _decoder(kind: Any) -> Decoder:
    """How a ``kind`` is read, which may be a record, a tuple, a mapping, a union or a scalar."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _union(inside)
    if origin is tuple:
        return _tuple(_decoder(inside[0]))
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(_decoder(inside[1]))
    if issubclass(kind, Enum):
        return cache(kind)
    if members := _members(kind):
        return _record(kind, [_decoder(member) for member in members])
    return _scalar(kind)


def _scalar(kind: type) -> Decoder:
    def read(value: Any) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise _wrong(kind, value)

    return read


def _union(kinds: Sequence[Any]) -> Decoder:
    optional = types.NoneType in kinds
    readers = {kind: _decoder(kind) for kind in kinds if kind is not types.NoneType}
    last = list(readers.values())[-1]

    def read(value: Any) -> Any:
        if value is None and optional:
            return None
        return readers.get(type(value), last)(value)

    return read


def _tuple(inside: Decoder) -> Decoder:
    def read(value: Any) -> Any:
        if type(value) is not list:
            raise _wrong(list, value)
        return tuple([inside(one) for one in value])

    return read


def _mapping(inside: Decoder) -> Decoder:
    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise _wrong(dict, value)
        return {key: inside(one) for key, one in value.items()}

    return read


def _record(kind: Any, members: Sequence[Decoder]) -> Decoder:
    def read(value: Any) -> Any:
        if type(value) is not list or len(value) != len(members):
            raise _wrong(kind, value)
        return kind(*[member(one) for member, one in zip(members, value, strict=True)])

    return read


def _members(kind: Any) -> tuple[Any, ...]:
    """The types of a record's fields, in order; none where it is no record."""
    if not (is_dataclass(kind) or hasattr(kind, "_fields")):
        return ()
    hints = typing.get_type_hints(kind)
    names = kind._fields if hasattr(kind, "_fields") else [f.name for f in fields(kind)]
    return tuple(hints[name] for name in names)


def _wrong(kind: object, value: object) -> ValueError:
    return ValueError(f"expected {kind}, found {str(value)[:40]}")
