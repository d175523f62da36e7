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
                "description": f"{diagnostic.rule} {diagnostic.name}: {diagnostic.message}",
                "check_name": diagnostic.rule,
                "fingerprint": diagnostic.fingerprint,
                "severity": _SEVERITIES[diagnostic.severity],
                "location": {"path": diagnostic.path, "lines": {"begin": diagnostic.line}},
            }
            for diagnostic in result.diagnostics
            if diagnostic.counts
        ]
    )
