"""The steps of a training script → text: one report, or a column a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from gradprobe.measure.measurement import Step
from gradprobe.render import json
from gradprobe.render.canvas import Style
from gradprobe.render.compare import render_comparison
from gradprobe.render.text import render_report
from gradprobe.verdict.report import Report


def _text(reports: Sequence[Report], style: Style, everything: bool) -> str:
    if len({report.target for report in reports}) > 1:
        return render_comparison(reports, style, everything=everything)
    return "\n".join(render_report(report, style, everything=everything) for report in reports)


def _json(reports: Sequence[Report], style: Style, everything: bool) -> str:
    return json.render_report(reports[0]) if len(reports) == 1 else json.render_comparison(reports)


RENDERERS: Mapping[str, Callable[[Sequence[Report], Style, bool], str]] = {
    "text": _text,
    "json": _json,
}


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
