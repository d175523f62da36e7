"""Draw what the calibrated verdict is worth beside its peers: one SVG.

    python benchmarks/trainability/figure.py docs/calibration.svg

Left: what was said before training against what became of the network; grey: left uncertain; and in
each bin of what was said the share that trained, with the range that chance leaves it. Right: false
alarms and misses of each rule from its published threshold, of gradprobe's two, and of its
probability cut at one threshold, over all of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from profiles import REPORT, load
from regression import bins
from report import RULES, TRAINED, Line, calibrated, outcomes, quality, said

from gradprobe.verdict.calibration import FAILS, TRAINS

INK, GOOD, BAD, OPEN = "#333333", "#2a7f62", "#c0392b", "#888888"
OWN = "gradprobe"
# Where a name stands beside its point, in points of print, where it would run into another.
BESIDE = {
    OWN: (-4, -12),
    "smallest RMS ≥ 1e-7": (6, 6),
    "SageMaker Debugger": (6, -3),
    "TheDeepChecker": (6, -3),
    "AutoTrainer": (-22, 8),
    "reach in 1e-4 … 1e4": (5, -9),
}


def said_and_done(axes: Axes, lines: list[Line]) -> None:
    p = said(lines, 0)
    accuracy = np.array([outcome["best_sgd"] for outcome, _ in lines])
    right = (p >= TRAINS) == (accuracy >= TRAINED)
    colours = np.where((p >= FAILS) & (p < TRAINS), OPEN, np.where(right, GOOD, BAD))
    axes.scatter(p, accuracy, s=14, c=colours, alpha=0.6, linewidths=0)
    shares = bins(p, outcomes(lines, "SGD"))
    said_there = [one.said for one in shares]
    least, most = zip(*(one.by_chance for one in shares), strict=True)
    axes.plot([0, 1], [0, 1], color=INK, lw=0.6, alpha=0.5)
    axes.vlines(said_there, least, most, color=INK, lw=2.5, alpha=0.35)
    axes.plot(said_there, [one.trained for one in shares], "D", color=INK, ms=4.5)
    for point in (FAILS, TRAINS):
        axes.axvline(point, color=INK, lw=0.6, ls=":")
    axes.axhline(TRAINED, color=INK, lw=0.6, ls=":")
    axes.set(
        xlabel="probability said before training",
        ylabel="accuracy after 300 steps, best SGD;  ◆ share that trained",
        title=f"{len(lines)} networks that it was not fitted on",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )


def rules_beside(axes: Axes, lines: list[Line]) -> None:
    y = outcomes(lines, "SGD") > 0.5
    p = said(lines, 0)
    points = np.concatenate([[0.0], np.unique(p), [1.1]])
    axes.plot(
        [100 * (p[y] < point).mean() for point in points],
        [100 * (p[~y] >= point).mean() for point in points],
        color=GOOD,
        lw=1.2,
        drawstyle="steps-post",
    )
    for name, rule in ({OWN: calibrated(0)} | RULES).items():
        if name == "gradprobe check's verdict":  # one for SGD and Adam together
            continue
        q = quality(lines, "SGD", rule)
        own = name == OWN
        axes.plot(100 * q.alarms, 100 * q.misses, "o", color=GOOD if own else INK, ms=5)
        axes.annotate(
            name,
            (100 * q.alarms, 100 * q.misses),
            xytext=BESIDE.get(name, (6, 3)),
            textcoords="offset points",
            color=GOOD if own else INK,
            fontsize=8,
        )
    axes.set(
        xlabel="false alarms, % of those that train",
        ylabel="misses, % of those that do not",
        title="each rule at its published threshold",
        xlim=(-1, 40),
        ylim=(-2, 102),
    )


def main() -> None:
    plt.switch_backend("svg")
    plt.rcParams.update({"svg.hashsalt": "gradprobe", "svg.fonttype": "none", "font.size": 9})
    lines = load(REPORT)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    said_and_done(left, lines)
    rules_beside(right, lines)
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "calibration.svg")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    print(f"{path}: {len(lines)} networks")


if __name__ == "__main__":
    main()
