"""What changed between two reports → text, Markdown or JSON."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from gradprobe.numbers import kind, name, number, plural
from gradprobe.render.canvas import (
    BAD,
    ENDLESS,
    FAINT,
    GOOD,
    VERDICT_COLOURS,
    Style,
    band_colour,
    fold,
    grid,
    paint,
    with_gaps,
    wrapped,
)
from gradprobe.render.check.markdown import escaped, table_lines
from gradprobe.render.json import written
from gradprobe.tasks.diff import ADDED, REMOVED, Difference, RowChange
from gradprobe.verdict.report import Finding

MOST_ROWS = 20
_HEADS = ("row", "layer", "before", "after", "changed")
_REACH, _NAME, _LAYER = 8, 8, 8


def render_text(differences: Sequence[Difference], style: Style, everything: bool) -> str:
    """Each difference: verdicts and reaches, the rows that changed, where they part, findings."""
    return "\n".join(_text(difference, style, everything) for difference in differences)


def render_markdown(differences: Sequence[Difference], everything: bool) -> str:
    """The same for a review: a heading, a table of the rows that changed, and what is worse."""
    return "\n".join(_markdown(difference, everything) for difference in differences)


def render_json(differences: Sequence[Difference]) -> str:
    """One object with every difference."""
    from gradprobe.tasks.documents.diff import DiffDocument

    return written(DiffDocument.of(differences))


def _text(difference: Difference, style: Style, everything: bool) -> str:
    before, after = difference.before, difference.after
    head = before.target if before.target == after.target else f"{before.target} → {after.target}"
    parts: list[RenderableType] = [Text(name(style.safe(head), style.width), style="bold")]
    verdict = Text("verdict  ").append(
        str(before.verdict), style=VERDICT_COLOURS.get(before.verdict, BAD)
    )
    verdict.append(" → ").append(str(after.verdict), VERDICT_COLOURS.get(after.verdict, BAD))
    parts += [verdict, Text(f"reach    {number(before.reach)} → {number(after.reach)}")]
    if difference.changed or everything:
        parts += [Text(""), _table(difference, style, everything)]
    parts += [Text("")]
    for line in outcome(difference):
        parts += [Text(text) for text in wrapped(style.safe(line), style, 0)]
    for sign, findings, colour in (("-", difference.gone, GOOD), ("+", difference.new, BAD)):
        parts += [Text(style.safe(f"{sign} {_named(f)}"), style=colour) for f in findings]
    for reason in difference.worse:
        parts += [Text(text, style=BAD) for text in wrapped(reason, style, 7, "worse: ")]
    return paint(parts, style)


def _table(difference: Difference, style: Style, everything: bool) -> RenderableType:
    changes = difference.rows if everything else difference.changed
    first = difference.parting.row if difference.parting else None
    telling = [i for i, change in enumerate(changes) if change.row.name == first]
    shown = fold(len(changes), telling, len(changes) if everything else MOST_ROWS)
    names = [style.safe(changes[index].row.name) for index in shown]
    told = max(len("changed"), *(len(what_changed(changes[index])) for index in shown))
    told = min(told, style.width - 2 * (_REACH + 2) - 2 - _NAME)
    room = style.width - 2 * (_REACH + 2) - told - 4  # of names and layers
    width = min(max(map(cell_len, ["row", *names])), max(_NAME, room // 2))
    heads = [head for head in _HEADS if head != "layer" or room - width >= _LAYER]
    table = grid([(head, "right" if head in ("before", "after") else "left") for head in heads])
    for gap, index in with_gaps(shown):
        if gap:
            table.add_row("⋮", plural(gap, "row"), style=FAINT)
        change = changes[index]
        cells = [Text(name(style.safe(change.row.name), width))]
        if "layer" in heads:
            cells.append(Text(kind(style.safe(layer_of(change)), room - width)))
        cells += [Text(reach_text(change, i), style=band_colour(change.reaches[i])) for i in (0, 1)]
        colour = {ADDED: GOOD, REMOVED: BAD}.get(change.what[0], "") if change.what else FAINT
        table.add_row(*cells, Text(what_changed(change, told), style=colour))
    return table


def what_changed(change: RowChange, width: int = ENDLESS) -> str:
    """What changed beside the reaches, which stand there; of many as many as the width holds."""
    parts = [what for what in change.what if what != "reach"] or ["as it was"]
    while len(parts) > 1 and len(", ".join(parts)) > width:
        parts = [*parts[: -2 if parts[-1] == "…" else -1], "…"]
        if parts[0] == "…":
            return name(change.what[0], width)
    return ", ".join(parts)


def _markdown(difference: Difference, everything: bool) -> str:
    before, after = difference.before, difference.after
    verdicts = f"{before.verdict} → {after.verdict}"
    lines = [f"### {escaped(after.target)}: {verdicts}", ""]
    changes = difference.rows if everything else difference.changed
    if changes:
        cells = [
            [
                *(escaped(c.row.name), escaped(layer_of(c))),
                *(reach_text(c, side) for side in (0, 1)),
                ", ".join(c.what),
            ]
            for c in changes
        ]
        lines += [*table_lines(list(_HEADS), cells), ""]
    lines += [f"- {escaped(line)}" for line in outcome(difference)]
    lines += [f"- gone: {escaped(_named(finding))}" for finding in difference.gone]
    lines += [f"- new: {escaped(_named(finding))}" for finding in difference.new]
    lines += [f"- **worse**: {escaped(reason)}" for reason in difference.worse]
    return "\n".join(lines) + "\n"


def outcome(difference: Difference) -> list[str]:
    """How many rows changed, and where the two part first."""
    count = f"{len(difference.changed)} of {plural(len(difference.rows), 'row')} changed"
    parting = difference.parting
    if parting is None:
        return [count]
    way = "on the gradient's way back" if parting.back else "on the way forward"
    return [f"{count}; they part first at {parting.row}, {way}: {', '.join(parting.what)}"]


def layer_of(change: RowChange) -> str:
    """The kind of layer, before and after where the two differ."""
    before, after = change.before, change.after
    if before and after and before.kind != after.kind:
        return f"{before.kind} → {after.kind}"
    return change.row.kind


def reach_text(change: RowChange, side: int) -> str:
    """The reach before (0) or after (1); nothing where the row was not there."""
    row = (change.before, change.after)[side]
    return number(change.reaches[side]) if row else ""


def _named(finding: Finding) -> str:
    where = f", row {finding.row}" if finding.row else ""
    return f"{finding.rule} {finding.name}{where}"
