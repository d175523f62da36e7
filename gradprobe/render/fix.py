"""A fix → text: what was tried, what it was measured to do, and the diff; or JSON."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from rich.color import ColorSystem
from rich.console import RenderableType
from rich.style import Style as RichStyle
from rich.text import Text

from gradprobe.numbers import name, number, plural
from gradprobe.render.canvas import (
    BAD,
    FAINT,
    GOOD,
    NOTE,
    VERDICT_COLOURS,
    Style,
    fold,
    grid,
    paint,
    with_gaps,
    wrapped,
)
from gradprobe.render.json import written
from gradprobe.tasks.fix.trials import NO_EDIT, Fix, Trial
from gradprobe.verdict.report import Verdict

MOST_TRIALS = 8
_COLUMNS = 2 + 12 + 2 + 8 + 2 + 8  # verdict, reach, inputs, and the blanks in front of each
_DIFF_COLOURS = {"+": GOOD, "-": BAD, "@": NOTE, "\\": FAINT}


def render_fix(fix: Fix, style: Style | None = None, *, everything: bool = False) -> str:
    """The trials as a table, the diff of the change that was chosen, and what is to be done.

    The lines of the diff stand as they are in the file, however long they are.
    """
    style = style or Style()
    parts: list[RenderableType] = [Text(name(style.safe(fix.target), style.width), style="bold")]
    if fix.before.sound:
        return paint([*parts, *_lines(_left_alone(fix), style)], style)
    parts += [_table(fix, style, everything), Text(""), *_lines(_outcome(fix), style)]
    for step in fix.steps if fix.obstacle else ():
        code = fix.obstacle == NO_EDIT and fix.after is not None
        parts += [Text(f"  {style.safe(step)}")] if code else _lines(style.safe(step), style, 2)
    above = paint(parts, style)
    if not fix.diff:
        return above
    diff = "".join(_diff_line(style.safe(line), style) + "\n" for line in fix.diff)
    apply = f"to apply it: gradprobe fix --write {shlex.quote(fix.target)}"
    next_step = apply if fix.writable else ""
    if fix.written:
        next_step = f"written to {fix.target}"
    below = "\n" + paint(_lines(next_step, style), style) if next_step else ""
    return f"{above}\n{diff}{below}"


def _table(fix: Fix, style: Style, everything: bool) -> RenderableType:
    table = grid([("change", "left"), ("verdict", "left"), ("reach", "right"), ("inputs", "right")])
    width = max(12, style.width - _COLUMNS)
    chosen = fix.tried.index(fix.after) if fix.after else -1
    _row(table, fix.before, width, style, "bold")
    count = len(fix.tried)
    shown = range(count) if everything else fold(count, [chosen] if fix.after else [], MOST_TRIALS)
    for gap, index in with_gaps(shown):
        if gap:
            table.add_row(f"⋮ {plural(gap, 'change')}", style=FAINT)
        _row(table, fix.tried[index], width, style, "bold" if index == chosen else "")
    return table


def _row(table: Any, trial: Trial, width: int, style: Style, weight: str) -> None:
    worst = trial.worst
    verdict, colour = str(worst.verdict), VERDICT_COLOURS.get(worst.verdict, BAD)
    if worst.verdict is Verdict.HEALTHY and not trial.sound:
        verdict, colour = "not enough", VERDICT_COLOURS[Verdict.WEAK]
    table.add_row(
        Text(name(style.safe(trial.name), width), style=weight),
        Text(verdict, style=colour),
        Text(number(worst.reach)),
        Text(number(trial.dependence)),
    )


def _left_alone(fix: Fix) -> str:
    worst = fix.before.worst
    if worst.verdict is not Verdict.HEALTHY:
        return f"{worst.verdict}, and its spec says to ignore that: nothing to change"
    numbers = f"reach {number(worst.reach)}, input dependence {number(fix.before.dependence)}"
    return f"healthy at {_seeds(fix)}: {numbers}, nothing to change"


def _outcome(fix: Fix) -> str:
    """What came of the trials, and what the numbers of the table are."""
    healthy = fix.before.worst.verdict is Verdict.HEALTHY
    why = f"Its verdict is healthy, but: {fix.before.doubt}. " if healthy else ""
    if fix.after is None:
        if not fix.tried:
            return f"{why}None of the changes that gradprobe knows fits it."
        advised = " What the findings advise:" if fix.obstacle and fix.steps else ""
        return f"{why}None of {plural(len(fix.tried), 'change')} mends it.{advised}"
    outcome = f"{why}{fix.after.name} mends it at {_seeds(fix)}; the worst of them is shown."
    if fix.after.learned:
        outcome += f" Tried: it learns one batch by heart ({fix.after.learned})."
    if fix.obstacle == NO_EDIT:
        outcome += " Nothing is edited; it says:"
    elif fix.obstacle:
        outcome += f" The file cannot be edited safely ({fix.obstacle}). By hand:"
    return outcome


def _seeds(fix: Fix) -> str:
    *others, last = map(str, fix.seeds)
    return f"seeds {', '.join(others)} and {last}" if others else f"seed {last}"


def _lines(text: str, style: Style, indent: int = 0) -> list[Text]:
    return [Text(line) for line in wrapped(style.safe(text), style, indent)]


def _diff_line(line: str, style: Style) -> str:
    """Not through the console, which takes the blanks from the end of a line."""
    colour = _DIFF_COLOURS.get(line[:1])
    if not style.color or colour is None:
        return line
    return RichStyle(color=colour).render(line, color_system=ColorSystem.EIGHT_BIT)


def render_fix_json(fix: Fix, versions: Mapping[str, str]) -> str:
    """The fix as one JSON object; ``null`` for what is missing or not finite."""
    from gradprobe.tasks.documents.commands import FixDocument

    return written(FixDocument.of(fix, versions))
