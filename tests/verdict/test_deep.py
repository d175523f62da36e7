"""``probe --deep``: a probability where there is something to weigh, and only when it is asked."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
from helpers.commands import Run
from helpers.handmade import any_signals, chain, profile, report, row
from helpers.unchanged import everything, unchanged
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

import gradprobe
from gradprobe.measure.obstacles import OBSTACLES, obstacle
from gradprobe.render.canvas import Style
from gradprobe.render.json import render_report as render_json
from gradprobe.render.schema import output_schema
from gradprobe.render.text import render_report
from gradprobe.spec.network import NetworkSpec
from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.spec.sources.yaml import parse
from gradprobe.tasks.probe import probe_target
from gradprobe.tasks.targets import load_spec
from gradprobe.verdict.calibration import (
    COEFFICIENTS,
    IDEAL,
    LEAST,
    contributions,
    log_odds,
    minus_log_log,
    probability,
)
from gradprobe.verdict.causes import CAUSES
from gradprobe.verdict.report import Probability, Severity, Training
from gradprobe.verdict.signals import CAPS, Signals

DEEP = ProbeOptions(deep=True)


def probabilities(spec: NetworkSpec, options: ProbeOptions) -> Probability:
    training = probe_target(spec, options).training
    assert training is not None
    assert training.probability is not None
    return training.probability


def complaints(body: dict[str, object]) -> list[str]:
    return [error.message for error in Draft7Validator(output_schema("report")).iter_errors(body)]


def test_a_probability_is_shown_only_when_asked(run: Run) -> None:
    network = ["probe", "plain", "--depth", "4"]
    plain, asked = (words(run(*network, *deep).out) for deep in ([], ["--deep"]))
    [added] = re.findall(r"; \d+ % of small networks like it train with .* with SGD or Adam", asked)
    assert asked.replace(added, "") == plain
    assert "training" not in json.loads(run(*network, "--format", "json").out)
    body = json.loads(run(*network, "--deep", "--format", "json").out)
    assert complaints(body) == []
    training = body["training"]
    assert training["signals"].keys() == set(Signals._fields)
    assert (training["sgd"], training["adam"]) == probability(Signals(**training["signals"]))


def test_a_residual_stack_is_said_to_train_and_deep_sigmoids_are_not() -> None:
    good = probabilities(load_spec("residual", StackOptions(depth=20)), DEEP)
    assert min(good) > 0.9
    # In float64: in float32, 40 factors below 0.15 come to exactly zero.
    options = StackOptions(depth=40, activation="sigmoid")
    bad = probabilities(load_spec("plain", options), replace(DEEP, dtype="float64"))
    assert max(bad) < 0.1


@settings(max_examples=50, deadline=None)
@given(any_signals())
def test_contributions_add_up_to_the_score(signals: Signals) -> None:
    parts = contributions(signals)
    assert parts.keys() == {"ideal", *Signals._fields}
    for model, p in enumerate(probability(signals)):
        beyond = signals._replace(forward_growth=max(0.0, signals.forward_growth - 1))
        terms = [COEFFICIENTS[name][model] * x for name, x in beyond._asdict().items()]
        score = COEFFICIENTS["intercept"][model] + math.fsum(terms)
        assert math.fsum(part[model] for part in parts.values()) == pytest.approx(score, abs=1e-9)
        assert parts["invariant"][model] >= 0
        assert all(parts[name][model] <= 0 for name in CAUSES)
        if model == 0:
            assert log_odds(p) == pytest.approx(score, abs=1e-6)
        elif p > probability(signals).sgd:
            assert minus_log_log(p) == pytest.approx(max(score, LEAST), abs=1e-6)


# ---- where there is nothing to weigh

LINEARS = "Linear: {out_features: 8}"
NOTHING = {
    "NaN": ("Linear: {out_features: 8, init: {weight: {normal: {std: 1.0e30}}}}", 3, 4),
    "zero": ("Linear: {out_features: 8, init: {weight: zeros, bias: zeros}}", 3, 4),
    "one row": (LINEARS, 1, 4),
    "a batch of one": (LINEARS, 4, 1),
}


@pytest.mark.parametrize("name", NOTHING)
def test_where_there_is_nothing_to_weigh_there_is_no_probability(name: str) -> None:
    layer, times, batch_size = NOTHING[name]
    layers = "\n".join([f"  - {layer}"] * times)
    spec = parse(f"input: {{shape: [8]}}\nlayers:\n{layers}\n".encode(), "net.yaml")
    found = probe_target(spec, ProbeOptions(deep=True, batch_size=batch_size))
    assert found.training is not None
    assert found.training.reason in OBSTACLES
    assert found.training[:2] == (None, None)
    body = json.loads(render_json(found))
    assert body["training"] is None
    assert complaints(body) == []
    shown = " ".join(render_report(found).split())
    grave = any(finding.severity is Severity.ERROR for finding in found.findings)
    told = "no probability that it trains" if grave else "judged by reach alone"
    assert f"{told}: {found.training.reason}" in shown


def test_each_obstacle_has_its_own_words() -> None:
    reasons = {
        "the loss, an output or a gradient is not finite": chain(math.nan, 1.0, 1.0),
        "an end of the trunk has no gradient": chain(None, 1.0, 1.0),
        "the gradient is zero": chain(0.0, 1.0, 1.0),
        "fewer than two rows to compare": profile(row("0")),
    }
    assert {reason: obstacle(measured) for reason, measured in reasons.items()} == {
        reason: reason for reason in reasons
    }
    assert obstacle(chain(1.0, None, 1.0)) is None


def test_a_batch_norm_of_few_samples_is_weighed_where_they_suffice() -> None:
    layers = "Linear: {out_features: 8}, BatchNorm1d, ReLU"
    shallow, deep = (
        parse(
            f"input: {{shape: [8]}}\nlayers: [repeat: {{times: {n}, layers: [{layers}]}}]".encode(),
            "net.yaml",
        )
        for n in (3, 12)
    )
    few = replace(DEEP, batch_size=4)
    assert min(probabilities(shallow, few)) > 0.9
    told = "BatchNorm has 4 values a channel, too few to tell (32 do: --batch-size)"
    assert probe_target(deep, few).training == Training(reason=told)
    assert probabilities(deep, DEEP)


def test_a_coarse_dtype_takes_no_small_step() -> None:
    options = ProbeOptions(deep=True, dtype="bfloat16")
    found = probe_target(load_spec("residual", StackOptions(depth=3)), options).training
    assert found == Training(reason="bfloat16 is too coarse for a step of 0.003")


# ---- any module


def test_a_module_is_left_as_it_was() -> None:
    model, x = everything()
    with unchanged(model, x):
        found = gradprobe.probe(model, x, deep=True)
    assert found.training
    assert found.training.probability
    assert gradprobe.probe(model, x).training is None
    assert gradprobe.probe(model, x, deep=True) == found


def test_a_python_model_hands_its_probability_back(
    run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("model")
    source = "from torch.nn import Linear, Sequential\n"
    source += "def deep_one(): return Sequential(*(Linear(8, 8) for _ in range(6)))\n"
    (folder / "deep_net.py").write_text(source)
    words = ["deep_net:deep_one", "--path", str(folder), "--input", "shape=16,8"]
    ended = run("probe", *words, "--trusted-in-process", "--deep", "--format", "json")
    body = json.loads(ended.out)
    assert complaints(body) == []
    assert 0 < body["training"]["sgd"] <= body["training"]["adam"] < 1


# ---- how it is said


def said(signals: Signals, **style: object) -> str:
    training = Training(signals, probability(signals))
    made = replace(report(chain(1.0, 1.0, 1.0)), training=training)
    return render_report(made, Style(**style))


def words(shown: str) -> str:
    """Without its line breaks."""
    return " ".join(shown.split())


def test_what_weighs_against_it_is_said_worst_first() -> None:
    found = IDEAL._replace(
        decay=0.9, lost_inputs=3.0, lost_past=1.0, shattering=0.4, coherence=0.95
    )
    shown = words(said(found))
    told = "after a small step another gradient (coherence 0.950), <1 % of the output tells inputs "
    told += "apart, the gradient shrinks ×0.126, the past fades ×0.100"
    assert f"against it: {told} " in shown + " "
    assert "shattering" not in shown  # it follows from the coherence


def test_a_network_that_trains_has_nothing_against_it_unless_more_is_asked_for() -> None:
    signals = IDEAL._replace(decay=0.9)
    assert "97 % of small networks like it train with SGD" in words(said(signals))
    assert "against" not in said(signals)
    asked = words(said(signals, verbose=True))
    assert "against it: the gradient shrinks ×0.126 odds ×" in asked


def test_nothing_weighs_against_an_ideal_network() -> None:
    shown = said(IDEAL)
    assert "99 % of small networks like it train with SGD, >99 % with SGD or Adam" in words(shown)
    assert "against" not in shown + said(IDEAL, verbose=True)
    assert "odds" not in shown


def test_at_its_cap_a_signal_is_at_least_that() -> None:
    shown = words(said(CAPS._replace(coherence=0.0), verbose=True))
    for cause in (
        "the gradient shrinks ×1.0e-8 or less",
        "activations grow ×1.0e6 or more",
        "<1 % of the output tells inputs apart",
        "the past fades ×1.0e-4 or less",
    ):
        assert cause in shown
    assert "coherence 0" in shown
    assert "grows" not in shown  # -0.48
    assert "odds ×1000 or more from the nearest other verdict" in shown


def test_every_signal_has_words() -> None:
    assert (*CAUSES, "invariant") == Signals._fields


@settings(max_examples=50, deadline=None)
@given(any_signals(), st.integers(40, 100), st.booleans())
def test_what_is_said_fits_the_width(signals: Signals, width: int, plain: bool) -> None:
    shown = said(signals, width=width, ascii=plain)
    start = shown.index("\nhealthy: ")
    assert max(map(len, shown[start:].splitlines())) <= width
    assert not plain or shown.isascii()


def test_deep_is_about_rows(run: Run) -> None:
    ended = run("probe", "plain", "--deep", "--by", "position")
    assert ended.code == 2
    assert "--deep is about rows" in ended.err
