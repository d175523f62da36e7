"""What is handed to the process that runs a Python model, and what it hands back. Values only."""

from __future__ import annotations

from typing import NamedTuple

from gradprobe.archive import Measurement
from gradprobe.errors import GradprobeError, InputError, ModelError, Place
from gradprobe.spec import TensorSpec


class Request(NamedTuple):
    """One probe of one Python model; see ``CodeSpec`` and ``ProbeOptions``."""

    target: str
    arguments: str  # a JSON object
    path: str
    tensors: tuple[TensorSpec, ...]
    function: str | None  # which makes the inputs
    data: str | None
    mode: str | None
    loss: str
    seed: int
    dtype: str | None  # None: as the model was built
    device: str
    batch_size: int | None
    level: str
    deep: bool
    memory: int  # bytes that the inputs, and a second look, may take
    rows: str | None = None  # a glob over module paths
    blocks: bool = False


class Failure(NamedTuple):
    """A ``GradprobeError``, as values."""

    of_input: bool
    message: str
    hint: str
    file: str | None
    line: int
    column: int
    excerpt: str


class Reply(NamedTuple):
    """What was measured, or why it was not."""

    measurement: Measurement | None = None
    failure: Failure | None = None


def failure_of(error: GradprobeError) -> Failure:
    """``error`` as values."""
    place = error.place
    return Failure(
        isinstance(error, InputError),
        error.message,
        error.hint,
        place.file if place else None,
        place.line if place else 1,
        place.column if place else 1,
        error.excerpt,
    )


def error_of(failure: Failure) -> GradprobeError:
    """The error that ``failure`` was."""
    place = None
    if failure.file is not None:
        place = Place(failure.file, failure.line, failure.column)
    kind = InputError if failure.of_input else ModelError
    return kind(failure.message, place=place, excerpt=failure.excerpt, hint=failure.hint)
