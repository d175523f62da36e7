"""Numbers that JSON and float32 cannot hold, and gradients that are not there."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from helpers.bad_inputs import HEAD
from helpers.commands import Run

import gradprobe

HUGE = "{out_features: 6, init: {weight: {normal: {std: 1e25}}}}"


def finite_json(text: str) -> Any:
    def constant(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=constant)


@pytest.mark.parametrize(
    ("layers", "maker"),
    [
        pytest.param(f"- Linear: {HUGE}\n- Linear: {HUGE}\n- Tanh\n- Linear: {HUGE}\n", "1"),
        pytest.param(
            f"- Linear: {{out_features: 6}}\n- repeat: {{times: 5, layers: [Linear: {HUGE}]}}\n",
            "1.1",
        ),
        pytest.param(
            f"- Linear: {{out_features: 6}}\n- Tanh\n- residual: [Linear: {HUGE}, Linear: {HUGE}]\n"
            "- Linear: {out_features: 3}\n",
            "2",
        ),
        pytest.param(
            f"- Linear: {HUGE}\n- sequential:\n    name: stage\n    layers: [Linear: {HUGE}]\n"
            "- Linear: {out_features: 3}\n",
            "stage",
        ),
    ],
    ids=["overflow-linear", "overflow-repeat", "overflow-residual", "overflow-named"],
)
def test_overflow(probe: Run, layers: str, maker: str) -> None:
    spec = HEAD + "layers:\n" + layers
    result = probe(spec, "--format", "json")
    assert result.code == 1
    assert result.err == ""
    report = finite_json(result.out)
    assert report["verdict"] == "non-finite"
    rows = {row["name"]: row for row in report["rows"]}
    assert rows[maker]["status"] == "non-finite"
    assert rows[maker]["activation_rms"] is None
    before = report["rows"][: list(rows).index(maker)]
    assert all(row["activation_rms"] is not None for row in before)
    [finding] = [f for f in report["findings"] if f["name"] == "non-finite"]
    assert (finding["row"], finding["severity"]) == (maker, "error")
    assert (finding["value"], finding["status"]) == (None, "non-finite")
    text = probe(spec)
    assert text.code == 1
    assert "non-finite" in text.out
    assert f"row {maker}" in text.out
    assert probe(spec, "--dtype", "float64", "--exit-zero").code == 0


def test_infinite_loss(probe: Run) -> None:
    spec = HEAD + f"layers: [Linear: {HUGE}]\nloss: mse\n"
    result = probe(spec, "--format", "json")
    assert result.code == 1
    report = finite_json(result.out)
    assert (report["verdict"], report["loss"]) == ("non-finite", None)
    assert report["rows"][0]["activation_rms"] > 1e20


@pytest.mark.parametrize("times", [8, 9, 10])
@pytest.mark.parametrize("std", [0.0008, 0.001])
def test_small_is_not_zero(probe: Run, times: int, std: float) -> None:
    """Squares of such gradients underflow in float32; the norms must not."""
    spec = (
        HEAD
        + "layers:\n- Linear: {out_features: 8}\n- repeat:\n"
        + f"    times: {times}\n    layers: [Linear: {{out_features: 8, bias: false, "
        + f"init: {{weight: {{normal: {{std: {std}}}}}}}}}]\n- Linear: {{out_features: 2}}\n"
    )
    single, double = (
        json.loads(probe(spec, "--dtype", dtype, "--format", "json").out)["rows"]
        for dtype in ("float32", "float64")
    )
    assert 1e-30 < double[0]["gradient_norm"] < 1e-20
    for row, exact in zip(single, double, strict=True):
        assert row["status"] == "ok"
        for key in ("gradient_norm", "reach", "weight_gradient_norm", "activation_rms"):
            assert row[key] == pytest.approx(exact[key], rel=1e-4, abs=0)


class Cut(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 4)
        self.second = torch.nn.Linear(4, 4)
        self.third = torch.nn.Linear(4, 4)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x)).detach()
        out: torch.Tensor = self.head(self.third(x))
        return out


def test_no_gradient_is_not_a_vanishing_one() -> None:
    report = gradprobe.probe(Cut(), torch.randn(8, 4))
    assert report.verdict is gradprobe.Verdict.DISCONNECTED
    assert [row.status for row in report.rows[:2]] == ["no-gradient", "no-gradient"]
    assert [row.gradient_norm for row in report.rows[:2]] == [None, None]
    names = {finding.name for finding in report.findings}
    assert "disconnected" in names
    assert not names & {"vanishing", "dead", "weak"}
