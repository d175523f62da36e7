"""What stands of a prediction after a trial: healthy, weak or failing."""

from __future__ import annotations

import math

import pytest

from gradprobe.measure.measurement import Course, Outcome, Trial
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.verdict.calibration import TRAINS
from gradprobe.verdict.report import Probability
from gradprobe.verdict.rules.rule import Clue
from gradprobe.verdict.rules.table import BY_NAME, RULES
from gradprobe.verdict.tried import settled

LEARNED = Course("SGD", 0.1, (2.3, 1.0, 0.2), Outcome.LEARNED)
BY_ADAM = LEARNED._replace(optimizer="Adam")


def standing(trial: Trial, after: Probability | None) -> list[str]:
    """The rules that still find something where ``vanishing`` was predicted."""
    clues = {rule: [Clue("it vanishes", "mend it")] * (rule.name == "vanishing") for rule in RULES}
    left = settled(clues, trial, THRESHOLDS, after)
    return [rule.name for rule in RULES if left.get(rule)]


@pytest.mark.parametrize(
    ("course", "sgd", "names"),
    [
        (LEARNED, None, []),
        (LEARNED, TRAINS, []),
        (LEARNED, math.nextafter(TRAINS, 0), ["weak"]),
        (BY_ADAM, 0.99, ["weak"]),
    ],
)
def test_what_learned_is_weak_where_prediction_and_trial_together_leave_doubt(
    course: Course, sgd: float | None, names: list[str]
) -> None:
    after = None if sgd is None else Probability(sgd, 1.0)
    assert standing(Trial((course,)), after) == names


@pytest.mark.parametrize(
    ("alike", "first", "last", "names"),
    [
        (1.0, 2.3, 1.02, ["weak"]),
        (0.5, 2.3, 1.02, ["does-not-learn"]),
        (1.0, 2.3, 2.0, ["does-not-learn"]),
        (1.0, 1.02, 1.02, ["does-not-learn"]),
    ],
)
def test_a_loss_for_which_a_constant_is_the_best_leaves_a_trial_that_fails_in_doubt(
    alike: float, first: float, last: float, names: list[str]
) -> None:
    slow = Course("SGD", 0.1, (first, first, last), Outcome.SLOW)
    trial = Trial((slow,), own=True, baseline=1.0)
    left = settled({rule: [] for rule in RULES}, trial, THRESHOLDS, None, alike)
    assert [rule.name for rule in RULES if left.get(rule)] == names


def test_what_learned_by_sgd_and_is_weak_is_not_said_to_need_adam() -> None:
    assert BY_NAME["weak"].tried is not None
    [clue] = BY_NAME["weak"].tried(Trial((LEARNED,)))
    assert "SGD 0.1, 2 steps" in clue.message
    assert "Adam" not in clue.message + clue.advice


def test_what_fails_both_fails_however_likely_the_two_make_it() -> None:
    slow = LEARNED._replace(outcome=Outcome.SLOW)
    assert standing(Trial((slow,)), Probability(0.9, 0.9)) == ["vanishing"]
