"""What can be made of a command's result: text, the other formats by name, and a page.

The renderers of pages are imported where one is written: a template engine takes its time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from gradprobe._version import __version__
from gradprobe.measure.blocks.profile import BlockProfile, PathProfile
from gradprobe.measure.measurement import Step
from gradprobe.render import json
from gradprobe.render.block import block_steps
from gradprobe.render.canvas import Style
from gradprobe.render.check.markdown import render_comparison as render_markdown
from gradprobe.render.compare import render_comparison
from gradprobe.render.csv import render_reports as render_csv
from gradprobe.render.csv import render_sweep as render_sweep_csv
from gradprobe.render.diff import render_json as render_diff_json
from gradprobe.render.diff import render_markdown as render_diff_markdown
from gradprobe.render.diff import render_text as render_diff
from gradprobe.render.figure import render_figure
from gradprobe.render.paths import render_paths, render_paths_json
from gradprobe.render.steps import render_steps
from gradprobe.render.sweep import render_sweep, render_sweep_json
from gradprobe.render.text import render_report
from gradprobe.tasks.curves import Sweep
from gradprobe.tasks.diff import Difference
from gradprobe.verdict.report import Report

if TYPE_CHECKING:
    from types import ModuleType

_VERSIONS = {"gradprobe": __version__}


class Views(NamedTuple):
    """One result, to be shown in any of its ways."""

    text: Callable[[Style], str]
    page: Callable[[], str]
    formats: Mapping[str, Callable[[], str]]
    figure: Callable[[str], bytes] | None = None  # by what its file's name ends in

    def shown(self, format: str, style: Style) -> str:
        """The result in a format; the style is that of the text."""
        return self.text(style) if format == "text" else self.formats[format]()


def _pages() -> ModuleType:
    from gradprobe.render.html import page

    return page


def of_report(report: Report, everything: bool) -> Views:
    """One report."""
    return Views(
        lambda style: render_report(report, style, everything=everything),
        lambda: str(_pages().report_page(report)),
        {
            "json": partial(json.render_report, report),
            "csv": partial(render_csv, [report]),
            "markdown": partial(render_markdown, [report]),
        },
        partial(render_figure, [report]),
    )


def of_comparison(reports: Sequence[Report], everything: bool) -> Views:
    """Several reports side by side."""
    return Views(
        lambda style: render_comparison(reports, style, everything=everything),
        lambda: str(_pages().comparison_page(reports)),
        {
            "json": partial(json.render_comparison, reports),
            "csv": partial(render_csv, reports),
            "markdown": partial(render_markdown, reports),
        },
        partial(render_figure, reports),
    )


def of_steps(steps: Sequence[Step], reports: Sequence[Report], everything: bool) -> Views:
    """The steps of a training script; one alone is a report."""
    alone = of_report(reports[0], everything) if len(reports) == 1 else None
    views = alone or of_comparison(reports, everything)
    return views._replace(text=lambda style: render_steps(steps, reports, style, everything))


def of_differences(differences: Sequence[Difference], everything: bool) -> Views:
    """Before and after, of each target."""
    return Views(
        lambda style: render_diff(differences, style, everything),
        lambda: str(_pages().diff_page(differences)),
        {
            "json": partial(render_diff_json, differences),
            "markdown": partial(render_diff_markdown, differences, everything),
        },
    )


def of_block(block: BlockProfile, target: str) -> Views:
    """One block."""
    return Views(
        lambda style: "\n".join(block_steps(block, target, style)),
        lambda: str(_pages().block_page(block, target, _VERSIONS)),
        {"json": lambda: json.render_block(block, target, _VERSIONS)},
    )


def of_paths(paths: PathProfile, target: str, everything: bool) -> Views:
    """The product over blocks, expanded."""
    return Views(
        lambda style: render_paths(paths, target, style, everything=everything),
        lambda: str(_pages().paths_page(paths, target, _VERSIONS)),
        {"json": lambda: render_paths_json(paths, target, _VERSIONS)},
    )


def of_sweep(sweep: Sweep) -> Views:
    """Curves, or a map."""
    return Views(
        lambda style: render_sweep(sweep, style),
        lambda: str(_pages().sweep_page(sweep, _VERSIONS)),
        {
            "json": lambda: render_sweep_json(sweep, _VERSIONS),
            "csv": partial(render_sweep_csv, sweep),
        },
    )
