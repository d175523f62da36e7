"""A regression of what is so or not so, and how good its probabilities are. numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RIDGE = (
    1.0  # on coefficients of standardised columns: some noise in an outcome must not be believed
)
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.0)  # of a reliability diagram
TOGETHER = 0.95  # of draws, for all bins of both diagrams at once
EACH = TOGETHER ** (1 / (2 * len(BINS) - 2))  # 99.6 %, of draws for one bin (Šidák 1967)


class Link(NamedTuple):
    """How a score becomes a probability; its derivative is of the score and the probability."""

    probability: Callable[[Array], Array]
    derivative: Callable[[Array, Array], Array]
    least: float  # a score below it counts as it: neither 0 nor 1 is ever said

    def within(self, score: Array) -> Array:
        return np.clip(score, self.least, 20.0)


# Each signal multiplies the hazard of failing, exp(-score), and what meets none trains.
LOGLOG = Link(lambda s: np.exp(-np.exp(-s)), lambda s, p: np.exp(-s) * p, -3.0)
LOGISTIC = Link(lambda s: 1 / (1 + np.exp(-s)), lambda s, p: p * (1 - p), -20.0)


def fit(x: Array, y: Array, signs: Array, link: Link) -> Array:
    """Intercept and coefficients of p(y=1) = link(b + x·w), in the units of ``x``.

    Ridge-penalised on standardised columns. A coefficient whose sign is not that of ``signs`` is
    left out, the worst first: no signal may count in favour of what it is a sign against.
    """
    mean, scale = x.mean(0), x.std(0) + 1e-12
    z = (x - mean) / scale
    kept = list(range(x.shape[1]))
    while True:
        w = _scored(z[:, kept], y, link)
        wrong = [(-w[1 + i] * signs[k], k) for i, k in enumerate(kept) if w[1 + i] * signs[k] < 0]
        if not wrong:
            break
        kept.remove(max(wrong)[1])
    slopes = np.zeros(x.shape[1])
    slopes[kept] = w[1:] / scale[kept]
    return np.concatenate([[w[0] - slopes @ mean], slopes])


def _scored(z: Array, y: Array, link: Link) -> Array:
    """By Fisher scoring; a step after which the loss is greater is halved."""
    a = np.column_stack([np.ones(len(z)), z])
    penalty = RIDGE * np.eye(a.shape[1])
    penalty[0, 0] = 0

    def loss(w: Array) -> float:
        return log_loss(predict(w, z, link), y) * len(y) + float(w @ penalty @ w) / 2

    w = np.zeros(a.shape[1])
    for _ in range(200):
        score = link.within(a @ w)
        p = link.probability(score)
        slope = link.derivative(score, p)
        gradient = a.T @ (slope * (y - p) / (p * (1 - p))) - penalty @ w
        curvature = (a * (slope**2 / (p * (1 - p)))[:, None]).T @ a + penalty
        step = np.linalg.solve(curvature, gradient)
        while loss(w + step) > loss(w) and np.abs(step).max() > 1e-9:
            step = step / 2
        w = w + step
        if np.abs(step).max() < 1e-9:
            break
    return w


def predict(w: Array, x: Array, link: Link) -> Array:
    return link.probability(link.within(w[0] + x @ w[1:]))


def folds(count: int, k: int, seed: int) -> list[tuple[Array, Array]]:
    """Indices to fit on and to predict, k times."""
    order = np.random.default_rng(seed).permutation(count)
    return [(np.setdiff1d(order, order[i::k]), order[i::k]) for i in range(k)]


def cross_validated(x: Array, y: Array, signs: Array, link: Link) -> Array:
    """The probability of each row under the model of the folds that it is not in."""
    p = np.zeros(len(y))
    for fitted, left_out in folds(len(y), 10, seed=0):
        p[left_out] = predict(fit(x[fitted], y[fitted], signs, link), x[left_out], link)
    return p


def auc(score: Array, y: Array) -> float:
    """The chance that a network that trains has a higher score than one that does not."""
    high, low = score[y > 0.5][:, None], score[y < 0.5][None]
    return float((high > low).mean() + (high == low).mean() / 2)


def log_loss(p: Array, y: Array) -> float:
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))


def counts_by_chance(p: Array) -> Array:
    """The probability of each number of hits, 0 to n, among n draws of which each has its own p."""
    spread = np.ones(1)
    for q in p:
        spread = np.convolve(spread, [1 - q, q])
    return spread


def share_by_chance(p: Array, held: float) -> tuple[float, float]:
    """The range of the share of hits that ``held`` of all draws keep, or a little more of them."""
    below = np.cumsum(counts_by_chance(p))
    tail = (1 - held) / 2
    low, high = np.argmax(below > tail), np.argmax(below >= 1 - tail)
    return float(low) / len(p), float(high) / len(p)


class Bin(NamedTuple):
    """Of a reliability diagram: what was said of some networks, and what became of them."""

    low: float
    high: float
    count: int
    said: float  # on average
    error: float  # the standard error of the share that trains, if what was said is right
    trained: float  # the share
    by_chance: tuple[float, float]  # where that share is in ``EACH`` of all draws

    @property
    def apart(self) -> float:
        return (self.trained - self.said) / self.error

    @property
    def within(self) -> bool:
        return self.by_chance[0] <= self.trained <= self.by_chance[1]


def bins(p: Array, y: Array) -> list[Bin]:
    """A reliability diagram with its consistency bars (Bröcker and Smith 2007).

    All bins of two diagrams keep to ``by_chance`` at once in ``TOGETHER`` of all draws.
    """
    found = []
    for low, high in pairwise(BINS):
        inside = (p >= low) & ((p < high) | (high == 1))
        if not inside.any():
            continue
        q, count = p[inside], int(inside.sum())
        error = math.sqrt((q * (1 - q)).sum()) / count
        share = float(y[inside].mean())
        found.append(Bin(low, high, count, q.mean(), error, share, share_by_chance(q, EACH)))
    return found


def agreement(found: Sequence[Bin]) -> tuple[float, int, int]:
    """χ², how many bins are beyond two standard errors, and how many outside what chance leaves."""
    chi = sum(one.apart**2 for one in found)
    return chi, sum(abs(one.apart) > 2 for one in found), sum(not one.within for one in found)


def reliability(name: str, p: Array, y: Array) -> None:
    """Print what was said beside what became of it, and what chance makes of it if it was right."""
    print(f"\nreliability, {name}: log loss {log_loss(p, y):.3f}")
    print(f"{'':>13}{'networks':>10}{'said':>14}{'trained':>10}{'apart':>9}{'by chance':>15}")
    found = bins(p, y)
    for one in found:
        span, (least, most) = f"{one.low:g} to {one.high:g}", one.by_chance
        print(
            f"{span:>13}{one.count:10}{one.said:7.2f} ± {one.error:.3f}{one.trained:9.2f}", end=""
        )
        print(f"{one.apart:8.1f}σ{least:7.2f} to {most:.2f}  {'█' * round(20 * one.trained)}")
    chi, wide, outside = agreement(found)
    print(f"{'all':>13}{len(y):10}{p.mean():7.2f}{y.mean():17.2f}", end="")
    print(f"   χ² = {chi:.1f}; beyond 2σ: {wide}, outside chance: {outside}")
