"""The benchmark behind the calibration: its trainer against torch's own, its sampler, its table."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.handmade import any_signals
from helpers.places import ROOT
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gradprobe.measure.measurement import Course, Outcome, Trial
from gradprobe.model.build import build
from gradprobe.spec.sources.yaml import parse
from gradprobe.verdict.calibration import (
    COEFFICIENTS,
    COEFFICIENTS_WITH_TRIAL,
    counted,
    probability,
    scores,
)
from gradprobe.verdict.signals import Effort, Signals, effort

HOME = ROOT / "benchmarks" / "trainability"
if not HOME.is_dir():
    pytest.skip("the benchmarks are not in the source distribution", allow_module_level=True)
sys.path.insert(0, str(HOME))

import fit
import profiles
import regression
import sample
import train

SPEC = {
    "input": {"shape": [64]},
    "layers": [
        {"Linear": {"out_features": 16}},
        {"residual": ["LayerNorm", {"Linear": {"out_features": 16}}, "Tanh"]},
        {"Linear": {"out_features": 10}},
    ],
}
OPTIMISERS: dict[str, Callable[[list[nn.Parameter], float], torch.optim.Optimizer]] = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr),
}


def network() -> nn.Module:
    return build(parse(json.dumps(SPEC).encode(), "spec"), seed=3)


def test_the_settings_trained_side_by_side_are_what_torchs_optimisers_do_one_by_one() -> None:
    x, y = train.digits()
    side = train.Side(network())
    rows = [side.step(x[i : i + 64], y[i : i + 64], i // 64 + 1) for i in range(0, 320, 64)]
    for index, setting in enumerate(train.SETTINGS):
        name, _, rate = setting.partition("_")
        model = network()
        optimiser = OPTIMISERS[name](list(model.parameters()), float(rate))
        for row, i in zip(rows, range(0, 320, 64), strict=True):
            logits = model(x[i : i + 64])
            hits = (logits.argmax(1) == y[i : i + 64]).float().mean()
            assert row[index] == pytest.approx(float(hits), abs=0.02), setting
            optimiser.zero_grad()
            nn.functional.cross_entropy(logits, y[i : i + 64]).backward()
            optimiser.step()
        flat = torch.cat([p.detach().flatten() for p in model.parameters()])
        if setting != "sgd_1e+00":  # at a rate of 1 rounding grows from step to step
            assert torch.allclose(side.weights[index], flat, atol=1e-4), setting


def test_a_setting_whose_loss_is_not_finite_is_stopped_and_counts_as_0() -> None:
    x, y = train.digits()
    side = train.Side(network())
    side.weights[4] *= 1e30
    accuracy = side.step(x[:64], y[:64], 1)
    assert accuracy[4] == 0
    assert side.alive.tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert side.step(x[:64], y[:64], 2).shape == (8,)


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("sizes", [sample.USUAL, sample.SMALL])
def test_what_is_drawn_is_a_network_and_is_drawn_again(wild: bool, sizes: sample.Sizes) -> None:
    for kind in sample.KINDS:
        first, again = (sample.sample(7, 5, (kind,), wild, sizes) for _ in range(2))
        assert first == again
        assert first["config"]["kind"] == kind
        build(parse(json.dumps(first["spec"]).encode(), "spec"))


@pytest.mark.parametrize("link", [regression.LOGLOG, regression.LOGISTIC])
def test_the_regression_finds_the_model_that_made_its_data(link: regression.Link) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(20_000, 2)) * [1.0, 5.0] + [0.0, 3.0]
    p = link.probability(0.5 + x @ [2.0, -0.3])
    y = (draw.random(len(x)) < p).astype(float)
    w = regression.fit(x, y, np.array([1.0, -1.0]), link)
    assert w == pytest.approx([0.5, 2.0, -0.3], rel=0.1)
    assert regression.predict(w, x, link) == pytest.approx(p, abs=0.03)
    # A coefficient that the data want with the other sign is left out.
    assert regression.fit(x, y, np.array([1.0, 1.0]), link)[2] == 0


def test_the_area_under_the_curve_counts_pairs() -> None:
    y = np.array([0.0, 0.0, 1.0, 1.0])
    assert regression.auc(np.array([0.1, 0.4, 0.35, 0.8]), y) == 0.75
    assert regression.auc(np.ones(4), y) == 0.5


def test_a_link_has_the_derivative_of_its_probability() -> None:
    scores = np.linspace(-2, 5, 50)
    for link, closed in (
        (regression.LOGLOG, np.exp(-np.exp(-scores))),
        (regression.LOGISTIC, 1 / (1 + np.exp(-scores))),
    ):
        p = link.probability(scores)
        assert p == pytest.approx(closed)
        slope = (link.probability(scores + 1e-6) - link.probability(scores - 1e-6)) / 2e-6
        assert link.derivative(scores, p) == pytest.approx(slope, rel=1e-6)


def test_what_chance_leaves_of_equal_odds_is_the_binomial() -> None:
    spread = regression.counts_by_chance(np.full(10, 0.3))
    expected = [math.comb(10, k) * 0.3**k * 0.7 ** (10 - k) for k in range(11)]
    assert spread == pytest.approx(np.array(expected))
    assert regression.share_by_chance(np.full(10, 0.5), 0.95) == (0.2, 0.8)  # 0.978 of draws


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_what_chance_leaves_has_the_mean_and_the_variance_of_its_draws(odds: list[float]) -> None:
    p = np.array(odds)
    spread, counts = regression.counts_by_chance(p), np.arange(len(p) + 1)
    mean = (spread * counts).sum()
    assert spread.sum() == pytest.approx(1)
    assert mean == pytest.approx(p.sum())
    variance = (spread * (counts - mean) ** 2).sum()
    assert variance == pytest.approx((p * (1 - p)).sum(), abs=1e-9)
    low, high = regression.share_by_chance(p, 0.95)
    held = spread[round(low * len(p)) : round(high * len(p)) + 1].sum()
    assert held > 0.95 - 1e-9


def test_a_bin_is_within_what_chance_leaves_both_diagrams_at_once() -> None:
    """Of 20 networks given 60 %, at most 5 train in 0.16 % of draws, at least 19 in 0.05 %."""
    assert regression.EACH ** (2 * (len(regression.BINS) - 1)) == pytest.approx(0.95)
    for trained, within in ((5, False), (6, True), (18, True), (19, False)):
        y = np.array([1.0] * trained + [0.0] * (20 - trained))
        [one] = regression.bins(np.full(20, 0.6), y)
        assert (one.low, one.high, one.count, one.said) == (0.5, 0.7, 20, pytest.approx(0.6))
        assert one.apart == pytest.approx((trained - 12) / math.sqrt(20 * 0.6 * 0.4))
        assert one.within is within, trained


@pytest.mark.slow
def test_the_table_is_what_fit_writes() -> None:
    x, targets = fit.seen(profiles.load(profiles.GIVEN) + profiles.load(profiles.FIT))
    columns = [
        fit.three_digits(regression.fit(x, y, fit.SIGNS, fit.LINKS[name]))
        for name, y in targets.items()
    ]
    rows = zip(*columns, strict=True)
    assert dict(zip(["intercept", *Signals._fields], rows, strict=True)) == COEFFICIENTS


@pytest.mark.slow
def test_the_table_after_a_trial_is_what_fit_writes() -> None:
    x, targets = fit.seen_tried(profiles.load(profiles.GIVEN) + profiles.load(profiles.FIT))
    columns = [
        fit.three_digits(regression.fit(x[name], y, fit.TRIED_SIGNS, fit.TRIED_LINK))
        for name, y in targets.items()
    ]
    rows = zip(*columns, strict=True)
    written = dict(zip(["intercept", *fit.TRIED_NAMES], rows, strict=True))
    assert written == COEFFICIENTS_WITH_TRIAL


efforts = st.builds(Effort, st.floats(0, 2), st.floats(0, 2))


@given(any_signals(), efforts)
def test_after_a_trial_the_score_is_weighed_beside_its_effort(found: Signals, took: Effort) -> None:
    columns = np.array(list(COEFFICIENTS_WITH_TRIAL.values())).T
    sgd, adam = (
        regression.predict(w, np.array([both]), fit.TRIED_LINK)[0]
        for w, *both in zip(columns, scores(found), took, strict=True)
    )
    assert probability(found, took) == pytest.approx((sgd, max(sgd, adam)), abs=1e-8)


@given(any_signals(), efforts, efforts)
def test_more_effort_never_makes_training_likelier(found: Signals, a: Effort, b: Effort) -> None:
    less, more = (Effort(*map(pick, a, b)) for pick in (min, max))
    likelier, other = probability(found, less), probability(found, more)
    assert all(p >= q for p, q in zip(likelier, other, strict=True))


def course(optimizer: str, steps: int, last: float, outcome: Outcome) -> Course:
    return Course(optimizer, 0.1, (2.0,) * steps + (last,), outcome)


def test_a_trials_effort_is_that_of_its_best_rate_under_sgd_and_under_any() -> None:
    slow = course("SGD", 60, 2.0 * 10**-0.25, Outcome.SLOW)
    diverged = course("SGD", 3, math.nan, Outcome.DIVERGED)
    quick = course("Adam", 15, 1.9, Outcome.LEARNED)  # nine labels of ten, whatever the loss
    assert effort(Trial((slow, diverged))) == pytest.approx((1.75, 1.75))
    assert effort(Trial((slow, quick))) == pytest.approx((1.75, math.log(15) / math.log(60)))
    assert effort(Trial((diverged,))) == (2.0, 2.0)
    assert effort(Trial((course("SGD", 1, 0.1, Outcome.LEARNED),))) == (0.0, 0.0)
    assert effort(Trial((slow,), cut=True)) is None
    assert effort(Trial(reason="too large")) is None


@given(any_signals())
def test_the_probability_follows_from_the_table_by_the_links_of_the_fit(found: Signals) -> None:
    x = np.array([counted(found)])
    columns = np.array(list(COEFFICIENTS.values())).T
    sgd, adam = (
        regression.predict(w, x, link)[0]
        for w, link in zip(columns, fit.LINKS.values(), strict=True)
    )
    assert probability(found) == pytest.approx((sgd, max(sgd, adam)), abs=1e-8)


def test_the_report_has_networks_of_its_own() -> None:
    parts = [{line["id"] for line in train.read(path)} for path in profiles.SEEDS]
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts))


@pytest.mark.slow
def test_an_outcome_is_had_again() -> None:
    """One network of the report trained again: to a few hundredths on another machine."""
    line = next(o for o in train.read(profiles.REPORT) if o["config"]["kind"] == "residual")
    again = train.train(line["spec"], line["seed"], train.digits())
    assert again == pytest.approx(line["settings"], abs=0.05)
