"""Signals of hand-made profiles, and the probability that they give."""

from __future__ import annotations

import math

import pytest
from helpers.handmade import any_signals, chain, parameter, profile, row, with_reach
from hypothesis import given
from hypothesis import strategies as st

from gradprobe.measure.profile import RowProfile, RowStatus, call_name
from gradprobe.verdict.calibration import COEFFICIENTS, IDEAL, probability
from gradprobe.verdict.signals import CAPS, Signals, signals

BETTER = {"coherence", "invariant"}  # more of them is good news; more of every other is bad news


def test_signals_of_a_shrinking_gradient() -> None:
    found = signals(with_reach(1e-3, steps=10), 0.5, {})
    expected = IDEAL._replace(decay=3, shattering=0.5, coherence=0.5)
    assert found == pytest.approx(expected, abs=1e-12)


def test_signals_of_a_growing_gradient_behind_half_a_highway() -> None:
    # The first row's own Jacobian is not crossed, and a row without one is left out of the mean.
    highways = {"0": 0.0, "1": 0.25, "2": 0.75}
    found = signals(with_reach(10**1.5, steps=5), 0.2, highways)
    expected = IDEAL._replace(growth=1.5 / 2, shattering=0.8 / 2, coherence=0.2)
    assert found == pytest.approx(expected, abs=1e-12)


def test_in_front_of_a_norm_growth_does_no_harm() -> None:
    found = signals(with_reach(10**1.5, steps=5), 0.2, {}, invariant=0.75)
    expected = IDEAL._replace(growth=1.5 / 4, shattering=0.8, coherence=0.2, invariant=0.75)
    assert found == pytest.approx(expected, abs=1e-12)


def test_what_works_on_each_element_is_no_skip() -> None:
    flat = {"0": 0.0, "1": 0.0, "norm": 2.5, "relu": 0.5}
    norm = row("norm", 1.0, parameter("norm.weight", dimensions=1))
    rows = [row("0"), row("1"), norm, row("relu", bare=True), row("2")]
    found = signals(profile(*rows, row("head")), 0.4, flat)
    assert found is not None
    assert found.shattering == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("first", "last", "decades"),
    [
        (1.0, 100.0, 2),
        (10.0, 100.0, 1),  # inputs of any scale
        (0.01, 10.0, 1),  # an embedding that starts small
        (0.01, 0.9, 0),
        (5.0, 0.5, 0),  # it shrinks
        (1.0, None, 0),
        (None, 10.0, 1),
        (1.0, 1e30, CAPS.forward_growth),
    ],
)
def test_activations_grow_along_the_trunk(
    first: float | None, last: float | None, decades: float
) -> None:
    rows = [row("0", activation_rms=first), row("1", activation_rms=last)]
    found = signals(profile(*rows, row("head", activation_rms=1e9)), 1.0, {})
    assert found is not None
    assert found.forward_growth == pytest.approx(decades, abs=1e-12)


def looped(kind: str, *gradients: float | None) -> list[RowProfile]:
    """Two rows, called in turn as often as there are gradients: what feeds a cell, and the cell."""
    rows = []
    for call, gradient in enumerate(gradients, 1):
        for name in ("feed", "cell"):
            made = row(call_name(name, call), gradient, bare=call > 1, kind=kind, call=call)
            rows.append(made._replace(kind="Linear", contains=("Linear",)) if "f" in name else made)
    return rows


@pytest.mark.parametrize("kind", ["LSTMCell", "Block"])
def test_between_the_steps_of_a_recurrent_cell_there_is_time_and_no_depth(kind: str) -> None:
    """Neither between its calls nor between those of what feeds it, at either end of the trunk."""
    steps = looped(kind, 1e-6, 3e-2, 4e-2)
    found = signals(profile(*steps, row("mid"), row("last"), row("head")), 1.0, {})
    assert found is not None
    assert found.decay == pytest.approx(6 if kind == "Block" else -math.log10(5e-2))
    found = signals(profile(row("stem", 1e-3), *steps, row("head")), 1.0, {})
    assert found is not None
    assert found.decay == pytest.approx(math.log10((4e-2 if kind == "Block" else 5e-2) / 1e-3))


def test_what_is_called_again_and_again_between_two_steps_is_deep() -> None:
    block = [row(f"block ({n})", 10 ** (n - 9), bare=True, call=n) for n in range(2, 9)]
    block.insert(0, row("block", 1e-8))
    cell = [
        row("cell", 0.5, kind="GRUCell"),
        row("cell (2)", 0.5, kind="GRUCell", bare=True, call=2),
    ]
    found = signals(profile(*block, *cell, row("mid"), row("last"), row("head")), 1.0, {})
    assert found is not None
    assert found.decay == pytest.approx(8)


