"""How often networks trained, by the reach that gradprobe gives them before training.

    python benchmarks/bands.py

Reads ``benchmarks/trainability/outcomes.jsonl``: 240 small networks with the training accuracy that
each reached on scikit-learn's digits under the best of eight optimizer settings, the best SGD, and
Adam at 1e-3. The rules' docstrings quote its output.
"""

from __future__ import annotations

import json
from pathlib import Path

from gradprobe.check import probe_spec
from gradprobe.sources.yaml import parse

OUTCOMES = Path(__file__).parent / "trainability" / "outcomes.jsonl"
BANDS = [(0.0, 1e-4), (1e-4, 1e-2), (1e-2, 1e2), (1e2, 1e4), (1e4, float("inf"))]
COLUMNS = ("best", "best_sgd", "adam_1e-3")
TRAINED = 0.9


def main() -> None:
    outcomes = [json.loads(line) for line in OUTCOMES.read_text().splitlines()]
    reached = []
    for outcome in outcomes:
        # JSON is YAML: the spec goes through the parser that every spec goes through.
        spec = parse(json.dumps(outcome["spec"]).encode(), f"outcome {outcome['id']}")
        reach = probe_spec(spec).reach
        reached.append((float("inf") if reach is None else reach, outcome))
    print(f"{'reach':20}{'networks':>9}" + "".join(f"{c:>12}" for c in COLUMNS))
    for low, high in BANDS:
        inside = [outcome for reach, outcome in reached if low <= reach < high]
        shares = [sum(o[c] >= TRAINED for o in inside) / max(1, len(inside)) for c in COLUMNS]
        name = f"{low:g} to {high:g}"
        print(f"{name:20}{len(inside):>9}" + "".join(f"{100 * s:>10.0f} %" for s in shares))


if __name__ == "__main__":
    main()
