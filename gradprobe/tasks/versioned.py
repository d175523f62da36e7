"""A file that gradprobe wrote as JSON with a ``schema_version`` → what it holds."""

from __future__ import annotations

import json
import math
from typing import Any

from gradprobe.errors import InputError
from gradprobe.files import read_regular

MAX_BYTES = 1 << 26


def read(file: str, kind: str, version: int, *, named: str = "", hint: str = "") -> Any:
    """What the file holds, of any shape: that it is a ``kind`` is the caller's to find out.

    Args:
        kind: what it should be: ``baseline``, ``report``.
        version: the newest ``schema_version`` that is known.
        named: how an error calls a file that cannot be read; its name by default.
        hint: what to do about that.

    Raises:
        InputError: no such file, not JSON, or written by a newer gradprobe.
    """
    try:
        text = read_regular(file, MAX_BYTES).decode("utf-8-sig")  # as PowerShell writes it
        body: Any = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot read {named or file}: {reason}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not a {kind}: not JSON") from error
    written = body.get("schema_version") if isinstance(body, dict) else None
    if isinstance(written, int) and written > version:
        message = f"{file} has schema_version {written}; this gradprobe knows {version}"
        raise InputError(message, hint=f"update gradprobe, or write the {kind} anew")
    return body


class NotFinite:
    """In place of a number that is NaN or beyond a double's range: no type of a document fits."""


def _finite(text: str) -> float | NotFinite:
    number = float(text)
    return number if math.isfinite(number) else NotFinite()
