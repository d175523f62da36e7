"""What the calibrated verdict is worth on networks of real families, which no fit has seen.

    OMP_NUM_THREADS=1 python benchmarks/trainability/report_families.py

Reads ``outcomes_families.jsonl``. The signals of each network are those of ``gradprobe.probe`` with
a second look, on 32 standard normal images, and its verdict is also taken with the trial that a
check makes where the prediction is not clear; a line of ``profiles_families.jsonl`` keeps both, and
what is there is not measured again: delete the file when a signal changes. What the words of the
table mean is said in ``report.py``. The families of ``families.REPORT`` are those that nothing was
ever compared on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from families import REPORT, SIDE, make, networks
from fit import TARGETS
from profiles import short
from report import (
    Judged,
    Line,
    auc_error,
    calibrated,
    outcomes,
    probabilities,
    quality,
    said,
    trained,
    verdict,
)
from train import read
from train_families import OUTCOMES

import gradprobe
from gradprobe.model.seeds import derive
from gradprobe.verdict.calibration import causes
from gradprobe.verdict.signals import Signals

PROFILES = Path(__file__).parent / "profiles_families.jsonl"
BATCH = 32
BARS = (0.8, 0.7, 0.5)  # training accuracies below that of ``fit.TRAINED``


def profile(name: str) -> dict[str, Any]:
    """The line of ``profiles_families.jsonl`` for one network."""
    network = next(network for network in networks() if network.name == name)
    draw = torch.Generator().manual_seed(derive(0, "images"))
    images = torch.randn(BATCH, 3, SIDE, SIDE, generator=draw)
    report = gradprobe.probe(make(network), images, deep=True, overfit="auto")
    signals = report.training.signals if report.training else None
    return {
        "id": name,
        "signals": signals and {k: short(v) for k, v in signals._asdict().items()},
        "reach": short(report.reach),
        "verdict": str(report.verdict),  # after the trial, if there was one
    }


def lines() -> list[Line]:
    """Outcome and profile of each network that was trained; what is missing is measured."""
    known = {line["id"]: line for line in read(PROFILES)}
    every = []
    for outcome in read(OUTCOMES):
        if outcome["id"] not in known:
            known[outcome["id"]] = profile(outcome["id"])
            with PROFILES.open("a") as stream:
                stream.write(json.dumps(known[outcome["id"]]) + "\n")
        every.append((outcome, known[outcome["id"]]))
    return every


def checked(profile: dict[str, Any]) -> Judged:
    """The verdict of a check, with its trial."""
    word = profile["verdict"]
    fails = word not in ("healthy", "weak")
    return Judged(fails, probabilities(profile).adam, word == "weak")


def table(head: str, some: list[Line]) -> None:
    for model, target in enumerate(TARGETS):
        y = outcomes(some, target)
        print(f"\n{head}, {target}: {int(y.sum())} of {len(y)} networks train")
        print(f"{'':28}    AUC   ± error   false alarms   misses   uncertain")
        rules: dict[str, Callable[[dict[str, Any]], Judged]] = {
            "probability": calibrated(model),
            "verdict without a trial": verdict,
            "verdict of a check": checked,
        }
        for name, rule in rules.items():
            q, error = quality(some, target, rule), auc_error(said(some, model), y)
            print(f"{name:28}{q.auc:7.3f}{error:10.3f}{q.alarms:15.1%}", end="")
            print(f"{q.misses:9.1%}{q.uncertain:12.1%}")
        near = [o for o, p in some if verdict(p).passes and not trained(o, target)]
        told = " ".join(
            f"{bar:.0%}: {sum(o[TARGETS[target]] >= bar for o in near)}" for bar in BARS
        )
        print(f"of {len(near)} misses of the verdict without a trial reach {told}")


def by_family(every: list[Line]) -> None:
    """By the verdict and under the better of SGD and Adam: what is wrong, and by which signal."""
    print(f"\n{'family':14}{'networks':>9}{'fail':>6}{'alarms':>8}{'misses':>8}   told by")
    for family in sorted({outcome["family"] for outcome, _ in every}):
        some = [line for line in every if line[0]["family"] == family]
        judged = [(verdict(p), y > 0.5, p) for (_, p), y in zip(some, _best(some), strict=True)]
        alarms = sum(said.fails and y for said, y, _ in judged)
        misses = sum(said.passes and not y for said, y, _ in judged)
        told = Counter(
            causes(Signals(**p["signals"]), 1)[0] if p["signals"] else p["verdict"]
            for said, y, p in judged
            if not y and said.fails
        )
        words = ", ".join(f"{name} {count}" for name, count in told.most_common())
        fail = sum(not y for _, y, _ in judged)
        mark = "*" if family in REPORT else ""
        print(f"{family + mark:14}{len(some):9}{fail:6}{alarms:8}{misses:8}   {words}")
    print("* of REPORT")


def _best(some: list[Line]) -> list[float]:
    return [float(y) for y in outcomes(some, "best of eight")]


def main() -> None:
    torch.set_num_threads(1)
    every = lines()
    table("every family", every)
    table("families of REPORT", [line for line in every if line[0]["family"] in REPORT])
    by_family(every)


if __name__ == "__main__":
    main()