def test_a_cell_called_once_more_than_what_feeds_it_is_a_loop_too() -> None:
    further = row("cell (4)", 0.1, kind="GRUCell", bare=True, call=4)
    steps = looped("GRUCell", 1e-6, 3e-2, 4e-2)
    found = signals(profile(*steps, further, row("mid"), row("last"), row("head")), 1.0, {})
    assert found is not None
    assert found.decay == pytest.approx(-math.log10(5e-2))


@pytest.mark.parametrize("first", [None, 0.0])
def test_a_loop_whose_first_steps_get_no_gradient_is_weighed(first: float | None) -> None:
    """Their state was detached, or a long past has underflowed; a block's first call is a value."""
    for kind, expected in {"GRUCell": 2, "Block": None if first == 0 else 0}.items():
        rows = [*looped(kind, first, 1e-2), row("mid"), row("last"), row("head")]
        found = signals(profile(*rows), 1.0, {})
        assert (found and found.decay) == (expected and pytest.approx(expected))


def test_a_row_called_again_has_weights_in_each_call() -> None:
    tied = row("block (2)", bare=True, call=2, input_dependence=1e-3)
    pool = row("pool", bare=True, input_dependence=1e-4)
    rows = [row("stem"), row("block"), tied, pool]
    found = signals(profile(*rows, row("head")), 1.0, {})
    assert found is not None
    assert found.lost_inputs == pytest.approx(3)


def test_inputs_are_lost_at_the_last_row_of_the_trunk() -> None:
    rows = [row("0"), row("1", input_dependence=1e-4), row("2", input_dependence=1e-3)]
    found = signals(profile(*rows, row("head", input_dependence=1e-2)), 1.0, {})
    assert found is not None
    assert found.lost_inputs == pytest.approx(3)


def test_a_branch_that_starts_at_zero_has_lost_no_inputs() -> None:
    zero = row("branch", input_dependence=0.0, activation_rms=0.0)
    rows = [row("0"), row("1", input_dependence=1e-2), zero, row("head")]
    found = signals(profile(*rows), 1.0, {})
    assert found is not None
    assert found.lost_inputs == pytest.approx(2)


def test_signals_end_at_their_caps() -> None:
    rows = [row(str(i), 1e-300 ** (1 - i / 999)) for i in range(1000)]
    rows[-1] = rows[-1]._replace(input_dependence=0.0, activation_rms=1e30)
    found = signals(profile(*rows, row("head")), -7.0, {"5": -30.0}, 99.0, 9.0)
    assert found == pytest.approx(CAPS._replace(growth=0, coherence=0), abs=1e-12)
    found = signals(with_reach(1e30, steps=5), 7.0, {"5": 30.0})
    assert found == pytest.approx(IDEAL, abs=1e-12)
    found = signals(with_reach(1e30, steps=5), 0.0, {})
    assert found is not None
    assert found.growth == CAPS.growth


@pytest.mark.parametrize(
    "measured",
    [
        chain(0.0, 1.0, 1.0),  # nothing arrives
        chain(1.0, 1.0, 0.0),  # nothing leaves
        chain(None, 1.0, 1.0),  # the graph is cut
        chain(math.nan, 1.0, 1.0),
        chain(1.0, math.inf, 1.0),
        profile(row("0")),  # one row
        profile(row("0", bare=True), row("1", bare=True)),  # no parameters
        profile(row("0"), row("1"), row("2"), row("3"), loss=math.nan),
        profile(row("0"), row("1"), row("2", status=RowStatus.NON_FINITE), row("3")),
        profile(*(row(str(i), input_dependence=None) for i in range(4))),  # a batch of one
    ],
)
def test_there_are_no_signals_where_there_is_nothing_to_weigh(measured: object) -> None:
    assert signals(measured, 1.0, {}) is None


def test_there_are_no_signals_without_coherence() -> None:
    assert signals(with_reach(1.0), None, {}) is None
    assert signals(with_reach(1.0), math.nan, {}) is None


# ---- probability


def test_every_signal_has_its_coefficients() -> None:
    assert list(COEFFICIENTS) == ["intercept", *Signals._fields]


@given(any_signals())
def test_a_probability_lies_between_0_and_1_and_adam_is_at_least_sgd(found: Signals) -> None:
    sgd, adam = probability(found)
    assert 0 < sgd <= adam < 1


@given(any_signals(), st.sampled_from(Signals._fields), st.floats(0, 1))
def test_bad_news_never_raises_a_probability(found: Signals, name: str, share: float) -> None:
    value = getattr(found, name)
    end = 0.0 if name in BETTER else getattr(CAPS, name)
    worse = found._replace(**{name: value + share * (end - value)})
    assert all(a <= b + 1e-12 for a, b in zip(probability(worse), probability(found), strict=True))


def test_the_best_and_the_worst_network_are_told_apart() -> None:
    worst = CAPS._replace(growth=0, coherence=0)
    assert probability(IDEAL).sgd > 0.95
    assert probability(worst).adam < 0.05
