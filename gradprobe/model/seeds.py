"""Seeds derived from (seed, path), so that no layer's draw depends on another's."""

from __future__ import annotations

import hashlib


def derive(seed: int, path: str) -> int:
    """A 63-bit seed for the thing at ``path``, the same on every machine."""
    digest = hashlib.blake2b(
        f"{seed}/{path}".encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
    return int.from_bytes(digest) >> 1
