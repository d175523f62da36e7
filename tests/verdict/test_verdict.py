"""The verdict by the probability of training: which class, for which cause, and when it decides."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.commands import Run
from helpers.handmade import any_signals, profile, report, row, with_reach
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import gradprobe
from gradprobe.errors import Place
from gradprobe.render.text import render_report
from gradprobe.spec.network import CheckSpec, Ignore
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.verdict.calibration import (
    FAILS,
    IDEAL,
    TRAINS,
    causes,
    log_odds,
    minus_log_log,
    outlook,
    probability,
)
from gradprobe.verdict.diagnose import diagnose
from gradprobe.verdict.report import Probability, Severity, Training, Verdict
from gradprobe.verdict.signals import CAPS, Signals

pytestmark = pytest.mark.usefixtures("forked_workers")
P = st.floats(1e-6, 1 - 1e-6)


def weighed(signals: Signals) -> Training:
    p = probability(signals)
    return Training(signals, p, outlook(p).margin)


# Of the margin under Adam, and its inverse.
SCALES = {
    log_odds: lambda value: 1 / (1 + math.exp(-value)),
    minus_log_log: lambda value: math.exp(-math.exp(-max(value, -5.0))),
}


@pytest.mark.parametrize("scale", SCALES)
@given(P, P)
def test_the_margin_is_what_it_takes_to_be_another(
    scale: Callable[[float], float], a: float, b: float
) -> None:
    p = Probability(min(a, b), max(a, b))
    found = outlook(p, scale)
    assert found.margin >= 0
    assert not (found.fails and found.trains)
    assert found[:2] == outlook(p)[:2]

    def moved(by: float) -> Probability:
        sgd = SCALES[log_odds](log_odds(p.sgd) + by)
        return Probability(sgd, SCALES[scale](scale(p.adam) + by))

    for sign in (-1, 1):
        near, far = (outlook(moved(sign * found.margin * k), scale) for k in (0.999, 1.001))
        assert near[:2] == found[:2]
        if far[:2] != found[:2]:
            break
    else:
        assert found.margin == pytest.approx(0, abs=1e-9)


def test_the_three_outcomes() -> None:
    assert outlook(Probability(0.1, FAILS - 0.01))[:2] == (True, False)
    assert outlook(Probability(0.1, FAILS + 0.01))[:2] == (False, False)  # Adam may
    assert outlook(Probability(TRAINS - 0.01, 0.99))[:2] == (False, False)
    assert outlook(Probability(TRAINS + 0.01, 0.99))[:2] == (False, True)


FAILING = {
    "vanishing": (
        IDEAL._replace(decay=7.0, lost_inputs=0.5, shattering=0.1, coherence=0.9),
        Verdict.VANISHING,
        "GP101",
    ),
    "forgotten": (
        CAPS._replace(
            decay=1.9,
            growth=0.0,
            forward_growth=0.0,
            lost_inputs=3.5,
            shattering=0.0,
            coherence=0.8,
        ),
        Verdict.VANISHING,
        "GP101",
    ),
    "exploding": (
        IDEAL._replace(growth=2.0, forward_growth=4.0, coherence=0.7),
        Verdict.EXPLODING,
        "GP102",
    ),
    "shattered": (
        IDEAL._replace(growth=1.0, lost_inputs=0.3, shattering=0.8, coherence=0.2),
        Verdict.SHATTERED,
        "GP104",
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_failing_network_is_called_by_its_main_cause(name: str) -> None:
    signals, verdict, code = FAILING[name]
    findings, found = diagnose(with_reach(1.0), THRESHOLDS, training=weighed(signals))
    assert found is verdict
    assert [(f.rule, f.severity) for f in findings] == [(code, Severity.ERROR)]
    assert findings[0].value == probability(signals).adam
    assert findings[0].threshold == FAILS
    assert "chance of training" in findings[0].message


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("LSTM", "forget gate"),
        ("RNN", "use LSTM or GRU"),
        ("GRUCell", "forget gate"),
        ("RNNCell", "use LSTM or GRU"),
    ],
)
def test_a_past_that_fades_points_at_the_recurrent_row(kind: str, advice: str) -> None:
    rows = [row("stem"), row("cell", kind=kind), row("last"), row("head")]
    training = weighed(FAILING["forgotten"][0])
    [finding], _ = diagnose(profile(*rows), THRESHOLDS, training=training)
    assert finding.row == "cell"
    assert advice in finding.advice
    assert "gets 1.0e-4 or less of" in finding.message


@pytest.mark.parametrize(
    ("signals", "told", "advice"),
    [
        (
            IDEAL._replace(forward_growth=CAPS.forward_growth),
            "grow 1.0e6 times or more",
            "lower the gain",
        ),
        (IDEAL._replace(forward_growth=5.5), "grow 3.2e5 times:", "lower the gain"),
        (CAPS._replace(coherence=0.1, decay=0), "little of it takes a skip", "wrap each block"),
        (IDEAL._replace(forward_growth=2.5, coherence=0.1), "(coherence 0.100):", "branch_scale"),
        (
            IDEAL._replace(decay=1.7, forward_growth=2.5, lost_inputs=4.0, coherence=0.8),
            "<1 % of the output",
            "normalise",
        ),
    ],
)
def test_each_cause_is_told_and_mended_by_its_own_words(
    signals: Signals, told: str, advice: str
) -> None:
    findings, _ = diagnose(with_reach(1.0), THRESHOLDS, training=weighed(signals))
    assert told in findings[0].message
    assert advice in findings[0].advice


def test_where_adam_may_and_sgd_will_not_it_is_a_warning_that_says_so() -> None:
    signals = IDEAL._replace(growth=2.0, forward_growth=3.0, coherence=0.95)  # growth: SGD at risk
    p = probability(signals)
    assert p.sgd < TRAINS
    assert p.adam > FAILS
    findings, verdict = diagnose(with_reach(1.0), THRESHOLDS, training=weighed(signals))
    assert verdict is Verdict.WEAK
    assert [(f.name, f.severity) for f in findings] == [("weak", Severity.WARNING)]
    assert "under SGD or Adam" in findings[0].message


@pytest.mark.parametrize("reach", [1e-9, 1e-3, 1e3, 1e9])
def test_the_probability_decides_and_not_the_reach(reach: float) -> None:
    good = weighed(IDEAL)
    assert diagnose(with_reach(reach), THRESHOLDS, training=good) == ((), Verdict.HEALTHY)


@pytest.mark.parametrize("where", ["option", "spec"])
def test_a_threshold_that_somebody_set_decides(where: str) -> None:
    good = weighed(IDEAL)
    limits, check = dict(THRESHOLDS), CheckSpec()
    if where == "option":
        limits["vanishing"] = 1e-3
    else:
        check = CheckSpec(thresholds={"vanishing": 1e-3})
    _, verdict = diagnose(with_reach(9e-4), limits, check, training=good)
    assert verdict is Verdict.VANISHING


def test_without_a_probability_the_reach_decides_and_a_note_says_why() -> None:
    nothing = Training(reason="a batch of one does not tell inputs apart")
    findings, verdict = diagnose(with_reach(1e-3), THRESHOLDS, training=nothing)
    assert verdict is Verdict.WEAK
    assert [(f.name, f.severity) for f in findings] == [
        ("weak", Severity.WARNING),
        ("unweighed", Severity.INFO),
    ]
    assert nothing.reason in findings[1].message
    check = CheckSpec(ignore=(Ignore("GP405", "one sample is all there is"),))
    findings, _ = diagnose(with_reach(1.0), THRESHOLDS, check, training=nothing)
    assert [f.ignored for f in findings] == ["one sample is all there is"]


@pytest.mark.parametrize("reach", [0.0, math.nan])
def test_where_there_is_no_reach_either_another_rule_says_why(reach: float) -> None:
    training = Training(reason="the gradient is zero")
    findings, _ = diagnose(with_reach(reach), THRESHOLDS, training=training)
    assert "unweighed" not in [f.name for f in findings]


@given(any_signals())
def test_every_set_of_signals_has_a_verdict_and_a_named_cause(signals: Signals) -> None:
    training = weighed(signals)
    assert training.probability is not None
    fails, trains, _ = outlook(training.probability)
    findings, verdict = diagnose(with_reach(2.0), THRESHOLDS, training=training)
    if trains:
        assert (findings, verdict) == ((), Verdict.HEALTHY)
    else:
        assert len(findings) == 1
        assert causes(signals)
        failing = {Verdict.VANISHING, Verdict.EXPLODING, Verdict.SHATTERED}
        assert (verdict in failing) == fails


SHATTERED = """\
input: {shape: [32]}
layers:
  - Linear: {out_features: 32}
  - repeat:
      times: 60
      layers:
        - Linear: {out_features: 32}
        - LayerNorm
        - ReLU
  - Linear: {out_features: 10}
