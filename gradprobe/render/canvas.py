"""What every text rendering shares: style, heat bar, folding, and rich at work on a string."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from gradprobe.errors import printable
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.verdict.report import Severity, Verdict

# The heat bar begins at 1e-8 and is full at 1e4, in every report: bars can be compared.
LOW, HIGH = -8.0, 4.0
_LEAST = 0.5  # cells of the shortest bar

# A colour means one thing: green passes, orange is to be looked at, red fails, blue informs. They
# are of the 256 that no terminal's theme changes, and legible on a light and on a dark one.
GOOD, DOUBTFUL, BAD, NOTE, FAINT = (f"color({number})" for number in (28, 166, 196, 31, 244))

MOST_FINDINGS = 3  # of a target that are shown, the gravest first, unless all are asked for
NARROW = 60  # columns below which names come before all else
ENDLESS = 1_000_000  # columns, for lines that other programs read: they are not cut

SEVERITY_COLOURS = {Severity.ERROR: BAD, Severity.WARNING: DOUBTFUL, Severity.INFO: NOTE}
VERDICT_COLOURS = {Verdict.HEALTHY: GOOD, Verdict.WEAK: DOUBTFUL}

_BLANKS = re.compile(r"(?:\x1b\[[0-9;]*m| )+$")
_NOTHING = re.compile(r"(?:\x1b\[[1-9][0-9;]*m)+\x1b\[0m")
_EIGHTHS = " ▏▎▍▌▋▊▉"
_ASCII = str.maketrans(
    {"×": "x", "→": ">", "◄": "<", "⋮": ":", "…": "~", "∂": "d", "÷": "/", "±": "+"}
    | {"·": ".", "°": " ", "─": "-", "━": "=", "│": "|", "├": "+", "┐": "+", "┘": "+"}
)
_ASCII_BLOCKS = str.maketrans(dict.fromkeys("█▉▊▋▌", "#") | dict.fromkeys("▍▎▏", " "))


@dataclass(frozen=True, slots=True)
class Style:
    """The place where a renderer's text goes."""

    width: int = 80
    color: bool = False
    ascii: bool = False
    verbose: bool = False  # also what weighs little, and by how much
    most: int = ENDLESS  # findings of a target that the check shows

    def safe(self, text: str) -> str:
        """``text`` as it can be shown: no control characters, and ASCII where that is asked for.

        Before it is laid out: an escape is wider than what it stands for.
        """
        shown = printable(text)
        if not self.ascii:
            return shown
        return shown.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")


def paint(parts: Iterable[RenderableType], style: Style) -> str:
    """Rich renderables → a string of lines without trailing blanks, none wider than the style."""
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=style.width,
        color_system="256" if style.color else None,
        force_terminal=style.color,
        no_color=not style.color,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
        _environ={},
    )
    for part in parts:
        console.print(part, no_wrap=True, crop=False)
    text = stream.getvalue()
    if style.ascii:
        text = text.translate(_ASCII).translate(_ASCII_BLOCKS)
        text = text.encode("ascii", "backslashreplace").decode("ascii")
    return "\n".join(_without_blanks(line) for line in text.split("\n"))


def _without_blanks(line: str) -> str:
    """The line without blanks at its end, coloured ones included."""
    end = _BLANKS.search(line)
    if end is None:
        return line
    return _NOTHING.sub("", line[: end.start()] + end[0].replace(" ", ""))


def more(findings: Sequence[str]) -> str:
    """``2 more: GP203 frozen, GP402 zero-initialised``"""
    return f"{len(findings)} more: {', '.join(dict.fromkeys(findings))}"


def grid(columns: Sequence[tuple[str | Text, str]]) -> Table:
    """A borderless table of (header, justify) columns that never wraps."""
    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=True, header_style="bold"
    )
    for header, justify in columns:
        table.add_column(header, justify=justify, no_wrap=True, overflow="crop")  # type: ignore[arg-type]
    return table


