"""The JSON of all parts of a check → the result that one check of everything would have.

A part's JSON carries its whole result, so that the parts together are rendered in every format.
"""

from __future__ import annotations

from collections.abc import Sequence

from gradprobe._version import __version__
from gradprobe.errors import InputError
from gradprobe.tasks import versioned
from gradprobe.tasks.check.result import CheckResult, Part
from gradprobe.worker.exchange import decode

_HINT = "gradprobe check --shard K/N --output-format json -o FILE"


def merge(files: Sequence[str]) -> CheckResult:
    """One result of the JSON that every part of one check wrote.

    Raises:
        InputError: a file is no part, is there twice or of another check, or one is missing.
    """
    parts: dict[int, tuple[str, CheckResult]] = {}
    first: Part | None = None
    for file in files:
        result, part = _read(file)
        first = first or part
        if (part.count, part.targets) != (first.count, first.targets):
            hint = "each part checks the same files, paths and options, and has its own K of K/N"
            message = f"{files[0]} and {file} are parts of different checks"
            raise InputError(f"{message}: {_called(first)}, {_called(part)}", hint=hint)
        if part.number in parts:
            raise InputError(f"{_called(part)} is there twice: {parts[part.number][0]}, {file}")
        parts[part.number] = file, result
    count = first.count if first else 0
    if missing := [str(k) for k in range(1, count + 1) if k not in parts]:
        what = f"part {missing[0]} of {count} is" if len(missing) == 1 else ""
        what = what or f"parts {', '.join(missing)} of {count} are"
        raise InputError(f"{what} missing", hint=_HINT)
    outcomes = [outcome for k in sorted(parts) for outcome in parts[k][1].outcomes]
    return CheckResult(tuple(sorted(outcomes, key=lambda o: o.path)), __version__)


def _called(part: Part) -> str:
    return f"part {part.number} of {part.count}"


def _read(file: str) -> tuple[CheckResult, Part]:
    """A part's result, and which part it is.

    Raises:
        InputError: the file is none, or one of another gradprobe.
    """
    from msgspec import ValidationError, convert

    from gradprobe.tasks.documents.base import SCHEMA_VERSION
    from gradprobe.tasks.documents.commands import CheckDocument

    body = versioned.read(file, "check's JSON", SCHEMA_VERSION)
    written = body.get("gradprobe", __version__) if isinstance(body, dict) else __version__
    if written != __version__:
        message = f"{file} was written by gradprobe {written}; this is {__version__}"
        raise InputError(message, hint="merge with the version that checked")
    try:
        part = convert(body, CheckDocument).part
        if not part:
            raise InputError(f"{file} is no part of a check: --shard was left out", hint=_HINT)
        return decode(CheckResult, part.result), Part(part.number, part.count, part.targets)
    except (ValidationError, ValueError) as error:
        raise InputError(f"{file} is no part of a check: {error}", hint=_HINT) from error
