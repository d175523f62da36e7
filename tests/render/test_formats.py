"""Every output format of the check, from one result made by hand with hostile names.

``GRADPROBE_OVERWRITE=1 pytest tests/render/test_formats.py`` writes the golden files anew.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from helpers.commands import Result
from helpers.handmade import HOSTILE, check_result, diagnostic
from helpers.places import ROOT, TESTS
from jsonschema import Draft4Validator, Draft7Validator

from gradprobe.cli.commands.check import check
from gradprobe.cli.reporting import PublishOptions, publish
from gradprobe.errors import InputError, printable
from gradprobe.render.canvas import ENDLESS, Style, folded
from gradprobe.render.check.formats import FORMATS
from gradprobe.render.check.junit import render_junit
from gradprobe.render.json import render_report
from gradprobe.render.schema import OUTPUTS, output_schema
from gradprobe.tasks.check.result import CheckResult, Outcome, with_fingerprints
from gradprobe.verdict.rules.table import RULES

GOLDEN = TESTS / "golden" / "check"
SARIF = TESTS / "schemas" / "sarif-2.1.0.json"
OVERWRITE = bool(os.environ.get("GRADPROBE_OVERWRITE"))
RESULT = check_result()
COUNTED = [one for one in RESULT.diagnostics if one.counts]
OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def rendered(name: str) -> str:
    return FORMATS[name](RESULT, Style(ENDLESS if name == "concise" else 80))


def test_every_format_can_be_asked_for() -> None:
    offered = get_args(inspect.signature(check).parameters["output_format"].annotation)[0]
    assert list(map(str, offered)) == list(FORMATS)


@pytest.mark.parametrize("name", [*FORMATS, "colour", "ascii"])
def test_the_output_is_the_golden_one(name: str) -> None:
    style = Style(color=name == "colour", ascii=name == "ascii")
    text = FORMATS["full" if name in ("colour", "ascii") else name](RESULT, style)
    path = GOLDEN / f"{name}.txt"
    text = without_what_others_test(name, text)
    if OVERWRITE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def without_what_others_test(name: str, text: str) -> str:
    """JSON and SARIF without wording and reports, a page without its code; the form is theirs."""
    if name == "html":  # test_html.py
        text = re.sub("sha256-[^']*", "sha256-", text)
        return re.sub(r"(<(style|script)[^>]*>).*?(</\2>)", r"\1\3", text, flags=re.DOTALL)
    if name not in ("json", "sarif"):
        return text
    body = json.loads(text)
    assert text == json.dumps(body, indent=2) + "\n"
    if name == "sarif":
        for rule in body["runs"][0]["tool"]["driver"]["rules"]:
            for field in ("shortDescription", "fullDescription", "help"):
                del rule[field]
    else:
        for target in body["targets"]:
            target["report"] = target["report"] and target["report"]["verdict"]
    return json.dumps(body, indent=2) + "\n"


def test_json_holds_each_report_as_probe_prints_it() -> None:
    targets = json.loads(rendered("json"))["targets"]
    for outcome, target in zip(RESULT.outcomes, targets, strict=True):
        alone = json.loads(render_report(outcome.report)) if outcome.report else None
        assert target["report"] == alone


@pytest.mark.parametrize("name", list(FORMATS))
def test_nothing_that_a_terminal_obeys_comes_out(name: str) -> None:
    text = rendered(name)
    assert {c for c in text if unicodedata.category(c) in OBEYED} <= {"\n"}
    text.encode("utf-8")
    assert text.endswith("\n")


def test_concise_is_one_line_a_finding() -> None:
    lines = rendered("concise").splitlines()
    assert len(lines) == len(COUNTED) + 1
    for one, line in zip(COUNTED, lines, strict=False):
        shown = printable(one.message)
        head = f"{printable(one.path)}:{one.line}:{one.column}: {one.rule} {one.name}: "
        assert line == head + shown


# ---- SARIF


def test_sarif_validates_against_the_oasis_schema() -> None:
    schema = json.loads(SARIF.read_text(encoding="utf-8"))
    body = json.loads(rendered("sarif"))
    assert [e.message for e in Draft4Validator(schema).iter_errors(body)] == []
    body["runs"][0]["results"][0]["level"] = "fatal"  # and it can tell
    assert list(Draft4Validator(schema).iter_errors(body))


def test_sarif_carries_what_github_requires() -> None:
    [run] = json.loads(rendered("sarif"))["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [rule.code for rule in RULES]
    for rule in rules:
        for field in ("shortDescription", "fullDescription", "help"):
            assert 0 < len(rule[field]["text"]) < 4096
    assert len(run["results"]) == len(RESULT.diagnostics)
    for one, found in zip(RESULT.diagnostics, run["results"], strict=True):
        assert rules[found["ruleIndex"]]["id"] == found["ruleId"] == one.rule
        assert found["message"]["text"]
        [location] = found["locations"]
        place = location["physicalLocation"]
        uri = place["artifactLocation"]["uri"]
        assert re.fullmatch(r"[A-Za-z0-9._~%/-]+", uri)
        assert unquote(uri, errors="surrogateescape") == one.path
        assert place["region"]["startLine"] == one.line
        assert found["partialFingerprints"]["primaryLocationLineHash"]
        assert ("suppressions" in found) == (not one.counts)
    assert run["invocations"] == [{"executionSuccessful": False, "exitCode": 3}]


def test_sarif_explains_each_rule_in_its_own_words() -> None:
    [run] = json.loads(rendered("sarif"))["runs"]
    for rule, shown in zip(RULES, run["tool"]["driver"]["rules"], strict=True):
        first, *rest = rule.explanation.splitlines()
        assert shown["shortDescription"] == {"text": first}
        assert shown["fullDescription"]["text"].split() == (" ".join(rest) or first).split()
        assert shown["help"] == {"text": rule.explanation, "markdown": rule.explanation}


# ---- JUnit


def test_junit_parses_and_names_are_unique_in_their_class() -> None:
    root = ET.fromstring(rendered("junit"))
    cases = root.findall("testsuite/testcase")
    names = Counter((case.get("classname"), case.get("name")) for case in cases)
    assert set(names.values()) == {1}
    assert len(cases) == len(RESULT.diagnostics) + 1  # the healthy one has a case of its own
    [suite] = root
    assert suite.get("tests") == str(len(cases))
    expected = {"failure": 2 * len(HOSTILE), "error": 2, "skipped": 2}
    for tag, count in expected.items():
        assert len(root.findall(f".//{tag}")) == count
    assert suite.get("failures") == str(expected["failure"])
    assert suite.get("errors") == "2"
    for case in cases:
        assert case.get("classname")
        assert case.get("name")


# ---- GitHub and GitLab


def undone(text: str) -> str:
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, character)
    return text


def test_junit_parses_whatever_letters_a_name_has() -> None:
    named = diagnostic("it broke \ufffe", path="a\uffff.yaml")
    ET.fromstring(render_junit(CheckResult((Outcome("a\uffff.yaml", (named,)),), "1.0")))


def test_github_lines_are_escaped() -> None:
    lines = rendered("github").splitlines()
    assert len(lines) == len(COUNTED)
    for one, line in zip(COUNTED, lines, strict=True):
        command = re.fullmatch(r"::(error|warning|notice) ([^:]*)::(.*)", line)
        assert command, line
        properties = dict(pair.split("=", 1) for pair in command[2].split(","))
        assert list(properties) == ["file", "line", "col", "title"]
        assert undone(properties["file"]) == printable(one.path)
        assert undone(command[3]).split("\n→ ")[0] == printable(one.message)


def test_a_format_without_a_file_is_told_before_anything_is_measured() -> None:
    for output in ("sarif=", "sarif"):
        with pytest.raises(InputError, match=f"-o {output}: the file is missing") as missing:
            _ = PublishOptions(outputs=(output,)).files
        assert missing.value.hint == "-o sarif=FILE"


def test_github_reads_its_lines_where_standard_output_has_few_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    bytes_ = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, encoding="ascii"))
    publish(check_result(), PublishOptions(outputs=(str(tmp_path / "x.txt"),)))
    assert b"::error file=invalid.yaml,line=1" in bytes_.getvalue()
    assert b"%0A\\u2192 " in bytes_.getvalue()


def test_gitlab_fingerprints_are_unique_and_stay_when_a_line_moves() -> None:
    body = json.loads(rendered("gitlab"))
    assert len({entry["fingerprint"] for entry in body}) == len(body) == len(COUNTED)
    for entry in body:
        assert set(entry) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert entry["severity"] in ("info", "minor", "major", "critical", "blocker")
        assert entry["location"]["lines"]["begin"] >= 1
    here, moved = diagnostic(line=3, column=5), diagnostic(line=90, column=1, excerpt="x")
    [a], [b] = with_fingerprints([here]), with_fingerprints([moved])
    assert a.fingerprint == b.fingerprint
    others = [replace(here, path="b"), replace(here, rule="GP102"), replace(here, row="2")]
    assert a.fingerprint not in {with_fingerprints([one])[0].fingerprint for one in others}
    first, second = with_fingerprints([here, here])
    assert first.fingerprint != second.fingerprint


# ---- JSON


def test_json_validates_against_its_published_schema() -> None:
    validator = Draft7Validator(output_schema("check"))
    body = json.loads(rendered("json"), parse_constant=lambda word: pytest.fail(word))
    assert [error.message for error in validator.iter_errors(body)] == []
    body["targets"][0]["report"]["rows"][0]["surprise"] = 1
    assert list(validator.iter_errors(body))


def test_each_json_line_validates() -> None:
    validator = Draft7Validator(output_schema("diagnostic"))
    lines = [json.loads(line) for line in rendered("json-lines").splitlines()]
    assert [line["message"] for line in lines] == [one.message for one in RESULT.diagnostics]
    for line in lines:
        validator.validate(line)


@pytest.mark.parametrize(
    "arguments",
    [
        ("plain", "--depth", "3"),
        ("residual", "--depth", "3", "--blocks"),
        ("residual", "--depth", "3", "--level", "leaves"),
        ("plain", "--depth", "300", "--activation", "sigmoid"),
    ],
    ids=" ".join,
)
def test_what_probe_prints_validates(run: Callable[..., Result], arguments: tuple[str]) -> None:
    body = json.loads(run("probe", *arguments, "--width", "8", "--format", "json").out)
    assert [e.message for e in Draft7Validator(output_schema("report")).iter_errors(body)] == []


PRINTED = {
    "compare": [("compare", "plain", "residual", "--depth", "3")],
    "paths": [
        ("paths", "residual", "--depth", "3"),
        ("paths", "residual", "--depth", "6", "--max-paths", "3"),
    ],
    "sweep": [
        ("sweep", "plain", "residual", "--depth", "2,8", "--theory"),
        ("sweep", "plain", "--depth", "2,4", "--gain", "0.5,2", "--theory"),
        ("sweep", "plain", "--depth", "9", "--activation", "tanh,relu", "--gain", "1e-9,1"),
    ],
    "fix": [
        ("fix", "plain", "--depth", "20"),
        ("fix", "plain", "--depth", "2"),
        ("fix", "model_specs/lstm_100.yaml", "--seeds", "1"),
    ],
}


@pytest.mark.parametrize(
    ("of", "arguments"),
    [(of, arguments) for of, several in PRINTED.items() for arguments in several],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_the_other_commands_print_validates(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, of: str, arguments: tuple[str]
) -> None:
    monkeypatch.chdir(ROOT)
    body = json.loads(run(*arguments, "--format", "json").out)
    assert [e.message for e in Draft7Validator(output_schema(of)).iter_errors(body)] == []
    for inside in objects(body):  # nothing is in it that the schema does not know
        inside["surprise"] = {}
        assert not Draft7Validator(output_schema(of)).is_valid(body)
        del inside["surprise"]


def objects(value: object) -> Iterator[dict[str, object]]:
    """Every JSON object in ``value``, itself included; not what is within a ``config``."""
    if isinstance(value, dict):
        yield value
        for key, inside in value.items():
            if key != "config":
                yield from objects(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from objects(inside)


@pytest.mark.parametrize("name", ["spec", *OUTPUTS])
def test_the_schemas_are_schemas(run: Callable[..., Result], name: str) -> None:
    ended = run("schema", name)
    Draft7Validator.check_schema(json.loads(ended.out))
    assert (ended.code, ended.err) == (0, "")


# ---- Markdown


def test_markdown_shows_names_as_they_are() -> None:
    lines = rendered("markdown").splitlines()
    table = lines[2:]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {6}  # no name splits a cell
    assert len(table) == len(COUNTED) + 2
    text = rendered("markdown")
    assert not re.search(r"<(?!/?b>)[a-z]|@team|(?<!&)#1", text.replace("###", ""))
    assert "<b>" not in text


def test_a_terminal_gets_concise_lines_folded_between_words() -> None:
    lines = FORMATS["concise"](RESULT, Style(40)).splitlines()
    assert max(map(len, lines)) <= 40
    assert any(line.startswith("    ") for line in lines)


def test_a_number_and_its_unit_stay_in_one_line() -> None:
    text = "43 % chance of training under SGD, 93 % under SGD or Adam"
    for width in range(10, 40):
        lines = folded(text, width, "  ")
        assert not any(line.lstrip().startswith("%") for line in lines)
        assert " ".join(line.strip() for line in lines) == text
