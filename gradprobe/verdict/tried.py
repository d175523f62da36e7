"""What was predicted and what a trial saw → what stands. No torch.

A network fails where both say so, or the trial alone where it used the user's own loss and data,
was asked for, or nothing was measured; what was predicted then stands beside it, as the likely
cause. What learned is healthy, or weak where only Adam learned, or where the prediction was not
healthy and leaves SGD less than 80 % together with the trial: sixteen samples are learned more
easily than a data set.
What needs no prediction, a dead or disconnected weight or a number that is not finite, fails
whatever a trial saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gradprobe.measure.measurement import Trial
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.verdict.calibration import TRAINS
from gradprobe.verdict.report import Probability, Severity, Verdict
from gradprobe.verdict.rules.notes import SAME
from gradprobe.verdict.rules.rule import Clue, Rule, Thresholds

Clues = Mapping[Rule, Sequence[Clue]]

_PREDICTED = (Verdict.WEAK, Verdict.VANISHING, Verdict.EXPLODING, Verdict.SHATTERED)


def settled(
    clues: Clues,
    trial: Trial,
    limits: Thresholds,
    after: Probability | None = None,
    alike: float | None = None,
) -> Clues:
    """The clues of each rule, as the trial leaves them.

    Args:
        clues: what was predicted, and what needs no prediction.
        limits: bands of the user's own decide themselves: no trial clears what they find, and one
            that nobody asked for adds nothing.
        after: how likely it is to train, by prediction and trial together.
        alike: how far the loss pulls all samples the same way. Where it does so wholly, as an
            adversarial one, and is as low as a constant output makes it, there is no more to learn.
    """
    # Causes that were read off the network, which no probability weighs, stay.
    predicted = [r for r in clues if r.weigh and r.verdict in _PREDICTED and clues[r]]
    blind = [r for r in clues if r.verdict is Verdict.UNMEASURED and clues[r]]
    cleared: Clues = {rule: [] for rule in (*predicted, *blind)}
    if limits != THRESHOLDS and (trial.learned or not (trial.own or trial.asked)):
        return clues
    if trial.learned:
        unlikely = bool(predicted) and after is not None and after.sgd < TRAINS
        # By the user's own loss sixty steps of SGD on a plateau are no sign where all else is well.
        doubtful = unlikely or (trial.only_adam and (bool(predicted) or not trial.own))
        weak = Verdict.WEAK if doubtful else None
        return {**clues, **cleared, **_seen(clues, trial, weak)}
    if not trial.failed:
        return clues
    confirmed = {**clues, **{rule: [_both(clue) for clue in clues[rule]] for rule in predicted}}
    failing = {r for r in clues if clues[r] and r.verdict and r.severity is Severity.ERROR}
    alone = trial.own or trial.asked or blind
    if failing - set(blind) or (predicted and not alone):
        return confirmed
    told_apart = alike is None or alike < SAME or not trial.as_constant
    verdict = Verdict.DOES_NOT_LEARN if alone and told_apart else Verdict.WEAK
    return {**confirmed, **dict.fromkeys(blind, ()), **_seen(clues, trial, verdict)}


def _seen(clues: Clues, trial: Trial, verdict: Verdict | None) -> Clues:
    """What the rule that leads to ``verdict`` has to say of the trial."""
    rules = [rule for rule in clues if verdict and rule.verdict is verdict]
    return {rule: list(rule.tried(trial)) for rule in rules if rule.tried}


def _both(clue: Clue) -> Clue:
    return clue._replace(message=f"{clue.message}; tried: does not learn")
