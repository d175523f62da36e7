"""Fit the two models of ``gradprobe/verdict/calibration.py``, and write their table into it.

    python benchmarks/trainability/fit.py

Reads ``outcomes.jsonl``, ``outcomes_fit.jsonl`` and ``profiles.jsonl``, and prints what tenfold
cross-validation gives there. ``outcomes_report.jsonl`` is not opened.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from profiles import FIT, GIVEN, load
from regression import LOGISTIC, LOGLOG, Array, auc, cross_validated, fit, log_loss, reliability

from gradprobe.verdict import calibration
from gradprobe.verdict.signals import Signals

TARGETS = {"SGD": "best_sgd", "best of eight": "best"}
LINKS = {"SGD": LOGISTIC, "best of eight": LOGLOG}
TRAINED = 0.9
GOOD = ("coherence",)  # more of it is better; of every other signal, less
SIGNS = np.array([1.0 if name in GOOD else -1.0 for name in Signals._fields])
BANDS = ((0.5, 0.5), (0.4, 0.6), (0.4, 0.8), (0.3, 0.7), (0.2, 0.8))


def seen(lines: list[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[Array, dict[str, Array]]:
    """What counts of the signals, and for each target 1 where the network trained.

    Networks without signals are left out.
    """
    lines = [(outcome, profile) for outcome, profile in lines if profile["signals"]]
    x = np.array([calibration.counted(Signals(**profile["signals"])) for _, profile in lines])
    y = {
        name: np.array([outcome[key] >= TRAINED for outcome, _ in lines], dtype=float)
        for name, key in TARGETS.items()
    }
    return x, y


def compare(head: str, models: dict[str, tuple[Array, Array]], targets: dict[str, Array]) -> None:
    """Print what tenfold cross-validation gives of each model, named columns and their signs."""
    width = 2 + max(map(len, (head, *models)))
    print(f"{head:{width}}" + "".join(f"{name + ': AUC':>20}{'log loss':>10}" for name in targets))
    for name, (x, signs) in models.items():
        print(f"{name:{width}}", end="")
        for target, y in targets.items():
            p = cross_validated(x, y, signs, LINKS[target])
            print(f"{auc(p, y):20.4f}{log_loss(p, y):10.4f}", end="")
        print()


def ablation(x: Array, targets: dict[str, Array]) -> None:
    """What is lost without each signal: those that earn nothing may go."""
    models = {"-": (x, SIGNS)}
    for i, name in enumerate(Signals._fields):
        models[name] = np.delete(x, i, 1), np.delete(SIGNS, i)
    print()
    compare("without", models, targets)


def three_digits(w: Array) -> list[float]:
    return [float(f"{value:.3g}") for value in w]


def table(columns: list[list[float]]) -> str:
    """The table of ``calibration.py``: a row for each signal, a column for each model."""
    names = ("intercept", *Signals._fields)
    rows = [f'    "{n}": ({a:g}, {b:g}),' for n, a, b in zip(names, *columns, strict=True)]
    head = "COEFFICIENTS: dict[str, tuple[float, float]] = {"
    comment = "    # per unit beyond what is harmless: SGD, the better of SGD and Adam"
    return "\n".join([head, comment, *rows, "}", ""])


def main() -> None:
    lines = load(GIVEN) + load(FIT)
    x, targets = seen(lines)
    print(f"{len(lines)} networks, {len(x)} with signals; tenfold cross-validation:")
    columns = []
    for name, y in targets.items():
        p = cross_validated(x, y, SIGNS, LINKS[name])
        columns.append(three_digits(fit(x, y, SIGNS, LINKS[name])))
        print(f"\n{name}: {y.mean():.0%} train, AUC {auc(p, y):.3f}, log loss {log_loss(p, y):.3f}")
        print("  fails below   trains from   false alarms   misses   uncertain")
        for low, high in BANDS:
            alarms, misses = (p[y > 0.5] < low).mean(), (p[y < 0.5] >= high).mean()
            uncertain = ((p >= low) & (p < high)).mean()
            print(f"{low:13.1f}{high:14.1f}{alarms:15.1%}{misses:9.1%}{uncertain:12.1%}")
        reliability(name, p, y)
    ablation(x, targets)
    path = Path(calibration.__file__)
    marked = re.compile(r"(# fit\.py writes from here\n).*?(# to here\n)", re.DOTALL)
    text = marked.sub(lambda m: m[1] + table(columns) + m[2], path.read_text())
    path.write_text(text)
    print(f"\n{table(columns)}\nwritten to gradprobe/verdict/calibration.py")


if __name__ == "__main__":
    main()