"""


@pytest.mark.slow
def test_check_looks_twice_and_can_be_told_not_to(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(SHATTERED)
    cache = ["--cache-dir", str(tmp_path / "cache")]
    words = ["check", str(path), *cache, "--isolated"]
    deep = run(*words)
    assert (deep.code, "GP104 shattered" in deep.out) == (1, True)
    assert run(*words, "--no-deep").code == 0
    (tmp_path / "gradprobe.toml").write_text("deep = false\n")
    assert run("check", str(path), *cache).code == 0
    assert run("check", str(path), *cache, "--deep").code == 1


def ignoring(word: str) -> CheckSpec:
    return CheckSpec(ignore=(Ignore(word, "meant", Place("net.yaml", 3, 5)),))


def test_an_ignore_that_another_run_has_a_use_for_is_not_unused() -> None:
    good = weighed(IDEAL)
    assert diagnose(with_reach(1.0), THRESHOLDS, ignoring("GP104"))[0] == ()  # in one pass
    assert diagnose(with_reach(1e-9), THRESHOLDS, ignoring("GP101"), training=good)[0] == ()
    for word, training in (("GP101", None), ("GP104", good), ("GP101", good)):
        findings, _ = diagnose(with_reach(1.0), THRESHOLDS, ignoring(word), training=training)
        assert [f.name for f in findings] == ["unused-ignore"], word


def test_a_threshold_that_somebody_set_does_not_hide_a_shattered_gradient() -> None:
    limits = {**THRESHOLDS, "vanishing": 1e-6}
    signals, verdict, code = FAILING["shattered"]
    findings, found = diagnose(with_reach(1.0), limits, training=weighed(signals))
    assert (found, [f.rule for f in findings]) == (verdict, [code])
    good = weighed(IDEAL._replace(decay=2.5))
    assert diagnose(with_reach(3e-3), limits, training=good)[1] is Verdict.WEAK
    made = replace(report(with_reach(3e-3)), training=good, config={"thresholds": limits})
    shown = render_report(made)
    assert "does not decide here: a threshold was set" in shown
    assert "odds" not in shown


class Own(nn.GRUCell):
    """A cell of one's own."""


