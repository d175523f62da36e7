"""How numbers and names are written: two or three significant digits, nothing cut short."""

from __future__ import annotations

import math

from rich.cells import cell_len

from gradprobe.errors import printable


def number(value: float | None) -> str:
    """``0.577``, ``15.6``, ``1,230``, ``1.2e-12``; at most 8 characters for any double."""
    if value is None:
        return "-"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value in (0, 1):
        return str(int(value))  # exactly: 1.00 is near 1
    size = abs(value)
    if 999.5 <= size < 9999.5:
        return f"{value:,.0f}"
    if 1e-3 <= size < 999.5:
        return f"{value:#.3g}".rstrip(".")
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def fraction(value: float | None) -> str:
    """``12 %``"""
    if value is None or math.isnan(value):
        return number(value)
    percent = 100 * value
    if 0 < percent < 0.5:
        return "<1 %"
    if 99.5 <= percent < 100:
        return ">99 %"
    return f"{percent:.0f} %"


def name(text: str, width: int) -> str:
    """A printable name of at most ``width`` cells, elided on the left: the end tells more."""
    shown = printable(text)
    if cell_len(shown) <= width:
        return shown
    while shown and cell_len(shown) >= width:
        shown = shown[1:]
    return "…" + shown


def kind(text: str, width: int) -> str:
    """A printable kind of layer of at most ``width`` cells; of ``A+B+C`` the first are kept."""
    shown = printable(text)
    if cell_len(shown) > width:
        parts = shown.split("+")
        while len(parts) > 1:
            parts.pop()
            if cell_len("+".join(parts)) + 2 <= width:
                return "+".join(parts) + "+…"
    return name(shown, width)


def plural(count: int, noun: str) -> str:
    """``1 row``, ``52 rows``"""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def count(value: int) -> str:
    """``1,225``, or ``1.3e14`` where it is long; any size of integer."""
    if value < 10**7:
        return f"{value:,}"
    value = round(value, 2 - len(str(value)))
    digits = len(str(value)) - 1
    return f"{value // 10 ** (digits - 1) / 10:.1f}e{digits}"


def all_finite(*values: float | None) -> bool:
    """Whether each value that is there is finite."""
    return all(map(math.isfinite, [value for value in values if value is not None]))


def finite(value: float | None) -> float | None:
    """``value`` for JSON, which has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None


def from_one(ratio: float | None) -> float:
    """|ln ratio|: how far a reach or a decay is from 1; infinite where it is no positive number."""
    return abs(math.log(ratio)) if ratio and 0 < ratio < math.inf else math.inf
