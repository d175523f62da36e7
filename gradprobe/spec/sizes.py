"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re

from gradprobe.errors import InputError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_bytes(text: str) -> int:
    """Bytes from ``4GiB``, ``512M`` or ``1000000``.

    Raises:
        InputError: not a size.
    """
    match = re.fullmatch(
        r"(\d{1,9}(?:\.\d{1,9})?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE
    )
    size = float(match[1]) * _UNITS[match[2].upper()] if match else 0
    if size < 1:
        raise InputError(f"--max-memory: '{text}' is not a size", hint="like 4GiB or 512MiB")
    return int(size)
