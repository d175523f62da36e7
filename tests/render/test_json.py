"""The JSON that other programs rely on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.commands import Result
from helpers.handmade import chain, finding, profile, report, row, with_reach
from torch import Tensor, nn

import gradprobe
from gradprobe.measure.profile import RowStatus
from gradprobe.render.json import render_comparison, render_report
from gradprobe.verdict.report import Report, Severity, Verdict

TOP = {
    "schema_version": int,
    "target": str,
    "verdict": str,
    "reach": float,
    "decay": float,
    "parameters": int,
    "rows": list,
    "findings": list,
    "config": dict,
    "versions": dict,
}
ROW = {
    "name": str,
    "kind": str,
    "line": int | None,
    "parameters": int,
    "gradient_norm": float,
    "reach": float,
    "weight_gradient_norm": float | None,
    "weight_norm": float | None,
    "activation_rms": float,
    "input_dependence": float,
    "zero_fraction": float,
}
FINDING = {
    "rule": str,
    "name": str,
    "severity": str,
    "row": str | None,
    "message": str,
    "value": float | None,
    "threshold": float | None,
    "line": int | None,
}
CONFIG = {"seed", "batch_size", "dtype", "device", "loss", "data", "level", "thresholds"}


def strict(text: str) -> Any:
    """JSON as the standard has it: no NaN, no infinity, no key twice."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs)
        return dict(pairs)

    return json.loads(text, parse_constant=refuse, object_pairs_hook=once)


def fits(value: dict[str, Any], fields: dict[str, Any]) -> bool:
    return all(isinstance(value[key], kind) for key, kind in fields.items())


SPEC = """input: {shape: [8]}
layers:
  - Linear: {out_features: 8}
  - repeat:
      times: 30
      layers: [Linear: {out_features: 8}, Sigmoid]
  - Linear: {out_features: 8}
"""


@pytest.fixture
def spec(tmp_path: Any) -> str:
    (tmp_path / "net.yaml").write_text(SPEC)
    return str(tmp_path / "net.yaml")


def test_the_fields_of_the_contract(run: Callable[..., Result], spec: str) -> None:
    ended = run("probe", spec, "--format", "json", "--seed", "3", "--dtype", "float64")
    answer = strict(ended.out)
    assert ended.code == 1
    assert fits(answer, TOP)
    assert answer["schema_version"] == 1
    assert answer["target"] == spec
    assert answer["verdict"] == "vanishing"
    assert len(answer["rows"]) == 32
    assert all(fits(one, ROW) for one in answer["rows"])
    assert [one["line"] for one in answer["rows"]] == [3, *[6] * 30, 7]
    assert all(fits(one, FINDING) for one in answer["findings"])
    [found] = answer["findings"]
    assert (found["rule"], found["name"], found["severity"]) == ("GP101", "vanishing", "error")
    assert (found["row"], found["line"], found["threshold"]) == ("0", 3, 1e-4)
    assert found["value"] == answer["reach"] < 1e-4
    assert set(answer["config"]) >= CONFIG
    assert answer["config"]["seed"] == 3
    assert answer["config"]["dtype"] == "float64"
    assert answer["config"]["batch_size"] == 32
    assert answer["versions"]["gradprobe"] == gradprobe.__version__
    assert answer["versions"]["torch"] == torch.__version__
    assert answer["parameters"] == sum(one["parameters"] for one in answer["rows"])


def test_the_numbers_are_those_of_the_report(parse: Callable) -> None:
    found = gradprobe.probe(parse(SPEC))
    answer = strict(render_report(found))
    for one, measured in zip(answer["rows"], found.rows, strict=True):
        for key in set(ROW) - {"parameters", "reach"}:
            assert one[key] == getattr(measured, key)
        assert one["reach"] == found.profile.reach_of(measured)
    assert answer["reach"] == found.reach
    assert answer["decay"] == found.decay
    assert answer["half_life"] == found.profile.half_life
    assert answer["loss"] == found.profile.loss


def test_the_config_is_enough_to_run_it_again(run: Callable[..., Result], spec: str) -> None:
    options = ["--seed", "9", "--batch-size", "5", "--loss", "mse", "--dtype", "float64"]
    first = run("probe", spec, *options, "--format", "json").out
    config = strict(first)["config"]
    again = [
        word
        for key in ("seed", "batch_size", "loss", "dtype", "device", "level")
        for word in (f"--{key.replace('_', '-')}", str(config[key]))
    ]
    assert run("probe", spec, *again, "--format", "json").out == first


# ---- the same bytes, and only JSON


def test_the_same_input_gives_the_same_bytes(run: Callable[..., Result]) -> None:
    arguments = ["probe", "residual", "--depth", "4", "--format", "json"]
    texts = {run(*arguments).out, run(*arguments).out}
    assert len(texts) == 1
    assert texts.pop().endswith("}\n")


@pytest.mark.slow
def test_no_order_of_a_set_shows(run_process: Callable[..., Result]) -> None:
    arguments = ["probe", "residual", "--depth", "4", "--format", "json"]
    texts = {run_process(*arguments, PYTHONHASHSEED=seed).out for seed in "12"}
    assert len(texts) == 1


def test_standard_output_is_json_alone_and_ascii(run: Callable[..., Result], spec: str) -> None:
    ended = run("probe", spec, "--format", "json", "--color", "always")
    assert ended.out.isascii()
    assert ended.err == ""
    assert strict(ended.out)


