"""How likely a network is to train, from its signals: two logistic models and their one table.

"To train" means what ``benchmarks/trainability/train.py`` measures: at least 90 % training accuracy
on scikit-learn's digits after 300 steps, under the best of five learning rates of SGD (``sgd``), or
of those and three of Adam (``adam``). The table is written by

    python benchmarks/trainability/fit.py

and ``benchmarks/trainability/report.py`` says how well it does on networks that it has not seen.
"""

from __future__ import annotations

import math

from gradprobe.report import Probability, Signals

# fit.py writes from here
COEFFICIENTS: dict[str, tuple[float, float]] = {
    # per unit of the signal: SGD, the better of SGD and Adam
    "intercept": (2.1, 1),
    "decay": (-1.48, -0.981),
    "growth": (-1.15, -0.7),
    "lost_inputs": (-1.28, -0.37),
    "bare_depth": (-1.44, -0.974),
    "coherence": (3.83, 5.26),
}
# to here

# Below it, the network is said not to train: it is more likely to fail. fit.py prints what other
# points give on the networks of the fit.
OPERATING_POINT = 0.5


# The signals of a network of which nothing is wrong.
IDEAL = Signals(decay=0.0, growth=0.0, lost_inputs=0.0, bare_depth=0.0, coherence=1.0)


def probability(signals: Signals) -> Probability:
    """Each a logistic function of a weighted sum of the signals.

    What SGD trains is trained by the better of the two, so ``adam`` is at least ``sgd``.
    """
    scores = [math.fsum(terms) for terms in zip(*contributions(signals).values(), strict=True)]
    sgd, adam = (1 / (1 + math.exp(-score)) for score in scores)
    return Probability(sgd, max(sgd, adam))


def contributions(signals: Signals) -> dict[str, tuple[float, float]]:
    """What each signal adds to the log odds of training, under SGD and under the better of the two.

    ``ideal`` is the log odds where every signal is ideal, a coherence of 1 and 0 elsewhere; what
    the signals take from it is at most 0 each, and everything adds up to the log odds.
    """
    ideal = {"intercept": 1.0, **IDEAL._asdict()}
    away = {name: value - ideal[name] for name, value in signals._asdict().items()}
    whole = [math.fsum(COEFFICIENTS[name][m] * ideal[name] for name in ideal) for m in (0, 1)]
    parts = {
        name: (COEFFICIENTS[name][0] * x, COEFFICIENTS[name][1] * x) for name, x in away.items()
    }
    return {"ideal": (whole[0], whole[1]), **parts}