class Recurrent(nn.Module):
    """A GRU read at its last position: a layer, or a loop over a cell, with the same weights."""

    def __init__(self, cell: type[nn.GRUCell] | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.GRU(8, 16, batch_first=True)
        self.feed, self.head = nn.Linear(8, 8), nn.Linear(16, 4)
        if cell is None:
            self.layer = layer
            return
        self.cell = cell(8, 16)
        own = {name.removesuffix("_l0"): value for name, value in layer.state_dict().items()}
        self.cell.load_state_dict(own)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = None
        if hasattr(self, "layer"):
            state = self.layer(self.feed(x))[0][:, -1]
        else:
            for position in x.unbind(1):
                state = self.cell(self.feed(position), state)
        out: torch.Tensor = self.head(state)
        return out


@pytest.mark.slow
@pytest.mark.parametrize("cell", [nn.GRUCell, Own])
@pytest.mark.parametrize("steps", [10, 300])
def test_a_loop_over_a_cell_is_judged_as_its_layer_is(cell: type[nn.GRUCell], steps: int) -> None:
    """In it the gradient shrinks from call to call, in the end to nothing: that is time."""
    x = torch.randn(8, steps, 8, generator=torch.Generator().manual_seed(0))
    found = [gradprobe.probe(Recurrent(kind), x, deep=True).training for kind in (None, cell)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].probability is not None
    assert found[0].probability.adam > TRAINS
    assert found[1].probability == pytest.approx(found[0].probability, abs=0.05)


# ---- where a second look cannot be taken


class Once(nn.Module):
    """It can be run once: what it counts in is not its own, and is not put back."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(4)))
        count = itertools.count(1)
        self.call = lambda: next(count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.call() > 1:
            raise RuntimeError("only once")
        out: torch.Tensor = self.layers(x)
        return out


def test_a_model_that_cannot_be_run_again_is_judged_by_reach_alone() -> None:
    found = gradprobe.probe(Once(), torch.ones(4, 8), deep=True)
    assert found.training is not None
    assert found.training.failed
    assert found.training.reason is not None
    assert "the second look failed: " in found.training.reason
    assert "only once" in found.training.reason
    assert [f.name for f in found.findings if f.name == "unweighed"] == ["unweighed"]


def test_a_second_look_keeps_to_the_memory_that_it_may_take() -> None:
    model, x = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4))), torch.randn(8, 64)
    weights = 4 * 4 * (64 * 64 + 64)  # bytes
    for share, looked in ((3.9, False), (4.1, True)):
        found = gradprobe.probe(model, x, deep=True, max_memory=int(share * weights))
        assert found.training is not None
        assert (found.training.probability is not None) == looked


def test_of_a_python_model_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sized.py").write_text(
        "from torch import nn\n"
        "def net(): return nn.Sequential(*(nn.Linear(64, 64) for _ in range(4)))\n"
    )
    words = ["probe", "sized:net", "--path", str(tmp_path), "--input", "shape=8,64", "--deep"]
    words += ["--trusted-in-process", "--format", "json"]
    assert json.loads(run(*words).out)["training"]
    assert json.loads(run(*words, "--max-memory", "64KiB").out)["training"] is None
