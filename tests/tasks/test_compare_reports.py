"""``gradprobe compare`` with reports in JSON: before and after, row by row."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.check_specs import GOOD
from helpers.commands import Run

import gradprobe
from gradprobe.render.json import render_report
from gradprobe.spec.network import NetworkSpec
from gradprobe.tasks import read_report

pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture
def before(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "before.json"
    run("probe", "plain", "--depth", "12", "--width", "8", "--format", "json", "-o", str(path))
    return path


def test_a_report_stands_beside_a_live_target_as_if_it_were_one(run: Run, before: Path) -> None:
    options = ("--depth", "12", "--width", "8")
    live = run("compare", "plain", "residual", *options)
    kept = run("compare", str(before), "residual", *options)
    assert kept.code == 0
    assert kept.out == live.out
    both = json.loads(run("compare", str(before), "plain", *options, "--format", "json").out)
    first, second = both["reports"]
    assert first == second
    assert first["findings"][0]["rule"] == "GP103"
    arguments = ("compare", str(before), str(before), "--fail-on")
    assert (run(*arguments, "warning").code, run(*arguments, "error").code) == (1, 0)


def test_what_check_and_compare_print_can_be_compared(
    run: Run,
    before: Path,
    tmp_path: Path,
    shared_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    run("compare", "plain", "residual", "--depth", "2", "--format", "json", "-o", "two.json")
    ended = run("compare", "two.json", str(before))
    heads = [line.split() for line in ended.out.splitlines() if line.startswith("   ")]
    assert [word for head in heads for word in head if word in ("plain", "residual")] == [
        "plain",
        "residual",
        "plain",
    ]
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text("input: {shape: [8]}\nlayers: [Linaer]\n")
    cache = ("--cache-dir", str(shared_cache))
    assert run("check", *cache, "--output-format", "json", "-o", "all.json").code == 2
    assert run("compare", "all.json", "two.json").out.splitlines()[0].split()[0] == "a.yaml"


def test_markdown_for_a_review(run: Run, before: Path) -> None:
    ended = run("compare", str(before), "residual", "--depth", "12", "--format", "markdown")
    lines = ended.out.splitlines()
    assert lines[0] == "| row | plain | residual |"
    assert lines[1] == "| --- | --- | --- |"
    assert lines[2].startswith("| 0 | ")
    assert any("healthy" in line for line in lines)
    assert {line.count("|") for line in lines} == {4}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "the spec is empty"),
        ('{"schema_version": 1', "not JSON"),
        ('{"schema_version": ' + "[" * 100_000, "not JSON"),
        ('{"schema_version": 9}', "schema_version 9"),
        ('{"schema_version": 1}', "rows"),
        ('{"schema_version": 1, "rows": 3}', "not a report"),
        ('{"schema_version": 1, "rows": [[]]}', "not a report"),
        ('{"schema_version": 1, "targets": []}', "holds no report"),
        ('{"schema_version": 1, "targets": {}}', "holds no report"),
        ('{"schema_version": 1, "reports": [null]}', "not a report"),
    ],
    ids=lambda text: text[:30],
)
def test_what_is_no_report_is_exit_2(run: Run, tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "x.json").write_text(text)
    ended = run("compare", str(tmp_path / "x.json"), "plain", "--depth", "2")
    assert (ended.code, ended.out) == (2, "")
    assert word in ended.err
    assert "Traceback" not in ended.err


def put(body: Any, at: str, value: object) -> None:
    """Set what ``at`` names: ``rows.0.level``."""
    *keys, last = [int(word) if word.isdigit() else word for word in at.split(".")]
    for key in keys:
        body = body[key]
    body[last] = value


FINDING = {
    "rule": "GP103", "name": "weak", "severity": "warning", "row": "0", "line": None,
    "column": None, "message": "m", "advice": "a", "value": 0.5, "threshold": 0.1, "status": "ok",
    "ignored": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("at", "value", "path"),
    [
        ("loss", "Infinity", "$.loss"),
        ("config.seed", "-Infinity", "$.config[...]"),
        ("config.thresholds.vanishing", "NaN", "$.config[...][...]"),
        ("rows.2.activation_rms", "1e999", "$.rows[2].activation_rms"),
        ("rows.2.gradient_norm", "-0.5", "$.rows[2].gradient_norm"),
        ("rows.2.gradient_norm", "1" + 400 * "0", "$.rows[2].gradient_norm"),
        ("rows.1.level", "true", "$.rows[1].level"),
        ("rows.1.status", '"fine"', "$.rows[1].status"),
        ("config.level", 60 * "[" + 60 * "]", "$.config[...]"),
        ("findings", json.dumps([{**FINDING, "severity": 2}]), "$.findings[0].severity"),
        ("findings", json.dumps([FINDING, {**FINDING, "line": 0}]), "$.findings[1].line"),
        ("versions", "[]", "$.versions"),
    ],
    ids=lambda text: text[:30],
)
@pytest.mark.parametrize("whole", ["{}", '{{"schema_version": 1, "reports": [{}]}}'], ids=len)
def test_an_edited_report_is_exit_2_with_the_place(
    run: Run, before: Path, at: str, value: str, path: str, whole: str
) -> None:
    body = json.loads(before.read_text())
    put(body, at, "HERE")
    before.write_text(whole.format(json.dumps(body).replace('"HERE"', value)))
    ended = run("compare", str(before), "plain", "--depth", "2")
    assert (ended.code, ended.out) == (2, "")
    assert f"{before} is not a report of gradprobe: " in ended.err
    assert f"at `$.reports[0]{path[1:]}`" in ended.err if "reports" in whole else path in ended.err


def test_what_a_later_gradprobe_adds_is_passed_over(run: Run, before: Path) -> None:
    known = run("compare", str(before), "--format", "json")
    body = json.loads(before.read_text())
    body["surprise"] = body["rows"][0]["surprise"] = [1e9]
    before.write_text(json.dumps(body))
    assert run("compare", str(before), "--format", "json").out == known.out
    assert known.code == 0


def test_a_report_without_rows_is_exit_2(run: Run, before: Path) -> None:
    body = json.loads(before.read_text())
    body["rows"] = body["rows"][:1]
    body["rows"][0]["level"] = 1
    for command in (("compare",), ("diff", "--all", str(before))):
        before.write_text(json.dumps(body))
        ended = run(*command, str(before))
        assert (ended.code, ended.out) == (2, "")
        assert f"{before} holds no report, or one without rows" in ended.err
        body["rows"] = []


def test_a_report_that_is_not_there_is_exit_2(run: Run, tmp_path: Path) -> None:
    ended = run("compare", str(tmp_path / "gone.json"), "plain")
    assert ended.code == 2
    assert "no such file" in ended.err


HUGE = """
input: {shape: [8]}
init: {Linear: {weight: {constant: {val: 1.0e+25}}}}
layers:
  - Linear: {out_features: 8}
  - repeat: {times: 3, layers: [Linear: {out_features: 8}]}
"""


def test_a_report_with_places_and_without_finite_numbers_is_read_as_it_was_written(
    parse: Callable[[str], NetworkSpec], tmp_path: Path
) -> None:
    report = gradprobe.probe(parse(HUGE))
    assert report.rows[1].column
    assert any(f.value is not None and not math.isfinite(f.value) for f in report.findings)
    path = tmp_path / "report.json"
    path.write_text(render_report(report), encoding="utf-8-sig")  # as PowerShell does
    [again] = read_report.load(str(path))
    assert render_report(again) == render_report(report)