def test_a_file_gets_the_same_bytes_as_standard_output(
    run: Callable[..., Result], spec: str, tmp_path: Any
) -> None:
    printed = run("probe", spec, "--format", "json")
    written = run("probe", spec, "--format", "json", "-o", tmp_path / "out.json")
    assert (written.code, written.out) == (printed.code, "")
    assert (tmp_path / "out.json").read_text() == printed.out


def test_a_comparison_is_one_object_with_a_report_for_each_target(
    run: Callable[..., Result],
) -> None:
    ended = run("compare", "plain", "residual", "--depth", "3", "--format", "json")
    answer = strict(ended.out)
    assert answer["schema_version"] == 1
    assert [one["target"] for one in answer["reports"]] == ["plain", "residual"]
    alone = strict(run("probe", "plain", "--depth", "3", "--format", "json").out)
    assert answer["reports"][0] == alone


# ---- null, beside a status that says why


def answer_of(made: Report) -> dict[str, Any]:
    return strict(render_report(made))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_null_beside_a_status(bad: float) -> None:
    broken = row("a", bad, activation_rms=bad, input_dependence=None)
    measured = profile(broken, row("b"), row("head"), loss=bad)
    answer = answer_of(report(measured, [finding(value=bad, threshold=None)], Verdict.NON_FINITE))
    assert (answer["reach"], answer["status"]) == (None, "non-finite")
    assert answer["loss"] is None
    first = answer["rows"][0]
    assert (first["gradient_norm"], first["activation_rms"]) == (None, None)
    assert first["status"] == "non-finite"
    assert (answer["findings"][0]["value"], answer["findings"][0]["status"]) == (None, "non-finite")


@pytest.mark.parametrize(
    ("norms", "reach", "status"),
    [
        ((0.5, 1.0, 1.0), 0.5, "ok"),
        ((0.0, 1.0, 1.0), 0.0, "ok"),
        ((None, 1.0, 1.0), None, "no-gradient"),
        ((1.0, 1.0, None), None, "no-gradient"),
        ((0.0, 0.0, 0.0), None, "zero-gradient"),
        ((math.nan, 1.0, 1.0), None, "non-finite"),
        ((math.inf, 1.0, 1.0), None, "non-finite"),
        ((1.0, 1.0, math.nan), None, "non-finite"),
        ((1e300, 1.0, 1e-300), None, "non-finite"),
    ],
)
def test_the_status_of_the_reach_says_why_there_is_none(
    norms: tuple, reach: float | None, status: str
) -> None:
    answer = answer_of(report(chain(*norms)))
    assert (answer["reach"], answer["status"]) == (reach, status)


@pytest.mark.parametrize("status", RowStatus)
def test_each_row_has_its_status(status: RowStatus) -> None:
    answer = answer_of(report(profile(row("a", None, status=status), row("b"))))
    assert answer["rows"][0]["status"] == str(status)
    assert answer["rows"][0]["gradient_norm"] is None


def test_an_infinite_weight_gradient_of_a_real_row_is_null_beside_a_status() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.p.sqrt()

    model = nn.Sequential(nn.Linear(3, 3), Root(), nn.Linear(3, 3), nn.Linear(3, 2))
    found = gradprobe.probe(model, torch.randn(4, 3))
    one = answer_of(found)["rows"][1]
    assert found.verdict == "non-finite"
    assert (one["weight_gradient_norm"], one["status"]) == (None, "non-finite")


def test_a_nan_on_the_command_line_is_null_and_exits_1(
    run: Callable[..., Result], tmp_path: Any
) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(
        SPEC.replace("Sigmoid", "Tanhshrink") + "init: {Linear: {weight: {normal: {std: 1e20}}}}"
    )
    ended = run("probe", path, "--format", "json")
    answer = strict(ended.out)
    assert ended.code == 1
    assert answer["verdict"] == "non-finite"
    assert answer["reach"] is None
    assert answer["status"] == "non-finite"


def test_a_gradient_below_the_smallest_float32_is_there() -> None:
    answer = answer_of(report(chain(1.2e-22, 1.0, 1.0)))
    assert answer["rows"][0]["gradient_norm"] == 1.2e-22


@pytest.mark.parametrize("field", ["value", "threshold"])
def test_thresholds_and_values_that_are_not_finite_are_null(field: str) -> None:
    made = report(with_reach(1e-9), [finding(**{field: math.inf})], Verdict.VANISHING)
    assert answer_of(made)["findings"][0][field] is None


def test_a_network_without_rows_that_ran_is_still_an_object() -> None:
    answer = answer_of(report(profile()))
    assert (answer["rows"], answer["reach"], answer["trunk"]) == ([], None, None)
    assert answer["status"] == "no-gradient"


def test_names_of_every_kind_come_through(tmp_path: Any) -> None:
    names = ["layers[attn].w", "\x1b[31m", "é✓", "a\nb", '"', "\u202e", "\ud800"]
    answer = answer_of(report(profile(*(row(name) for name in names))))
    assert [one["name"] for one in answer["rows"]] == names


def test_an_ignored_finding_carries_its_reason() -> None:
    ignored = finding(Severity.ERROR, ignored="it is meant to")
    answer = answer_of(report(with_reach(1e-9), [ignored, finding()], Verdict.VANISHING))
    assert [one["ignored"] for one in answer["findings"]] == ["it is meant to", None]
    assert answer["verdict"] == "vanishing"


def test_several_reports_are_in_the_order_in_which_they_came() -> None:
    made = [report(chain(1.0, 1.0), target=name) for name in ("b", "a", "b")]
    answer = strict(render_comparison(made))
    assert [one["target"] for one in answer["reports"]] == ["b", "a", "b"]
