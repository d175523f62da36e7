"""Report → the text that a terminal shows."""

from __future__ import annotations

from collections.abc import Callable

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from gradprobe.measure.profile import GradientProfile
from gradprobe.numbers import fraction, name, number, plural
from gradprobe.render.canvas import (
    BAD,
    DOUBTFUL,
    FAINT,
    MOST_FINDINGS,
    SEVERITY_COLOURS,
    VERDICT_COLOURS,
    Style,
    more,
    paint,
    wrapped,
)
from gradprobe.render.table import table
from gradprobe.render.trial import trial_lines
from gradprobe.render.verdict import training_lines, verdict_lines
from gradprobe.verdict.report import Finding, Repeats, Report, Spread


def render_report(report: Report, style: Style | None = None, *, everything: bool = False) -> str:
    """The report as text: header, table with heat bars, verdict, findings.

    Args:
        report: what to show.
        style: width in columns, and whether colour and other characters than ASCII may be used.
        everything: all rows, also where there are more than 24, all findings, and a trial's rates.
    """
    style = style or Style()
    parts: list[RenderableType] = [*_header(report, style), Text("")]
    parts += [table(report, style, everything), Text("")]
    parts += verdict_lines(report, style)
    parts += [Text(line) for line in theory_lines(report, style)]
    parts += training_lines(report, style)
    parts += trial_lines(report, style, everything)
    parts += seeds_lines(report, style)
    return paint([*parts, *finding_lines(report, style, everything)], style)


def finding_lines(report: Report, style: Style, everything: bool) -> list[Text]:
    """The gravest findings, or all of them, an empty line before each."""
    lines: list[Text] = []
    shown = len(report.findings) if everything else MOST_FINDINGS
    for finding in report.findings[:shown]:
        lines += [Text(""), *_finding(finding, report.profile.unit, style)]
    if rest := report.findings[shown:]:
        line = more([f"{finding.rule} {finding.name}" for finding in rest])
        lines += [Text(""), *(Text(part, style=FAINT) for part in wrapped(line, style, 0))]
    return lines


def theory_lines(report: Report, style: Style) -> list[str]:
    """What mean-field theory says of the whole, and where it and the measurement part."""
    if report.theory is None:
        return []
    profile, theory = report.profile, report.theory
    silent = next((r for r in profile.ran if r.theory and r.theory.factor is None), None)
    story = ""
    if profile.predicted_decay is not None:
        measured = f"×{number(profile.decay)} per row; " if profile.decay is not None else ""
        story = f"{measured}theory ×{number(profile.predicted_decay)} ({theory.about})"
        if theory.alternative:
            story += f"; at {theory.alternative} ×{number(theory.alternative_decay)}"
    elif silent and silent.theory:
        story = f"theory ends at row {silent.name}: {silent.theory.reason}"
    stories = filter(None, (story, _parted(profile)))
    return [line for each in stories for line in wrapped(style.safe(each), style, 0)]


def _parted(profile: GradientProfile) -> str:
    """One sentence where measurement and theory are further apart than finite width explains."""
    whole = profile.disagreement()
    if whole:
        where, (apart, allowed) = "over the trunk", whole
    else:
        rows = [(ratio, row) for row in profile.ran[1:] if (ratio := profile.disagreement(row))]
        if not rows:
            return ""
        (apart, allowed), row = max(rows, key=lambda entry: entry[0][0] / entry[0][1])
        where = f"at row {row.name}"
    story = f"measured and theory differ by ×{number(apart)} {where}"
    return f"{story}: finite width explains up to ×{number(allowed)}"


def seeds_lines(report: Report, style: Style) -> list[Text]:
    """With --seeds: how many gave which verdict, and the median and range of what they gave."""
    repeats = report.repeats
    if repeats is None:
        return []
    stories = [_verdicts(repeats)]
    if repeats.reach:
        stories.append(f"reach {_spread(repeats.reach, number)}")
    whole = "; ".join(stories)
    stories = [whole] if len(whole) <= style.width - 8 else stories
    if repeats.chances:
        sgd, adam = (_spread(chance, fraction) for chance in repeats.chances)
        stories.append(f"{sgd} under SGD, {adam} under SGD or Adam")
    lines = [Text(line) for story in stories for line in wrapped(story, style, 8)]
    sure = repeats.settled and len(repeats.counts) == 1
    colour = VERDICT_COLOURS.get(report.verdict, BAD) if sure else DOUBTFUL
    lines[0] = Text("seeds   ", style=f"bold {colour}") + lines[0][8:]
    return lines


def _verdicts(repeats: Repeats) -> str:
    """``healthy at 4 of 7, weak at 3, not settled``"""
    common, *others = repeats.counts
    shares = [f"{common} at {repeats.counts[common]} of {len(repeats.seeds)}"]
    shares += [f"{verdict} at {repeats.counts[verdict]}" for verdict in others]
    return ", ".join([*shares, "settled" if repeats.settled else "not settled"])


def _spread(spread: Spread, write: Callable[[float | None], str]) -> str:
    """``0.98 (0.91 to 1.07)``, or the one value where there is no other."""
    median, low, high = map(write, spread)
    return median if low == high else f"{median} ({low} to {high})"


def facts(report: Report) -> str:
    """``8 rows, 29,770 parameters, projection loss, batch 32, seed 0, float32``"""
    config = report.config
    rows = [row for row in report.rows if row.level == 0]
    size, data = config.get("batch_size"), config.get("data")
    parts = [
        plural(len(rows), report.profile.unit),
        plural(report.profile.parameters, "parameter"),
        f"{config.get('loss')} loss",
        f"batch {size}{f' of {data}' if data else ''}" if size else "",
        f"seed {config['seed']}" if "seed" in config else "",
        f"weights of {config['weights']}" if config.get("weights") else "",
        f"{config.get('dtype')}",
    ]
    return ", ".join(part for part in parts if part)


def _header(report: Report, style: Style) -> list[Text]:
    config, line = report.config, style.safe(facts(report))
    target, title = style.safe(report.target), style.safe(report.name or "")
    heads = [f"{target}: {title}" if title else target]
    if cell_len(heads[0]) > style.width:
        heads = [name(target, style.width), *wrapped(title, style, 0)]
    lines = wrapped(line, style, 0)
    if guessed := config.get("inputs"):
        lines += wrapped(f"inputs guessed: {style.safe(str(guessed))}", style, 0)
    faint = [Text(part, style=FAINT) for part in lines]
    return [*(Text(head, style="bold") for head in heads if head), *faint]


def _finding(finding: Finding, unit: str, style: Style) -> list[Text]:
    colour = SEVERITY_COLOURS[finding.severity] if finding.ignored is None else FAINT
    where = [finding.certainty] if finding.certainty else []
    if finding.row:
        where.append(f"{unit} {style.safe(finding.row)}")
    if finding.line:
        where.append(f"line {finding.line}")
    head = f"{finding.rule} {finding.name}"
    place = f"  {', '.join(where)}" if where else ""
    lines = [Text.assemble((head, f"bold {colour}"), (name(place, style.width - len(head)), FAINT))]
    lines += [Text(line) for line in wrapped(style.safe(finding.message), style, 6)]
    if finding.ignored is not None:
        reason = wrapped(f"ignored: {style.safe(finding.ignored)}", style, 6)
        return lines + [Text(line, style=FAINT) for line in reason]
    return lines + [Text(line) for line in wrapped(style.safe(finding.advice), style, 6, "    →")]
