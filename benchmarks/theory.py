"""Mean-field theory against measurement, and against training.

    OMP_NUM_THREADS=1 python benchmarks/theory.py [--width 1024] [--seeds 4]

Claim 1: `gradprobe probe --theory` gives the factor per row of a wide network. Printed: theory's
and the measured factor for activations and inits, plain and residual, geometric mean over 15 rows
and the seeds, in float64.

Claim 2: the deviation that stands beside a prediction is about right: z = ln(measured reach /
predicted) / deviation, over widths and seeds, is of the order of 1 and seldom beyond 3.

Claim 3: on `trainability/outcomes.jsonl`, theory's |log10 reach| ranks trainable networks above
untrainable ones about as well as the measured one does, where theory has a prediction at all.
Printed: the share of networks with a prediction, and the AUC of both.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from gradprobe.measure.profile import GradientProfile
from gradprobe.spec.network import InitSpec, NetworkSpec
from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.spec.sources.yaml import parse
from gradprobe.tasks.probe import probe_target
from gradprobe.tasks.targets import load_spec

OUTCOMES = Path(__file__).parent / "trainability" / "outcomes.jsonl"
COLUMNS = ("best", "best_sgd", "adam_1e-3")
TRAINED = 0.9
DEPTH = 16
GRID = (
    ("none", None),
    ("none", "orthogonal"),
    ("relu", None),
    ("relu", "kaiming_normal"),
    ("tanh", None),
    ("sigmoid", None),
    ("gelu", None),
    ("selu", "xavier_normal"),
    ("silu", None),
    ("elu", "xavier_normal"),
    ("softsign", "orthogonal"),
)
NORMS = ("none", "layer", "batch")


def stack(target: str, width: int, name: str, init: str | None, norm: str = "none") -> NetworkSpec:
    made = InitSpec(init) if init else None
    return load_spec(target, StackOptions(DEPTH, width, name, made, norm))


def probed(spec: NetworkSpec, seed: int, batch_size: int | None = None) -> GradientProfile:
    options = ProbeOptions(seed=seed, batch_size=batch_size, dtype="float64", theory=True)
    return probe_target(spec, options).profile


def grid(width: int, seeds: int) -> None:
    print(f"factor per row, width {width}, depth {DEPTH}, {seeds} seeds")
    print(f"{'activation':12}{'init':16}{'':10}{'theory':>8}{'measured':>10}{'error':>8}")
    for name, init in GRID:
        for target in ("plain", "residual"):
            spec = stack(target, width, name, init)
            profiles = [probed(spec, seed, 16) for seed in range(seeds)]
            found = statistics.geometric_mean(p.decay or math.nan for p in profiles)
            said = profiles[0].predicted_decay or math.nan
            words = f"{name:12}{init or 'torch default':16}{target:10}"
            print(f"{words}{said:>8.4f}{found:>10.4f}{found / said - 1:>8.1%}")


def scores(width: int, seeds: int) -> list[float]:
    """z of each norm, target and seed at one width."""
    found = []
    for norm in NORMS:
        for target in ("plain", "residual"):
            for seed in range(seeds):
                for name in ("relu", "tanh"):
                    profile = probed(stack(target, width, name, None, norm), seed)
                    assert profile.reach
                    assert profile.predicted_reach
                    apart = math.log(profile.reach / profile.predicted_reach)
                    found.append(apart / profile.predicted_deviation)
    return found


def deviations(seeds: int) -> None:
    print(f"\nz = ln(measured / predicted reach) / deviation; {', '.join(NORMS)} norm, relu, tanh")
    print(f"{'width':>6}{'networks':>10}{'mean z':>8}{'rms z':>7}{'largest |z|':>13}")
    for width in (32, 64, 128, 256):
        z = scores(width, seeds)
        rms = math.sqrt(statistics.mean(one * one for one in z))
        largest = max(map(abs, z))
        print(f"{width:>6}{len(z):>10}{statistics.mean(z):>8.2f}{rms:>7.2f}{largest:>13.2f}")


def auc(good: Sequence[float], bad: Sequence[float]) -> float:
    """How often a good one scores below a bad one; ties count half."""
    pairs = [(g < b) + 0.5 * (g == b) for g in good for b in bad]
    return statistics.mean(pairs) if pairs else math.nan


def decades(reach: float | None) -> float:
    return abs(math.log10(reach)) if reach and math.isfinite(reach) else math.inf


def training() -> None:
    rows = []
    for line in OUTCOMES.read_text().splitlines():
        outcome = json.loads(line)
        spec = parse(json.dumps(outcome["spec"]).encode(), f"outcome {outcome['id']}")
        profile = probe_target(spec, ProbeOptions(theory=True)).profile
        rows.append((profile.reach, profile.predicted_reach, outcome))
    known = [row for row in rows if row[1] is not None]
    print(f"\n{len(known)} of {len(rows)} networks with a prediction; AUC of |log10 reach|")
    print(f"{'':12}{'theory':>8}{'measured':>10}")
    for column in COLUMNS:
        trained = [row for row in known if row[2][column] >= TRAINED]
        failed = [row for row in known if row[2][column] < TRAINED]
        said, found = (
            auc([decades(row[i]) for row in trained], [decades(row[i]) for row in failed])
            for i in (1, 0)
        )
        print(f"{column:12}{said:>8.3f}{found:>10.3f}")
    apart = [
        abs(math.log10(found / said))
        for found, said, _ in known
        if found and said and math.isfinite(found)
    ]
    near = statistics.mean(one < 0.5 for one in apart)
    print(f"theory within half a decade of the measured reach: {near:.0%} of {len(apart)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--seeds", type=int, default=4)
    asked = parser.parse_args()
    grid(asked.width, asked.seeds)
    deviations(asked.seeds)
    training()


if __name__ == "__main__":
    main()
