"""What was predicted and what a trial saw: which verdict stands, and how it is told."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Run
from helpers.handmade import report, with_reach
from torch import nn, randn

import gradprobe
from gradprobe.measure.measurement import Course, Outcome, Trial
from gradprobe.render.canvas import Style
from gradprobe.render.trial import curve, trial_lines
from gradprobe.spec.network import CheckSpec, Ignore
from gradprobe.spec.options import ProbeKeywords
from gradprobe.spec.sources.yaml import parse
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.tasks import probe
from gradprobe.verdict.diagnose import diagnose
from gradprobe.verdict.report import Report, Severity, Verdict

SGD = Course("SGD", 0.03, (2.3, 1.2, 0.1), Outcome.LEARNED)
ADAM = Course("Adam", 0.01, (2.3, 1.2, 0.1), Outcome.LEARNED)
SLOW = Course("SGD", 0.1, (2.3, 2.2, 2.1), Outcome.SLOW)
DIVERGED = Course("SGD", 0.1, (2.3, float("inf")), Outcome.DIVERGED)
CUT = Course("SGD", 0.1, (2.3, 2.2), Outcome.CUT)

LEARNS = Trial((DIVERGED, SGD), samples=16)
ONLY_ADAM = Trial((SLOW, ADAM), samples=16)
FAILS = Trial((SLOW,), samples=16)
OWN_ADAM = ONLY_ADAM._replace(own=True, baseline=2.15)
ASKED = FAILS._replace(asked=True)
OWN = FAILS._replace(own=True)
ON_ITS_WAY = Trial((Course("SGD", 0.1, (2.3, 1.2), Outcome.SLOW),), 16, own=True, baseline=2.3)
CUT_SHORT = Trial((CUT,), samples=16, cut=True)
NONE = Trial(reason="no bar")

GOOD, WEAK, BAD = 1.0, 1e-3, 1e-9  # reaches


def test_a_first_loss_far_above_a_constants_is_the_advice_of_a_trial_that_fails() -> None:
    far = Trial((Course("SGD", 0.1, (590.0, 8.0), Outcome.SLOW),), 16, own=True, baseline=7.6)
    for trial, said in ((far, "77.6 times"), (far._replace(baseline=500.0), "look at the loss")):
        findings, _ = diagnose(with_reach(GOOD), THRESHOLDS, trial=trial._replace(asked=True))
        told = [f.advice for f in findings if f.rule == "GP106"]
        assert not told or said in told[0]
        assert bool(told) == (trial is far)


def test_what_sgd_lost_again_is_not_for_adam_alone() -> None:
    lost = Course("SGD", 0.03, (2.3, 0.7, 2.3), Outcome.SLOW)
    assert not Trial((lost, ADAM), 16, own=True, baseline=2.3).only_adam
    assert Trial((SLOW, ADAM), 16, own=True, baseline=2.1).only_adam


@pytest.mark.parametrize(
    ("reach", "trial", "verdict", "fails"),
    [
        (GOOD, LEARNS, Verdict.HEALTHY, False),
        (BAD, LEARNS, Verdict.HEALTHY, False),
        (BAD, ONLY_ADAM, Verdict.WEAK, False),
        (GOOD, ONLY_ADAM, Verdict.WEAK, False),
        (BAD, FAILS, Verdict.VANISHING, True),
        (BAD, CUT_SHORT, Verdict.VANISHING, True),
        (BAD, NONE, Verdict.VANISHING, True),
        (GOOD, CUT_SHORT, Verdict.HEALTHY, False),
        (BAD, ON_ITS_WAY, Verdict.VANISHING, True),
        (GOOD, ON_ITS_WAY, Verdict.HEALTHY, False),
        (GOOD, FAILS, Verdict.WEAK, False),
        (WEAK, FAILS, Verdict.WEAK, False),
        (GOOD, ASKED, Verdict.DOES_NOT_LEARN, True),
        (GOOD, OWN, Verdict.DOES_NOT_LEARN, True),
        (WEAK, ASKED, Verdict.DOES_NOT_LEARN, True),
        (GOOD, OWN_ADAM, Verdict.HEALTHY, False),  # a plateau of SGD alone is no sign
        (WEAK, OWN_ADAM, Verdict.WEAK, False),
        (BAD, OWN, Verdict.VANISHING, True),
    ],
)
def test_the_verdict_follows_from_prediction_and_trial(
    reach: float, trial: Trial, verdict: Verdict, fails: bool
) -> None:
    findings, found = diagnose(with_reach(reach), THRESHOLDS, trial=trial)
    assert found is verdict
    assert any(f.severity is Severity.ERROR for f in findings) is fails
    # A weakness that was predicted stays beside a trial that fails, as its likely cause.
    beside = verdict is Verdict.DOES_NOT_LEARN and reach == WEAK
    loud = [f for f in findings if f.severity > Severity.INFO]
    assert len(loud) == (verdict != "healthy") + beside


def test_what_fails_both_says_so() -> None:
    [finding], _ = diagnose(with_reach(BAD), THRESHOLDS, trial=FAILS)
    assert finding.message.endswith("; tried: does not learn")


def test_bands_of_the_users_own_are_not_cleared() -> None:
    limits = {**THRESHOLDS, "vanishing": 1e-2, "weak_low": 0.1}
    assert diagnose(with_reach(WEAK), limits, trial=LEARNS)[1] is Verdict.VANISHING
    assert diagnose(with_reach(GOOD), limits, trial=FAILS)[1] is Verdict.HEALTHY
    assert diagnose(with_reach(GOOD), limits, trial=ASKED)[1] is Verdict.DOES_NOT_LEARN


def test_an_ignore_of_what_a_trial_cleared_or_was_not_there_to_find_has_a_use() -> None:
    place = gradprobe.errors.Place("a.yaml", 1, 1)
    for rule, trial in (("GP101", LEARNS), ("GP106", None)):
        check = CheckSpec(ignore=(Ignore(rule, "meant", place),))
        findings, _ = diagnose(with_reach(BAD), THRESHOLDS, check, trial=trial)
        assert "GP403" not in [finding.rule for finding in findings]


# ---- as it is shown


def test_the_curve_has_the_losses_heights() -> None:
    assert curve([8, 7, 6, 5, 4, 3, 2, 1]) == "██▇▆▅▄▃▂"
    assert curve([2.0, 0.0]) == "█▁"
    assert curve([1.0] * 60) == "█" * 8
    assert curve([float("nan"), 1.0, 0.5]) == "█▅"
    assert curve([float("inf")]) == ""


@pytest.mark.parametrize("plain", [False, True])
def test_the_lines_say_what_was_tried(plain: bool) -> None:
    shown = replace(report(with_reach(GOOD)), trial=LEARNS)
    lines = [line.plain for line in trial_lines(shown, Style(ascii=plain))]
    assert lines[0].startswith("tried   SGD 0.03  2.30 ")
    assert lines[0].endswith(" 0.100 in 2 steps")
    assert lines[0].isascii() is plain
    assert lines[1] == "        tried: learns (SGD 0.03, 2 steps)"
    assert "rate that worked: SGD 0.03; largest that did not diverge: SGD 0.03" in lines[2]


def test_a_rate_without_a_step_is_not_said_not_to_diverge() -> None:
    begun = Course("SGD", 0.1, (2.3,), Outcome.CUT)
    shown = replace(report(with_reach(GOOD)), trial=Trial((begun,), samples=16, cut=True))
    assert "diverge" not in " ".join(line.plain for line in trial_lines(shown, Style()))


def test_every_rate_is_a_line_on_request() -> None:
    shown = replace(report(with_reach(GOOD)), trial=FAILS._replace(courses=(SLOW, DIVERGED)))
    few, every = (trial_lines(shown, Style(), everything) for everything in (False, True))
    [rate] = [line.plain.strip() for line in every if line not in few]
    assert rate.startswith("SGD 0.1  2.30 ")
    assert rate.endswith(" in 1 step: diverged")


# ---- from end to end

SMALL = b"""
input: {shape: [16]}
layers: [Linear: {out_features: 16}, ReLU, Linear: {out_features: 10}]
"""


def test_each_seed_has_its_own_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Report] = []
    own = probe.probe_target

    def probe_target(*args: Any, **keywords: Any) -> Report:
        reports.append(own(*args, **keywords))
        return reports[-1]

    monkeypatch.setattr(probe, "probe_target", probe_target)
    gradprobe.probe(parse(SMALL, "small.yaml"), seeds=2, overfit=True)
    learned = [report.trial and report.trial.learned for report in reports]
    assert len(learned) == 2
    assert all(learned)
    assert len({course and course.losses[0] for course in learned}) == 2


def test_a_signature_names_every_keyword() -> None:
    parameters = inspect.signature(gradprobe.probe).parameters
    assert parameters["overfit"].default is False
    assert [*parameters][2:] == [*ProbeKeywords.__annotations__]


HARD = """
input: {shape: [64]}
layers:
  - repeat: {times: 40, layers: [Linear: {out_features: 16}, ReLU]}
  - Linear: {out_features: 10}
