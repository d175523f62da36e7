"""The check's result → JUnit XML, which CI servers show as tests."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree as ET

from gradprobe.errors import ExitCode, printable
from gradprobe.tasks.check.result import CheckResult, Diagnostic, Outcome


def render_junit(result: CheckResult) -> str:
    """A test case for each finding of each target, and one that passes where there is none."""
    suite = ET.Element("testsuite", name="gradprobe")
    for outcome in result.outcomes:
        _cases(outcome, suite)
    for tag, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite)))
    root = ET.Element("testsuites", name="gradprobe")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _cases(outcome: Outcome, suite: ET.Element) -> None:
    seen: Counter[str] = Counter()
    for diagnostic in outcome.diagnostics:
        row = f" ({diagnostic.unit} {diagnostic.row})" if diagnostic.row else ""
        name = f"{diagnostic.rule} {diagnostic.name}{row}"
        seen[name] += 1
        case = _case(suite, outcome.path, name if seen[name] == 1 else f"{name} #{seen[name]}")
        _result(outcome, diagnostic, case)
    if not outcome.diagnostics:
        _case(suite, outcome.path, "gradient")


def _case(suite: ET.Element, path: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=printable(path), name=printable(name))


def _result(outcome: Outcome, diagnostic: Diagnostic, case: ET.Element) -> None:
    message = printable(diagnostic.message)
    text = f"{printable(diagnostic.path)}:{diagnostic.line}:{diagnostic.column}: {message}"
    if diagnostic.advice:
        text += f"\n→ {printable(diagnostic.advice)}"
    if not diagnostic.counts:
        reason = diagnostic.ignored if diagnostic.ignored is not None else "in the baseline"
        ET.SubElement(case, "skipped", message=printable(reason))
    elif outcome.exit_code >= ExitCode.USAGE:
        ET.SubElement(case, "error", message=message, type=diagnostic.name).text = text
    elif outcome.fails(diagnostic):
        ET.SubElement(case, "failure", message=message, type=diagnostic.name).text = text
    else:
        ET.SubElement(case, "system-out").text = text
