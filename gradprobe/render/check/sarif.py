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
        "results": [_result(one) for one in result.diagnostics],
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
        "properties": {"tags": ["gradient flow"], "problem.severity": _problem(rule)},
    }


def _problem(rule: Rule) -> str:
    """GitHub's word for the severity."""
    return "recommendation" if rule.severity is Severity.INFO else str(rule.severity)


def _result(one: Diagnostic) -> dict[str, Any]:
    advice = f"\n{printable(one.advice)}" if one.advice else ""
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(one.path, errors="surrogateescape")},
            "region": {"startLine": one.line, "startColumn": one.column},
        }
    }
    if one.row:
        location["logicalLocations"] = [{"name": one.row, "kind": "element"}]
    return {
        "ruleId": one.rule,
        "ruleIndex": _INDEX[one.rule],
        "level": _LEVELS[one.severity],
        "message": {"text": printable(one.message) + advice},
        "locations": [location],
        "partialFingerprints": {
            "gradprobe/v1": one.fingerprint,
            "primaryLocationLineHash": f"{one.fingerprint[:16]}:1",
        },
        **({} if one.counts else {"suppressions": [_suppression(one)]}),
    }


def _suppression(one: Diagnostic) -> dict[str, str]:
    if one.ignored is not None:
        return {"kind": "inSource", "justification": printable(one.ignored)}
    return {"kind": "external", "justification": "in the baseline"}
