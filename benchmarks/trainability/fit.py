"""Fit the models of ``gradprobe/verdict/calibration.py``, and write their tables into it.

    python benchmarks/trainability/fit.py

Reads ``outcomes.jsonl``, ``outcomes_fit.jsonl``, ``profiles.jsonl`` and ``trials.jsonl``, and
prints what tenfold cross-validation gives there. ``outcomes_report.jsonl`` is not opened. After a
trial, the score by the first table is weighed anew beside what the trial saw.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from profiles import FIT, GIVEN, load
from regression import (
    LOGISTIC,
    LOGLOG,
    Array,
    Link,
    auc,
    cross_validated,
    fit,
    log_loss,
    reliability,
)
from trials import read_trials

from gradprobe.verdict import calibration
from gradprobe.verdict.signals import Signals, effort

TARGETS = {"SGD": "best_sgd", "best of eight": "best"}
LINKS = {"SGD": LOGISTIC, "best of eight": LOGLOG}
TRIED_LINK = LOGISTIC  # for both: under the log-log one a trial that fails says too much
TRAINED = 0.9
GOOD = ("coherence", "invariant")  # more of them is better; of every other signal, less
SIGNS = np.array([1.0 if name in GOOD else -1.0 for name in Signals._fields])
TRIED_NAMES = ("score", "effort")
TRIED_SIGNS = np.array([1.0, -1.0])
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


def seen_tried(
    lines: list[tuple[dict[str, Any], dict[str, Any]]],
) -> tuple[dict[str, Array], dict[str, Array]]:
    """For each target the score before a trial and the trial's effort, and as ``seen``.

    Networks without signals or without a trial are left out.
    """
    trials = read_trials()
    lines = [(o, profile) for o, profile in lines if profile["signals"] and o["id"] in trials]
    _, y = seen(lines)
    scores = [calibration.scores(Signals(**profile["signals"])) for _, profile in lines]
    x = {
        name: np.array(
            [
                (score[model], took[model])
                for score, (outcome, _) in zip(scores, lines, strict=True)
                if (took := effort(trials[outcome["id"]]))
            ]
        )
        for model, name in enumerate(TARGETS)
    }
    return x, y


def three_digits(w: Array) -> list[float]:
    return [float(f"{value:.3g}") for value in w]


def table(head: str, comment: str, names: Sequence[str], columns: list[list[float]]) -> str:
    """A table of ``calibration.py``: a row for each signal, a column for each model."""
    rows = zip(("intercept", *names), *columns, strict=True)
    lines = [f'    "{name}": ({sgd:g}, {best:g}),' for name, sgd, best in rows]
    start = f"{head}: dict[str, tuple[float, float]] = {{"
    return "\n".join([start, f"    # {comment}", *lines, "}", ""])


def in_ten_folds(name: str, x: Array, y: Array, signs: Array, link: Link) -> None:
    """Print what cross-validation gives of one model."""
    p = cross_validated(x, y, signs, link)
    print(f"\n{name}: {y.mean():.0%} train, AUC {auc(p, y):.4f}, log loss {log_loss(p, y):.4f}")
    print("  fails below   trains from   false alarms   misses   uncertain")
    for low, high in BANDS:
        alarms, misses = (p[y > 0.5] < low).mean(), (p[y < 0.5] >= high).mean()
        uncertain = ((p >= low) & (p < high)).mean()
        print(f"{low:13.1f}{high:14.1f}{alarms:15.1%}{misses:9.1%}{uncertain:12.1%}")
    reliability(name, p, y)


def before_a_trial(lines: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    x, targets = seen(lines)
    print(f"{len(lines)} networks, {len(x)} with signals; tenfold cross-validation:")
    for name, y in targets.items():
        in_ten_folds(name, x, y, SIGNS, LINKS[name])
    ablation(x, targets)
    columns = [three_digits(fit(x, y, SIGNS, LINKS[name])) for name, y in targets.items()]
    # The scores that a trial is weighed beside are those by the new table.
    names = ("intercept", *Signals._fields)
    calibration.COEFFICIENTS.update(zip(names, zip(*columns, strict=True), strict=True))
    comment = "per unit beyond what is harmless: SGD, the better of SGD and Adam"
    return table("COEFFICIENTS", comment, Signals._fields, columns)


def after_a_trial(lines: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    x, targets = seen_tried(lines)
    print(f"\nafter a trial: {len(x['SGD'])} networks")
    for name, y in targets.items():
        link = LINKS[name]
        before = link.probability(link.within(x[name][:, 0]))
        print(f"\nbefore: AUC {auc(before, y):.4f}, log loss {log_loss(before, y):.4f}", end="")
        in_ten_folds(name, x[name], y, TRIED_SIGNS, TRIED_LINK)
        for i, left_out in enumerate(TRIED_NAMES):
            rest, signs = np.delete(x[name], i, 1), np.delete(TRIED_SIGNS, i)
            p = cross_validated(rest, y, signs, TRIED_LINK)
            print(f"without {left_out:8} AUC {auc(p, y):.4f}, log loss {log_loss(p, y):.4f}")
    columns = [
        three_digits(fit(x[name], y, TRIED_SIGNS, TRIED_LINK)) for name, y in targets.items()
    ]
    comment = "of the score by the table above, and of the effort: under SGD, at any rate"
    return table("COEFFICIENTS_WITH_TRIAL", comment, TRIED_NAMES, columns)


def main() -> None:
    lines = load(GIVEN) + load(FIT)
    text = before_a_trial(lines) + after_a_trial(lines)
    path = Path(calibration.__file__)
    marked = re.compile(r"(# fit\.py writes from here\n).*?(# to here\n)", re.DOTALL)
    path.write_text(marked.sub(lambda m: m[1] + text + m[2], path.read_text()))
    print(f"\n{text}\nwritten to gradprobe/verdict/calibration.py")


if __name__ == "__main__":
    main()
