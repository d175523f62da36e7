"""``PathProfile`` → how much of the gradient comes through paths of each length."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from gradprobe.measure.blocks.profile import PathProfile
from gradprobe.numbers import count, fraction, name, number
from gradprobe.render.canvas import FAINT, GOOD, NOTE, Style, bar, grid, paint, wrapped
from gradprobe.render.json import written

MOST_ROWS = 24
_NUMBERS = 40  # columns before the bars
_CLEAN = "  the clean 1·1·…·1"


def render_paths(
    paths: PathProfile, target: str, style: Style | None = None, *, everything: bool = False
) -> str:
    """The groups as a table with bars, the lengths that matter, and the check against autograd."""
    style = style or Style()
    blocks = f"{paths.blocks} block" + ("" if paths.blocks == 1 else "s")
    head = f"{target}: {blocks}, 2^{paths.blocks} paths to row {paths.row}"
    title = Text(name(style.safe(head), style.width), style="bold")
    parts = [title, Text(""), _table(paths, style, everything), Text("")]
    if paths.effective is not None:
        low, high = paths.effective
        story = (
            f"The gradient that arrives has gone through {number(paths.mean_length)} of "
            f"{paths.blocks} branches on average; 95 % of it through {low} to {high}."
        )
        parts += [Text(line) for line in wrapped(story, style, 0)]
    parts += [Text(line, style=FAINT) for line in wrapped(_check(paths), style, 0)]
    return paint(parts, style)


def _table(paths: PathProfile, style: Style, everything: bool) -> RenderableType:
    room = style.width - _NUMBERS
    clean = _CLEAN if room >= 8 + len(_CLEAN) else ""
    bar_width = min(40, room - len(clean)) if room >= 8 else 0
    numbers = [(header, "right") for header in ("branches", "paths", "norm", "share")]
    table = grid([*numbers, ("", "left")])
    shares = paths.shares
    step, shown = (1, list(range(len(shares)))) if everything else _telling(paths)
    largest = max(shares, default=0.0)
    previous = -1
    for j in shown:
        if j - previous > step:
            _gap(table, paths, previous + 1, j)
        previous = j
        drawn = Text(bar(shares[j] / largest if largest else 0.0, bar_width), style=NOTE)
        if j == 0:
            drawn = Text(drawn.plain + clean, style=GOOD)
        cells = count(paths.paths(j)), number(paths.norms[j]), fraction(shares[j])
        table.add_row(str(j), *cells, drawn)
    if previous < len(shares) - 1:
        _gap(table, paths, previous + 1, len(shares))
    return table


def _gap(table: Table, paths: PathProfile, start: int, end: int) -> None:
    share = sum(paths.shares[start:end])
    lengths = f"{start}…{end - 1}" if end - start > 1 else str(start)
    table.add_row(lengths, "⋮", "", fraction(share), style=FAINT)


def _telling(paths: PathProfile) -> tuple[int, list[int]]:
    """The clean path and the lengths that carry the gradient; every ``step``-th of many."""
    shares = paths.shares
    if len(shares) <= MOST_ROWS:
        return 1, list(range(len(shares)))
    low, high = paths.effective or (0, len(shares) - 1)
    low, high = max(0, low - 1), min(len(shares) - 1, high + 1)
    step = max(1, -(-(high - low + 1) // MOST_ROWS))
    return step, sorted({0, *range(low, high + 1, step), high})


def _check(paths: PathProfile) -> str:
    if paths.error is None:
        out = f"left out: paths through more than {len(paths.norms) - 1} branches, "
        return out + f"norm {number(paths.left_out)} of {number(paths.total)}"
    return f"sum of the groups - autograd's gradient: {number(paths.error)} of its norm"


def render_paths_json(paths: PathProfile, target: str, versions: Mapping[str, str]) -> str:
    """The same as one JSON object."""
    from gradprobe.tasks.documents.commands import PathsDocument

    return written(PathsDocument.of(paths, target, versions))
