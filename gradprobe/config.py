"""What a probe may be told, with its defaults. One place, read by the library and the commands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from gradprobe.errors import InputError, suggestion
from gradprobe.vocabulary import LOSSES, THRESHOLDS

DTYPES = ("float32", "float64", "bfloat16")
LEVELS = ("blocks", "leaves")
UNITS = ("row", "position")
DEFAULT_BATCH_SIZE = 32

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a network may cost before anything is allocated; the defaults fit a laptop."""

    parameters: int = 1_000_000_000
    memory: int = 8 * 2**30  # bytes


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """How a network is probed. ``None`` means: what the spec says, else the default."""

    seed: int = 0
    batch_size: int | None = None
    dtype: str = "float32"
    device: str = "cpu"
    loss: str | None = None
    data: str | None = None
    level: str = "blocks"
    by: str = "row"
    blocks: bool = False  # measure each block's Jacobian too
    limits: Limits = field(default_factory=Limits)
    thresholds: Mapping[str, float] = field(default_factory=lambda: dict(THRESHOLDS))

    def __post_init__(self) -> None:
        choose("dtype", self.dtype, DTYPES)
        choose("level", self.level, LEVELS)
        choose("by", self.by, UNITS)
        if self.loss is not None:
            choose("loss", self.loss, LOSSES)
        if self.batch_size is not None and not 1 <= self.batch_size <= 2**20:
            raise InputError(f"--batch-size {self.batch_size} is out of range (1 to {2**20:,})")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed} is out of range (0 to 2^63 - 1)")


def choose(option: str, word: str, known: tuple[str, ...]) -> str:
    """``word``, if it is known.

    Raises:
        InputError: with the nearest known word.
    """
    if word not in known:
        hint = suggestion(word, known) or f"known: {', '.join(known)}"
        raise InputError(f"--{option}: unknown word '{word}'", hint=hint)
    return word


def ascending(thresholds: Mapping[str, float]) -> bool:
    """Whether the bands that thresholds bound follow each other."""
    values = [thresholds[key] for key in THRESHOLDS]
    return values == sorted(values)


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
