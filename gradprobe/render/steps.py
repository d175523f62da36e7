"""The steps of a training script → text: one report, or a column a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import RenderableType
from rich.text import Text

from gradprobe.measure.measurement import Step
from gradprobe.render.canvas import Style, paint
from gradprobe.render.compare import render_comparison
from gradprobe.render.text import finding_lines, render_report
from gradprobe.verdict.report import Report


def render_steps(
    steps: Sequence[Step], reports: Sequence[Report], style: Style, everything: bool
) -> str:
    """Each report whole, or several steps side by side, with what was first found at each."""
    if len({step.number for step in steps}) == 1:
        return "\n".join(render_report(report, style, everything=everything) for report in reports)
    parts: list[RenderableType] = []
    known: set[tuple[int, str, str | None]] = set()
    for step, report in zip(steps, reports, strict=True):
        keys = {(step.optimizer, f.rule, f.row): f for f in report.findings}
        new = tuple(finding for key, finding in keys.items() if key not in known)
        known |= set(keys)
        if new:
            head = Text(style.safe(report.target), style="bold")
            found = replace(report, findings=new)
            parts += [Text(""), head, *finding_lines(found, style, everything)]
    return render_comparison(reports, style, everything=everything) + paint(parts, style)


def facts(steps: Sequence[Step]) -> Iterator[str]:
    """What stands beside the reports: how the step came about, and what they do not show."""
    several = len({step.optimizer for step in steps}) > 1
    for step in steps:
        where = f"step {step.number} of {step.kind}"
        where += f" ({step.optimizer})" if several else ""
        if step.backwards > 1:
            yield f"{where}: the last of {step.backwards:,} backward passes is shown"
        if step.scale:
            yield f"{where}: the loss is scaled by {step.scale:,.0f}, the numbers are without it"
        if step.others:
            yield f"{where}: not shown: {', '.join(step.others)}"
