"""The check's result → SARIF 2.1.0, with what GitHub's code scanning asks for beyond it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from gradprobe.errors import ExitCode, printable
from gradprobe.render.json import dump
from gradprobe.tasks.check.result import CheckResult, Diagnostic
from gradprobe.verdict.report import Severity
from gradprobe.verdict.rules.rule import Rule
from gradprobe.verdict.rules.table import RULES

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_PROBLEMS = {**_LEVELS, Severity.INFO: "recommendation"}  # GitHub's words
_INDEX = {rule.code: index for index, rule in enumerate(RULES)}


def render_sarif(result: CheckResult) -> str:
    """One run with every rule and every finding; what does not count is marked as suppressed."""
    driver = {
        "name": "gradprobe",
        "semanticVersion": result.version,
        "rules": [_rule(rule) for rule in RULES],
    }
    code = result.exit_code
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": code < ExitCode.USAGE, "exitCode": int(code)}],
        "results": [_result(diagnostic) for diagnostic in result.diagnostics],
    }
    return dump({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _rule(rule: Rule) -> dict[str, Any]:
    first, _, rest = rule.explanation.partition("\n")
    text = " ".join(rest.split()) or first
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": first},
        "fullDescription": {"text": text},
        "help": {"text": rule.explanation, "markdown": rule.explanation},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"tags": ["gradient flow"], "problem.severity": _PROBLEMS[rule.severity]},
    }


def _result(diagnostic: Diagnostic) -> dict[str, Any]:
    advice = f"\n{printable(diagnostic.advice)}" if diagnostic.advice else ""
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(diagnostic.path, errors="surrogateescape")},
            "region": {"startLine": diagnostic.line, "startColumn": diagnostic.column},
        }
    }
    if diagnostic.row:
        location["logicalLocations"] = [{"name": diagnostic.row, "kind": "element"}]
    return {
        "ruleId": diagnostic.rule,
        "ruleIndex": _INDEX[diagnostic.rule],
        "level": _LEVELS[diagnostic.severity],
        "message": {"text": printable(diagnostic.message) + advice},
        "locations": [location],
        "partialFingerprints": {
            "gradprobe/v1": diagnostic.fingerprint,
            "primaryLocationLineHash": f"{diagnostic.fingerprint[:16]}:1",
        },
        **({} if diagnostic.counts else {"suppressions": [_suppression(diagnostic)]}),
    }


def _suppression(diagnostic: Diagnostic) -> dict[str, str]:
    if diagnostic.ignored is not None:
        return {"kind": "inSource", "justification": printable(diagnostic.ignored)}
    return {"kind": "external", "justification": "in the baseline"}
