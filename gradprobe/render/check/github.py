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
    return "".join(_command(one) for one in result.diagnostics if one.counts)


def _command(one: Diagnostic) -> str:
    properties = {
        "file": printable(one.path),
        "line": str(one.line),
        "col": str(one.column),
        "title": f"gradprobe {one.rule} {one.name}",
    }
    told = ",".join(f"{key}={_escaped(value, _PROPERTY)}" for key, value in properties.items())
    advice = f"\n→ {printable(one.advice)}" if one.advice else ""
    message = _escaped(printable(one.message) + advice, _DATA)
    return f"::{_COMMANDS[one.severity]} {told}::{message}\n"


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(character, character) for character in text)
