"""The check's result → GitLab's code quality report, a JSON list."""

from __future__ import annotations

from gradprobe.render.json import dump
from gradprobe.tasks.check.result import CheckResult
from gradprobe.verdict.report import Severity

_SEVERITIES = {Severity.ERROR: "major", Severity.WARNING: "minor", Severity.INFO: "info"}


def render_gitlab(result: CheckResult) -> str:
    """One entry a finding that counts; its fingerprint stays when the line moves."""
    return dump(
        [
            {
                "description": f"{one.rule} {one.name}: {one.message}",
                "check_name": one.rule,
                "fingerprint": one.fingerprint,
                "severity": _SEVERITIES[one.severity],
                "location": {"path": one.path, "lines": {"begin": one.line}},
            }
            for one in result.diagnostics
            if one.counts
        ]
    )
