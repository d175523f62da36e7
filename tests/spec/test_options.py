"""Sizes as people write them, and what a probe's options refuse."""

from __future__ import annotations

import pytest

from gradprobe.errors import InputError
from gradprobe.spec.sizes import parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1000000", 10**6), ("1.5K", 1536), ("512M", 512 * 1024**2),
     (" 4 GiB ", 4 * 1024**3), ("2tb", 2 * 1024**4), ("0.5TiB", 1024**4 // 2), ("7B", 7)],
)  # fmt: skip
def test_a_size_is_in_powers_of_1024(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "0.5", "-1", "1P", "1 0", "4GG", "1e9", "0.1B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a size"):
        parse_bytes(text)
