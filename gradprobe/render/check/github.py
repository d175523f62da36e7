"""The check's result → GitHub's workflow commands, which annotate the lines of a pull request."""

from __future__ import annotations

from gradprobe.errors import printable
from gradprobe.tasks.check.result import CheckResult, Diagnostic
from gradprobe.verdict.report import Severity

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = _DATA | {":": "%3A", ",": "%2C"}


def render_github(result: CheckResult) -> str:
    """One ``::error file=…,line=…,col=…,title=…::message`` for each finding that counts."""
    return "".join(_command(diagnostic) for diagnostic in result.diagnostics if diagnostic.counts)


def _command(diagnostic: Diagnostic) -> str:
    properties = {
        "file": printable(diagnostic.path),
        "line": str(diagnostic.line),
        "col": str(diagnostic.column),
        "title": f"gradprobe {diagnostic.rule} {diagnostic.name}",
    }
    place = ",".join(f"{key}={_escaped(value, _PROPERTY)}" for key, value in properties.items())
    advice = f"\n→ {printable(diagnostic.advice)}" if diagnostic.advice else ""
    message = _escaped(printable(diagnostic.message) + advice, _DATA)
    return f"::{_COMMANDS[diagnostic.severity]} {place}::{message}\n"


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(character, character) for character in text)
