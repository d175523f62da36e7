"""Documents → pages: the templates beside this file, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from msgspec import to_builtins

from gradprobe._version import __version__
from gradprobe.errors import printable
from gradprobe.measure.blocks.profile import BlockProfile, PathProfile
from gradprobe.numbers import count, fraction, kind, number, plural
from gradprobe.render.check.text import summary
from gradprobe.render.html import views
from gradprobe.render.html.diff import differences_view
from gradprobe.render.html.scale import scale_of
from gradprobe.render.html.steps import steps_of
from gradprobe.render.html.sweep import sweep_view
from gradprobe.render.json import finite
from gradprobe.tasks.check.result import CheckResult
from gradprobe.tasks.curves import Sweep
from gradprobe.tasks.diff import Difference
from gradprobe.tasks.documents import commands
from gradprobe.tasks.documents import report as reports
from gradprobe.tasks.documents.diff import DiffDocument
from gradprobe.verdict.report import Report

if TYPE_CHECKING:
    from gradprobe.tasks.documents.base import Document


def report_page(report: Report) -> str:
    """One report: its verdict, its findings and the heat map of its rows."""
    scale = scale_of(_reaches(report))
    view = views.report_view(report, scale)
    return _page("report", reports.ReportDocument.of(report), report.target, view=view)


def comparison_page(compared: Sequence[Report]) -> str:
    """Several reports: a column of cells for each, on one scale. One has the page of a report."""
    if len(compared) == 1:
        return report_page(compared[0])
    view = views.comparison_view(compared)
    title = " · ".join(dict.fromkeys(report.target for report in compared))
    return _page("compare", reports.CompareDocument.of(compared), title, **view)


def block_page(block: BlockProfile, target: str, versions: Mapping[str, str]) -> str:
    """One block, stepped through: forward, backward, and its Jacobian."""
    document = commands.BlockDocument.of(block, target, versions)
    return _page("block", document, target, block=block, steps=steps_of(block))


def paths_page(paths: PathProfile, target: str, versions: Mapping[str, str]) -> str:
    """How much of the gradient comes through how many branches."""
    return _page("paths", commands.PathsDocument.of(paths, target, versions), target, paths=paths)


def sweep_page(sweep: Sweep, versions: Mapping[str, str]) -> str:
    """A curve a target with theory beside it, or a map over two axes."""
    document = commands.SweepDocument.of(sweep, versions)
    return _page("sweep", document, " · ".join(sweep.targets), **sweep_view(sweep))


def check_page(result: CheckResult) -> str:
    """A table of targets, each of which opens its report."""
    done = [outcome.report for outcome in result.outcomes if outcome.report]
    scale = scale_of(reach for report in done for reach in _reaches(report))
    each = [
        (outcome, views.report_view(outcome.report, scale) if outcome.report else None)
        for outcome in result.outcomes
    ]
    document = commands.CheckDocument.of(result)
    return _page("check", document, "check", outcomes=each, summary=summary(result))


def diff_page(differences: Sequence[Difference]) -> str:
    """What changed between two reports of each target."""
    document = DiffDocument.of(differences)
    ends = [(each.before.target, each.after.target) for each in differences]
    title = " · ".join(dict.fromkeys(" → ".join(dict.fromkeys(pair)) for pair in ends))
    return _page("diff", document, title, **differences_view(differences))


def _reaches(report: Report) -> list[float | None]:
    return [report.profile.reach_of(row) for row in report.rows]


def _page(template: str, document: Document, title: str, **context: Any) -> str:
    """A page with the document inside, as ``--format json`` prints it."""
    data = json.dumps(finite(to_builtins(document)), separators=(",", ":"), allow_nan=False)
    for character in "<>&":  # nothing in it ends the element or begins a comment
        data = data.replace(character, f"\\u{ord(character):04x}")
    filled = _templates().get_template(f"{template}.html")
    return filled.render(title=title, data=Markup(data), **context)


@cache
def _templates() -> Environment:
    """The templates; every string that they are given is made printable and escaped."""
    loader = PackageLoader("gradprobe.render.html")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    environment.filters |= {"number": number, "fraction": fraction, "plural": plural}
    environment.filters |= {"count": count, "short": partial(kind, width=18)}
    environment.globals |= {"meanings": views.MEANINGS, "version": __version__}
    for suffix in ("css", "js"):
        text = loader.get_source(environment, f"page.{suffix}")[0].strip()
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        environment.globals |= {suffix: Markup(text), f"{suffix}_hash": f"'sha256-{digest}'"}
    return environment


def _shown(value: Any) -> Any:
    return printable(value) if type(value) is str else value
