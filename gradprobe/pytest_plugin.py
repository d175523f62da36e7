"""The pytest plugin: the fixture ``gradient_report`` and the option ``--gradprobe-report``.

It costs a test run nothing until a test asks for the fixture: torch is imported when something is
measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gradprobe.verdict.report import Report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("gradprobe").addoption(
        "--gradprobe-report",
        metavar="DIR",
        help="write each report that a test asks gradient_report for to DIR, as text and JSON",
    )


@pytest.fixture
def gradient_report(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """``gradprobe.probe``, whose reports are kept where ``--gradprobe-report DIR`` says.

    The files are called after the test: ``test_file.py__test_name.txt`` and ``.json``; a second
    report of the same test ends in ``-2``.
    """
    folder = request.config.getoption("gradprobe_report")
    stem = re.sub(r"[^\w.\-\[\]]+", "_", request.node.nodeid.replace("::", "__"))[-200:]
    count = 0

    def probed(model: Any, inputs: Any = None, **options: Any) -> Report:
        nonlocal count
        from gradprobe.tasks.probe import probe

        report = probe(model, inputs, **options)
        if folder:
            count += 1
            # A relative folder is where pytest was started, wherever the test has gone.
            _keep(
                report,
                request.config.invocation_params.dir / folder,
                stem if count == 1 else f"{stem}-{count}",
            )
        return report

    return probed


def _keep(report: Report, folder: Path, stem: str) -> None:
    from gradprobe.files import write_atomically
    from gradprobe.render.json import render_report as render_json
    from gradprobe.render.text import render_report as render_text

    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(str(folder / f"{stem}.txt"), render_text(report))
    write_atomically(str(folder / f"{stem}.json"), render_json(report))
