"""How often networks trained, by what gradprobe says of them before training.

    python benchmarks/bands.py

By reach: the 240 networks of ``benchmarks/trainability/outcomes.jsonl``, with the training accuracy
that each reached on scikit-learn's digits under the best of eight optimizer settings, the best SGD,
and Adam at 1e-3. Then, of these and those of ``outcomes_fit.jsonl``, the ones whose reach lies
between 1e-2 and 1e2, by their other signals, from ``profiles.jsonl``. The rules' docstrings quote
its output.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from gradprobe.spec.sources.yaml import parse
from gradprobe.tasks.probe import probe_target

HERE = Path(__file__).parent / "trainability"
BANDS = [(0.0, 1e-4), (1e-4, 1e-2), (1e-2, 1e2), (1e2, 1e4), (1e4, float("inf"))]
COLUMNS = ("best", "best_sgd", "adam_1e-3")
TRAINED = 0.9
SIGNALS = {
    "coherence": (0.0, 0.35, 0.5, 0.8, float("inf")),
    "lost_inputs": (0.0, 0.3, 1.0, float("inf")),
}


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / name).read_text().splitlines()]


def told(low: float, high: float, inside: list[dict[str, Any]]) -> None:
    counts = [sum(o[c] >= TRAINED for o in inside) for c in COLUMNS]
    shares = [f"{n:>6} {100 * n / max(1, len(inside)):3.0f} %" for n in counts]
    print(f"{f'{low:g} to {high:g}':20}{len(inside):>9}" + "".join(shares))


def main() -> None:
    outcomes = read("outcomes.jsonl")
    reached = []
    for outcome in outcomes:
        # JSON is YAML: the spec goes through the parser that every spec goes through.
        spec = parse(json.dumps(outcome["spec"]).encode(), f"outcome {outcome['id']}")
        reach = probe_target(spec).reach
        reached.append((float("inf") if reach is None else reach, outcome))
    heads = f"{'networks':>9}" + "".join(f"{c:>12}" for c in COLUMNS)
    print(f"{'reach':20}{heads}")
    for low, high in BANDS:
        told(low, high, [outcome for reach, outcome in reached if low <= reach < high])
    profiles = {one["id"]: one for one in read("profiles.jsonl") if one["seed"] == 0}
    every = [(profiles[o["id"]], o) for o in (*outcomes, *read("outcomes_fit.jsonl"))]
    mild = [(p["signals"], o) for p, o in every if p["signals"] and 1e-2 <= p["reach"] < 1e2]
    for name, edges in SIGNALS.items():
        print(f"\n{name:20}{heads}")
        for low, high in pairwise(edges):
            told(low, high, [o for signals, o in mild if low <= signals[name] < high])


if __name__ == "__main__":
    main()
