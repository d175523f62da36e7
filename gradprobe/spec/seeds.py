"""Which seeds are probed: a number of them, a list, or as many as settle the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gradprobe.errors import InputError

AUTO = "auto"
MAX_SEEDS = 1000
AUTO_SEEDS = (3, 30)  # at least, at most
_NO_SEEDS = "is not a number of seeds, nor a list of them"
_SEEDS_HINT = "5, or 3,7,9; gradprobe probe takes auto too"


class Seeds(NamedTuple):
    """Which seeds are probed, one after another; ``auto``: no more than it takes to settle."""

    seeds: tuple[int, ...]
    auto: bool = False


def choose_seeds(asked: int | Sequence[int] | str, first: int | None = None) -> Seeds:
    """So many seeds from ``first`` on (default 0), those of a list, or ``auto``.

    Raises:
        InputError: out of range, or a list beside ``first``.
    """
    if asked == AUTO:
        return Seeds(_from(first or 0, AUTO_SEEDS[1]), auto=True)
    if isinstance(asked, int) and not isinstance(asked, bool):
        if not 1 <= asked <= MAX_SEEDS:
            message = f"--seeds: {asked} is out of range (1 to {MAX_SEEDS:,})"
            raise InputError(message, hint=_SEEDS_HINT)
        return Seeds(_from(first or 0, asked))
    if not isinstance(asked, list | tuple | range) or not asked or not all(map(is_seed, asked)):
        raise InputError(f"--seeds: {asked!r} {_NO_SEEDS}", hint=_SEEDS_HINT)
    if first is not None:
        hint = "--seeds 3,7,9 alone, or --seed 3 --seeds 5"
        raise InputError("--seed and a list of --seeds contradict each other", hint=hint)
    return Seeds(tuple(dict.fromkeys(asked)))


def seeds_in(text: str) -> int | tuple[int, ...]:
    """The number of ``--seeds 3``, or the list of ``--seeds 5,7``.

    Raises:
        InputError: not whole numbers, or out of range.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise InputError(f"--seeds: '{text}' {_NO_SEEDS}", hint=_SEEDS_HINT)
    numbers = tuple(int(word) if len(word) < 20 else 2**63 for word in words)
    if not all(map(is_seed, numbers)):
        message = f"--seeds: {text} is out of range (0 to 2^63 - 1)"
        raise InputError(message, hint=_SEEDS_HINT)
    return numbers if len(numbers) > 1 else numbers[0]


def is_seed(value: object) -> bool:
    """Whether ``value`` may seed a probe."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _from(first: int, count: int) -> tuple[int, ...]:
    if not is_seed(first + count - 1):
        raise InputError(f"--seed {first} is out of range (0 to 2^63 - {count})")
    return tuple(range(first, first + count))
