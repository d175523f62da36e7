"""What small dtypes lose: the shares of the gradients as autograd has them, cast."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn

import gradprobe
from gradprobe.measure.live.watcher import Seen, Watcher
from gradprobe.measure.precision import scale_for
from gradprobe.render.json import render_report as render_json
from gradprobe.render.text import render_report
from gradprobe.spec.options import JudgeOptions
from gradprobe.verdict.judge import judge

SMALLEST = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float8": 2.0**-16}


def net(blocks: int = 6, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(16, 16), nn.Sigmoid()) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.Linear(16, 4)).to(dtype)


def mean(output: torch.Tensor) -> torch.Tensor:
    return output.double().square().mean() * 1e-2


def gradients(model: nn.Sequential, x: torch.Tensor, names: list[str]) -> list[torch.Tensor]:
    outputs: dict[str, torch.Tensor] = {}
    for name in names:
        keep = partial(lambda name, module, args, output: outputs.update({name: output}), name)
        model.get_submodule(name).register_forward_hook(keep)
    loss = mean(model(x))
    return list(torch.autograd.grad(loss, [outputs[name] for name in names]))


def test_the_shares_are_those_of_autograds_own_gradients() -> None:
    model, x = net(dtype=torch.float64), torch.randn(32, 16).double()
    report = gradprobe.probe(model, x, loss=mean, precision=True)
    lost = []
    names = [row.name for row in report.rows]
    for row, gradient in zip(report.rows, gradients(model, x, names), strict=True):
        size = gradient.abs()[gradient != 0]
        assert row.precision is not None
        assert row.precision.entries == size.numel()
        for dtype, smallest in SMALLEST.items():
            share = float((size < smallest).double().mean())
            assert getattr(row.precision, dtype) == pytest.approx(share)
        lost.append(row.precision.float16)
        scale = row.precision.scale
        assert scale is not None
        assert math.log2(scale).is_integer()
        assert float((size * scale < SMALLEST["float16"]).double().mean()) <= 1e-3
        if scale > 1:
            assert float((size * scale / 2 < SMALLEST["float16"]).double().mean()) > 1e-3
        assert (
            float(size.max()) * row.precision.ceiling
            < 2.0**16
            <= 2 * float(size.max()) * row.precision.ceiling
        )
    assert max(lost) > 0.1 > min(lost)
    assert "bfloat16" in render_report(report)
    assert '"precision"' in render_json(report)
    plain = gradprobe.probe(model, x, loss=mean)
    assert plain.rows[0].precision is None
    assert "GP607" not in {finding.rule for finding in report.findings}


def test_no_scale_holds_what_is_too_far_apart() -> None:
    assert scale_for(Counter({0: 1000})) == 0
    assert scale_for(Counter({-25: 1, 0: 1})) == 1
    assert scale_for(Counter({-30: 500, 0: 500})) == 6
    assert scale_for(Counter({-30: 1, 0: 1999})) == 0  # one in two thousand may be lost
    assert scale_for(Counter({-60: 500, 0: 500})) is None


def test_float16_without_a_scale_is_found() -> None:
    report = gradprobe.probe(net(dtype=torch.float16), torch.randn(32, 16).half(), loss=mean)
    [finding] = [finding for finding in report.findings if finding.rule == "GP607"]
    assert finding.threshold == 0.1
    assert finding.value is not None
    assert finding.value > 0.1
    assert finding.message.startswith("float16 loses ")
    shallow = gradprobe.probe(net(1, torch.float16), torch.randn(32, 16).half())
    assert "GP607" not in {finding.rule for finding in shallow.findings}


@pytest.mark.parametrize("scaled", [False, True])
def test_autocast_without_a_scaler_is_found_in_a_training_step(scaled: bool) -> None:
    seen: list[Seen] = []
    model, x = net(), torch.randn(32, 16)
    with Watcher(lambda number: True, seen.append):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", enabled=scaled)
        with torch.autocast("cpu", torch.float16):
            loss = mean(model(x))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
    [step] = seen
    assert step.measurement is not None
    report = judge(step.measurement, "train.py", JudgeOptions())
    assert ("GP607" in {finding.rule for finding in report.findings}) is not scaled


def test_where_nothing_is_trained_nothing_arrives() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).requires_grad_(False)
    report = gradprobe.probe(model, torch.randn(3, 4), precision=True)
    assert not any(row.precision for row in report.rows)
    assert "GP206" in [finding.rule for finding in report.findings]