def wrapped(text: str, style: Style, indent: int, first: str = "") -> list[str]:
    """``text`` in lines within the width, indented; ``first`` stands in the first line's indent."""
    head, *rest = folded(text, max(20, style.width - indent)) or [""]
    return [first.ljust(indent) + head, *(" " * indent + line for line in rest)]


def folded(text: str, width: int, later: str = "") -> list[str]:
    """``text`` in lines of at most ``width``, between words; ``later`` indents all but the first.

    A number and its unit stay together.
    """
    held = text.replace(" %", "\N{NO-BREAK SPACE}%")
    lines = textwrap.wrap(held, width, subsequent_indent=later, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}%", " %") for line in lines]


def band_colour(reach: float | None) -> str:
    """The colour of a reach: green in the healthy band, orange in the weak ones, red beyond."""
    if reach is None or not math.isfinite(reach):
        return BAD
    if THRESHOLDS["weak_low"] <= reach <= THRESHOLDS["weak_high"]:
        return GOOD
    return DOUBTFUL if THRESHOLDS["vanishing"] <= reach <= THRESHOLDS["exploding"] else BAD


def floor_of(reaches: Iterable[float | None]) -> float:
    """Where bars that stand together begin, as log10: lower than usual where all are below that."""
    heights = [math.log10(reach) for reach in reaches if reach and math.isfinite(reach)]
    return math.floor(min(heights)) if heights and max(heights) < LOW else LOW


def heat_bar(reach: float | None, width: int, low: float = LOW) -> Text:
    """A bar whose length, on a log scale, and colour both carry the reach.

    What is below the scale is an arrow to its left, the longer the further below.

    Args:
        reach: what is shown.
        width: that of a full bar, in cells.
        low: log10 of where the scale begins.
    """
    if reach is None:
        return Text("no gradient" if width >= 11 else "none", style=BAD)
    if not math.isfinite(reach):
        return Text("not finite" if width >= 10 else "NaN", style=BAD)
    filled = (math.log10(reach) - low) / (HIGH - low) if reach > 0 else -1.0
    if filled < 0:
        return Text("◄".ljust(round(width * min(1.0, -filled)), "━"), style=BAD)
    return Text(bar(max(_LEAST / max(1, width), filled), width), style=band_colour(reach))


def scale(width: int, low: float = LOW) -> str:
    """The header of a heat bar: where 1e-8, 1 and 1e4 stand, as many of them as find room."""
    line = f"1e{low:.0f}"
    before = round(width * -low / (HIGH - low)) - 1
    if before > len(line):
        line = line.ljust(before) + "1"
    if width - 3 > len(line):
        line = line.ljust(width - 3) + "1e4"
    return line if len(line) <= width else ""


def bar(filled: float, width: int) -> str:
    """A bar of ``filled`` of ``width`` cells, at least 0 and at most 1, to an eighth of a cell."""
    eighths = round(min(1.0, max(0.0, filled)) * width * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def fold(count: int, keep: Iterable[int], most: int) -> list[int]:
    """Which of ``count`` rows to show: those to keep, and evenly spread ones, about ``most``."""
    if count <= most:
        return list(range(count))
    chosen = {0, 1, 2, count - 3, count - 2, count - 1}
    for index in keep:
        if len(chosen) >= most:
            break
        chosen.add(index)
    free = (most - len(chosen)) // 2  # each comes with a line that counts the gap
    if free > 0:
        chosen |= {round((i + 1) * (count - 1) / (free + 1)) for i in range(free)}
    # A gap of one row is shown rather than counted.
    chosen |= {i for i in range(count) if i - 1 in chosen and i + 1 in chosen}
    return sorted(chosen)


def with_gaps(shown: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Each index of those that are shown, behind how many are left out before it."""
    previous = -1
    for index in shown:
        yield index - previous - 1, index
        previous = index
