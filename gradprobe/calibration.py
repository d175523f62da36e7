"""How likely a network is to train, from its signals: two logistic models and their one table.

"To train" means what ``benchmarks/trainability/train.py`` measures: at least 90 % training accuracy
on scikit-learn's digits after 300 steps, under the best of five learning rates of SGD (``sgd``), or
of those and three of Adam (``adam``). The table is written by

    python benchmarks/trainability/fit.py

and ``benchmarks/trainability/report.py`` says how well it does on networks that it has not seen.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from gradprobe.signals import Signals

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


class Probability(NamedTuple):
    """That a network trains, under SGD and under the better of SGD and Adam."""

    sgd: float
    adam: float


def probability(signals: Signals) -> Probability:
    """Each a logistic function of a weighted sum of the signals.

    What SGD trains is trained by the better of the two, so ``adam`` is at least ``sgd``.
    """
    terms = {"intercept": 1.0, **signals._asdict()}
    scores = [
        math.fsum(COEFFICIENTS[name][model] * value for name, value in terms.items())
        for model in (0, 1)
    ]
    sgd, adam = (1 / (1 + math.exp(-score)) for score in scores)
    return Probability(sgd, max(sgd, adam))
