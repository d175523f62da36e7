"""How often rules on causes speak up about networks that are sound.

    python benchmarks/false_alarms.py                      # all three parts
    python benchmarks/false_alarms.py --part specs
    python benchmarks/false_alarms.py --part labelled --sample 400
    python benchmarks/false_alarms.py --part architectures
    python benchmarks/false_alarms.py --part thresholds    # how GP603 and GP606 were set

``specs`` are those of model_specs/, probed on drawn inputs. ``labelled`` are networks that came to
90 % training accuracy on scikit-learn's digits (benchmarks/trainability), a seeded sample of them,
each probed on 64 digits with cross entropy, as it was trained. ``architectures`` are the published
ones of real_models.py, at their own init, as far as their libraries are installed. Every probe
takes the second look.

It prints each network that gets a GP6xx or GP7xx of severity warning or error, and their share.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import gradprobe
from gradprobe.model.build import build
from gradprobe.spec.sources.yaml import parse
from gradprobe.verdict.report import Report

HERE = Path(__file__).parent
OUTCOMES = ("outcomes.jsonl", "outcomes_fit.jsonl", "outcomes_report.jsonl")
TRAINED = 0.9
BATCH = 64

SMALL = 30_000_000  # parameters of an architecture, at the most
BANDS = {
    "flat": [(0, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 0.95), (0.95, 1.01)],
    "guess": [(0, 2), (2, 10), (10, 30), (30, 100), (100, 300), (300, 1e3), (1e3, math.inf)],
}


def digits() -> tuple[Tensor, Tensor]:
    """Images of shape (1797, 64), standardised as for the training, and labels."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x - x.mean(0)) / (x.std(0) + 1e-3)
    return torch.from_numpy(x).float(), torch.from_numpy(y).long()


# ---- the parts: each yields a name and a report


def specs(arguments: argparse.Namespace) -> Iterator[tuple[str, Report]]:
    for path in sorted((HERE.parent / "model_specs").glob("*.yaml")):
        yield path.stem, gradprobe.probe(gradprobe.load(str(path)), deep=True)


def outcomes(files: tuple[str, ...]) -> list[dict[str, Any]]:
    folder = HERE / "trainability"
    return [json.loads(line) for f in files for line in (folder / f).read_text().splitlines()]


def on_digits(outcome: dict[str, Any], x: Tensor, y: Tensor, deep: bool = True) -> Report:
    """The report on a network with the data and the loss that it was trained with."""
    spec = parse(json.dumps(outcome["spec"]).encode(), f"outcome {outcome['id']}")
    network = build(spec, batch_size=BATCH)
    inputs = x[:BATCH].reshape(BATCH, *spec.input.shape)
    return gradprobe.probe(network, inputs, loss=lambda o: F.cross_entropy(o, y[:BATCH]), deep=deep)


def labelled(arguments: argparse.Namespace) -> Iterator[tuple[str, Report]]:
    x, y = digits()
    trained = [o for o in outcomes(OUTCOMES) if o["best"] >= TRAINED]
    chosen = random.Random(0).sample(trained, min(arguments.sample, len(trained)))
    print(f"{len(chosen)} of {len(trained)} labelled networks that trained")
    for outcome in chosen:
        yield f"{outcome['id']} {outcome['config']}", on_digits(outcome, x, y)


def architectures(arguments: argparse.Namespace) -> Iterator[tuple[str, Report]]:
    from real_models import networks

    left = arguments.sample
    for name, make in networks():
        torch.manual_seed(0)
        try:
            model, inputs = make()
            if not left or sum(p.numel() for p in model.parameters()) > SMALL:
                continue
            report = gradprobe.probe(model.train(), inputs, deep=True)
        except Exception as error:  # not in this release, or not to be had at this size
            print(f"  left out: {name} ({type(error).__name__}: {str(error)[:80]})")
            continue
        left -= 1
        yield name, report


# ---- the thresholds


def thresholds(count: int) -> None:
    """Of networks by flat share and by first loss: how many trained. In two sets."""
    x, y = digits()
    for title, files in (("tuning", OUTCOMES[:2]), ("test", OUTCOMES[2:])):
        lines = outcomes(files)
        lines = random.Random(0).sample(lines, min(count, len(lines)))
        values: dict[str, list[tuple[float, bool]]] = {"flat": [], "guess": []}
        for outcome in lines:
            report = on_digits(outcome, x, y, deep=False)
            around, trained = report.profile.around, outcome["best"] >= TRAINED
            guess = max((loss.times_guess or 0.0 for loss in around.losses), default=0.0)
            values["guess"].append((guess, trained))
            if around.flat_kind:
                values["flat"].append((around.flat, trained))
        for name, pairs in values.items():
            print(f"{title}: {name}, of {len(pairs)} networks", flush=True)
            for low, high in BANDS[name]:
                inside = [trained for value, trained in pairs if low <= value < high]
                share = sum(inside) / max(1, len(inside))
                print(f"  {low:g} to {high:g}: {len(inside):5} networks, {share:.0%} trained")


PARTS = {"specs": specs, "labelled": labelled, "architectures": architectures}


def sweep(part: str, arguments: argparse.Namespace) -> None:
    """Print each network with an alarm, how often each rule spoke, and the share of networks."""
    count, with_alarm = 0, 0
    codes: Counter[str] = Counter()
    for name, report in PARTS[part](arguments):
        count += 1
        found = [f for f in report.findings if f.severity and f.rule.startswith(("GP6", "GP7"))]
        with_alarm += bool(found)
        codes.update(finding.rule for finding in found)
        for finding in found:
            print(f"  {name}: {finding.rule} {finding.message}", flush=True)
    share = with_alarm / max(1, count)
    print(f"{part}: {with_alarm} of {count} networks with an alarm ({share:.1%}); {dict(codes)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=[*PARTS, "thresholds"], action="append")
    parser.add_argument("--sample", type=int, default=400, help="networks of a part, at the most")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for part in arguments.part or PARTS:
        if part == "thresholds":
            thresholds(arguments.sample)
        else:
            sweep(part, arguments)


if __name__ == "__main__":
    main()
