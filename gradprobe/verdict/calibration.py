"""How likely a network is to train: from its signals, and after a trial from what it saw too.

"To train" means what ``benchmarks/trainability/train.py`` measures: at least 90 % training accuracy
on scikit-learn's digits after 300 steps, under the best of five learning rates of SGD (``sgd``), or
of those and three of Adam (``adam``). Each follows from a weighted sum of the signals, the score,
which after a trial on one batch is weighed anew beside what that saw. The tables are written by

    python benchmarks/trainability/fit.py

and ``benchmarks/trainability/report.py`` says how well it does on networks that it has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from gradprobe.verdict.causes import CAUSES
from gradprobe.verdict.report import Probability, Verdict
from gradprobe.verdict.signals import Effort, Signals

# fit.py writes from here
COEFFICIENTS: dict[str, tuple[float, float]] = {
    # per unit beyond what is harmless: SGD, the better of SGD and Adam
    "intercept": (-1.9, -1.82),
    "decay": (-1.62, -0.878),
    "growth": (-0.24, -0.248),
    "forward_growth": (-2.06, -0.998),
    "lost_inputs": (-0.649, -0.498),
    "lost_past": (-0.902, -0.546),
    "shattering": (-5.32, -2.6),
    "coherence": (6.96, 7.64),
    "invariant": (1.54, 0.866),
}
COEFFICIENTS_WITH_TRIAL: dict[str, tuple[float, float]] = {
    # of the score by the table above, and of the effort: under SGD, at any rate
    "intercept": (1.58, 0.835),
    "score": (0.836, 1.16),
    "effort": (-1.75, -1.7),
}
# to here

# The operating points. Below the first, a network is said not to train; from the second on, that it
# does; between them nobody knows. fit.py prints what others give on the networks of the fit.
FAILS, TRAINS = 0.4, 0.8

# As much of a signal as does no harm: what is beyond it counts.
HARMLESS = {"forward_growth": 1.0}

# A score under Adam that is lower counts as this: 2e-9 is as little as anybody could mean.
LEAST = -3.0

# The signals of a network of which nothing is wrong; norms are no need of every network.
IDEAL = Signals(**{**dict.fromkeys(Signals._fields, 0.0), "coherence": 1.0})


class Outlook(NamedTuple):
    """What the two probabilities come to.

    ``margin``: by how much the odds would have to change, on the scale asked for, to cross the
    nearest boundary.
    """

    fails: bool  # under SGD and under Adam
    trains: bool  # under SGD
    margin: float


def log_odds(p: float) -> float:
    """ln(p / (1 - p)): the logistic link."""
    return math.log(p / (1 - p))


def minus_log_log(p: float) -> float:
    """-ln(-ln p): the log-log link."""
    return -math.log(-math.log(p))


def outlook(p: Probability, adams: Callable[[float], float] = log_odds) -> Outlook:
    """It fails where neither is likely to train it, and trains where SGD is; else it is uncertain.

    Uncertain is also what SGD will not train and Adam may.

    Args:
        adams: scale of the margin below, of ``p.adam``: ``log_odds`` for people,
            ``minus_log_log`` where its spread counts.
    """
    low = adams(p.adam) - adams(FAILS)
    high = log_odds(p.sgd) - log_odds(TRAINS)
    margin = -low if low < 0 else high if high >= 0 else min(low, -high)
    return Outlook(low < 0, high >= 0, margin)


def probability(signals: Signals, effort: Effort | None = None) -> Probability:
    """Under SGD 1 / (1 + exp(-score)); under the better of the two exp(-exp(-score)).

    That is the logistic link and the log-log one, in which each signal multiplies the hazard of
    failing (McCullagh and Nelder 1989, section 4.3). After a trial both are logistic.

    What SGD trains is trained by the better of the two, so ``adam`` is at least ``sgd``.

    Args:
        effort: that of a trial, if there was one: ``signals.effort``.
    """
    sgds, adams = scores(signals)
    if effort is None:
        sgd, adam = _logistic(sgds), math.exp(-math.exp(-max(adams, LEAST)))
    else:
        sgd, adam = _logistic(_after(sgds, effort.sgd, 0)), _logistic(_after(adams, effort.adam, 1))
    return Probability(sgd, max(sgd, adam))


def _logistic(score: float) -> float:
    return 1 / (1 + math.exp(-score))


def scores(signals: Signals) -> tuple[float, float]:
    """Before any trial, under SGD and under the better of the two."""
    sgd, adam = (math.fsum(terms) for terms in zip(*contributions(signals).values(), strict=True))
    return sgd, adam


def _after(score: float, effort: float, model: int) -> float:
    """The score after a trial."""
    values = {"intercept": 1.0, "score": score, "effort": effort}
    return math.fsum(both[model] * values[name] for name, both in COEFFICIENTS_WITH_TRIAL.items())


def counted(signals: Signals) -> Signals:
    """The signals without as much of them as is harmless: what the coefficients are for."""
    return signals._replace(
        **{name: max(0.0, getattr(signals, name) - free) for name, free in HARMLESS.items()}
    )


def contributions(signals: Signals) -> dict[str, tuple[float, float]]:
    """What each signal adds to the score under SGD, and under the better of the two.

    ``ideal`` is the score where every signal is ideal, a coherence of 1 and 0 elsewhere; what the
    signals add to it is at most 0 each, but for ``invariant``, and everything adds up to the score.
    """
    ideal = {"intercept": 1.0, **IDEAL._asdict()}
    away = {name: value - ideal[name] for name, value in counted(signals)._asdict().items()}
    whole = [math.fsum(COEFFICIENTS[name][m] * ideal[name] for name in ideal) for m in (0, 1)]
    parts = {
        name: (COEFFICIENTS[name][0] * x, COEFFICIENTS[name][1] * x) for name, x in away.items()
    }
    return {"ideal": (whole[0], whole[1]), **parts}


def causes(signals: Signals, model: int = 0) -> list[str]:
    """The names of the signals that take something from the score, the most first.

    Args:
        model: 0 for the score under SGD, 1 for that under the better of SGD and Adam.
    """
    taken = {name: both[model] for name, both in contributions(signals).items() if name != "ideal"}
    return sorted((name for name, change in taken.items() if change < 0), key=taken.__getitem__)


def verdict(signals: Signals) -> Verdict:
    """What the probabilities come to; of a network that fails, the class of the main cause."""
    fails, trains, _ = outlook(probability(signals))
    if not fails:
        return Verdict.HEALTHY if trains else Verdict.WEAK
    return CAUSES[causes(signals, 1)[0]].verdict
