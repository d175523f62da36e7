"""The output formats of the check, by name."""

from __future__ import annotations

from collections.abc import Callable

from gradprobe.render.canvas import Style
from gradprobe.render.check.github import render_github
from gradprobe.render.check.gitlab import render_gitlab
from gradprobe.render.check.junit import render_junit
from gradprobe.render.check.markdown import render_markdown
from gradprobe.render.check.sarif import render_sarif
from gradprobe.render.check.text import render_concise, render_full
from gradprobe.render.json import render_check, render_lines
from gradprobe.tasks.check.result import CheckResult

FORMATS: dict[str, Callable[[CheckResult, Style], str]] = {
    "concise": render_concise,
    "full": render_full,
    "json": lambda result, style: render_check(result),
    "json-lines": lambda result, style: render_lines(result),
    "junit": lambda result, style: render_junit(result),
    "sarif": lambda result, style: render_sarif(result),
    "github": lambda result, style: render_github(result),
    "gitlab": lambda result, style: render_gitlab(result),
    "html": lambda result, style: _page(result),
    "markdown": lambda result, style: render_markdown(result),
}


def _page(result: CheckResult) -> str:
    from gradprobe.render.html.page import check_page

    return check_page(result)


CONCISE = "concise"
FOR_PEOPLE = (CONCISE, "full")
