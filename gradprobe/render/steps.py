"""The steps of a training script → text: one report, or a column a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradprobe.measure.measurement import Step
from gradprobe.render.canvas import Style
from gradprobe.render.compare import render_comparison
from gradprobe.render.text import render_report
from gradprobe.verdict.report import Report


def render_steps(reports: Sequence[Report], style: Style, everything: bool) -> str:
    """Each report whole, or, of several targets, side by side."""
    if len({report.target for report in reports}) > 1:
        return render_comparison(reports, style, everything=everything)
    return "\n".join(render_report(report, style, everything=everything) for report in reports)


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
