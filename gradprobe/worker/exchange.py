"""What passes between two processes: a request and its reply, and both as text, exactly.

Every number comes back as it was, NaN and infinity too, from a child process and from the cache.
Users get ``render/json.py``'s JSON, which has no NaN. Decoding believes nothing: what does not fit
the types is a ``ValueError``, and nothing but plain values is ever built from it.
"""

from __future__ import annotations

import json
from typing import NamedTuple, TypeVar

from gradprobe.errors import ExitCode, GradprobeError, InputError, ModelError, Place
from gradprobe.measure.blocks.profile import BlockProfile, PathProfile
from gradprobe.measure.measurement import Measurement
from gradprobe.spec.network import TensorSpec, Weights
from gradprobe.spec.options import ProbeOptions

T = TypeVar("T")


class Request(NamedTuple):
    """One probe of one Python model; see ``CodeSpec`` and ``ProbeOptions``."""

    target: str
    arguments: str  # a JSON object
    path: str
    tensors: tuple[TensorSpec, ...]
    function: str | None  # which makes the inputs
    mode: str | None
    loss: str
    options: ProbeOptions
    what: str = "probe"  # or block, or paths
    row: str | None = None  # the block's
    max_paths: int | None = None
    changes: tuple[str, ...] = ()
    weights: Weights | None = None
    library: str | None = None  # the installed package that has it
    tree: str | None = None  # the folder whose files the reply's origin names


class Failure(NamedTuple):
    """Why a target has no measurement: a ``GradprobeError``, as values."""

    exit_code: ExitCode
    message: str
    hint: str = ""
    place: Place | None = None
    excerpt: str = ""
    details: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: GradprobeError) -> Failure:
        """``error`` as values."""
        return cls(
            exit_code=error.exit_code,
            message=error.message,
            hint=error.hint,
            place=error.place,
            excerpt=error.excerpt,
            details=error.details,
        )

    @property
    def error(self) -> GradprobeError:
        """The error that it was made of."""
        kind = InputError if self.exit_code is ExitCode.USAGE else ModelError
        return kind(
            self.message,
            place=self.place,
            excerpt=self.excerpt,
            hint=self.hint,
            details=self.details,
        )


class Origin(NamedTuple):
    """Where the code of a model stands, and the user's files that it was imported from.

    ``files`` are pairs of a path relative to one folder and the SHA-256 of its bytes; those that do
    not lie below it are ``elsewhere``.
    """

    place: Place | None
    files: tuple[tuple[str, str], ...]
    elsewhere: tuple[tuple[str, str], ...] = ()


class Reply(NamedTuple):
    """What was measured, or why it was not."""

    measurement: Measurement | None = None
    failure: Failure | None = None
    block: BlockProfile | None = None
    paths: PathProfile | None = None
    origin: Origin | None = None

    @property
    def result(self) -> Measurement | Failure | None:
        """The one that it holds; ``None`` where it holds neither and is no reply."""
        return self.measurement or self.failure


def encode(value: object) -> str:
    """A value type as one line of JSON (Python's dialect, which has NaN and Infinity).

    msgspec's own formats refuse a lone surrogate, which a file's name or a model's error may hold.
    """
    import msgspec

    return json.dumps(msgspec.to_builtins(value), separators=(",", ":"))


def decode(kind: type[T], text: str) -> T:
    """The value of type ``kind`` that ``encode`` made ``text`` of.

    Raises:
        ValueError: it did not.
    """
    import msgspec

    try:
        return msgspec.convert(json.loads(text), kind)
    except RecursionError as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from error