"""


def test_a_module_is_tried_with_its_own_loss_and_data() -> None:
    """Labels of 0 and 1 behind a ReLU that is always off: nothing is learned."""
    x = randn(8, 4)
    blind = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def constant(output: object) -> object:
        return 1 + 1e-6 * output.square().mean()  # type: ignore[attr-defined]

    found = gradprobe.probe(blind, x, loss=constant, overfit=True)
    assert found.trial
    assert found.trial.own
    assert found.verdict is Verdict.DOES_NOT_LEARN
    assert not gradprobe.probe(blind, x, overfit=True).fails(Severity.ERROR)
    with pytest.raises(AssertionError, match="GP106 does-not-learn"):
        gradprobe.assert_healthy(blind, x, loss=constant, overfit=True)


@pytest.mark.slow
def test_probe_and_check_try_where_they_are_told(tmp_path: Path, run: Run) -> None:
    (tmp_path / "hard.yaml").write_text(HARD)
    path = str(tmp_path / "hard.yaml")
    shown = run("probe", path, "--overfit", "--format", "json")
    assert shown.code == 1
    trial = json.loads(shown.out)["trial"]
    assert trial["learned"] is False
    assert [len(c["losses"]) for c in trial["courses"]] == [
        c["steps"] + 1 for c in trial["courses"]
    ]
    assert "trial" not in json.loads(run("probe", path, "--format", "json").out)
    checked = run("check", path, "--no-cache", "--isolated", "--overfit-time", "300")
    assert "tried: does not learn" in checked.out
    untried = run("check", path, "--no-cache", "--isolated", "--no-overfit")
    assert "tried" not in untried.out
    assert "GP101" in untried.out
