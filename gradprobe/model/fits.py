"""A planned network, held against the limits: whether it fits into memory."""

from __future__ import annotations

from gradprobe.errors import Place
from gradprobe.spec.network import NetworkSpec
from gradprobe.spec.options import Limits


def check_bytes(
    spec: NetworkSpec, what: str, elements: int, limits: Limits, place: Place | None
) -> None:
    """Refuse what takes more memory than the limits allow, at its place in the spec.

    Raises:
        InputError: it does.
    """
    needed = elements * 4
    if needed > limits.memory:
        message = f"{what} {format_bytes(needed)}"
        raise spec.error(message, place, f"--max-memory is {format_bytes(limits.memory)}")


def format_bytes(count: int) -> str:
    """``3.6 TiB``"""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.2g} TiB" if size < 100 else f"{size:,.0f} TiB"
