"""Does what ``gradprobe fix`` finds really train? The labelled networks, mended and trained again.

    OMP_NUM_THREADS=1 python benchmarks/fix.py              # the plain networks that fail
    OMP_NUM_THREADS=1 python benchmarks/fix.py --every 4    # each fourth of them
    OMP_NUM_THREADS=1 python benchmarks/fix.py --untrained  # all networks, nothing trained

Reads ``trainability/outcomes.jsonl`` and trains by its recipe, ``trainability/train.py``: digits,
300 steps, the best of eight optimizer settings. A network failed if its own best is below
90 % training accuracy, and is mended if the changed spec comes to 90 %.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.yaml import parse
from gradprobe.tasks.fix.search import mend
from gradprobe.tasks.fix.trials import Fix

FOLDER = Path(__file__).parent / "trainability"
TRAINED = 0.9
SEEDS = (0, 1, 2)


def fixed(outcome: dict[str, Any]) -> Fix:
    """What ``gradprobe fix`` has to say about a labelled network. JSON is YAML."""
    text = json.dumps(outcome["spec"])
    return mend(parse(text.encode(), f"outcome {outcome['id']}"), text, ProbeOptions(), SEEDS)


def name(outcome: dict[str, Any]) -> str:
    config = outcome["config"]
    return f"{outcome['id']:>4} " + " ".join(str(value) for value in config.values())


def left_alone(outcomes: list[dict[str, Any]]) -> None:
    """How many of those that trained are left as they are."""
    trained = [o for o in outcomes if min(o["best"], o["best_sgd"]) >= TRAINED]
    changed = [(o, fix) for o in trained if not (fix := fixed(o)).before.sound]
    for outcome, fix in changed:
        print(f"{name(outcome)}: {fix.before.doubt}")
    print(f"left alone: {len(trained) - len(changed)} of {len(trained)} that trained")


def mended(failed: list[dict[str, Any]]) -> None:
    """Mend and train each network that failed; print what became of it."""
    sys.path.insert(0, str(FOLDER))
    import torch
    from train import digits, train

    torch.set_num_threads(1)
    data, found, good = digits(), 0, 0
    for outcome in failed:
        fix = fixed(outcome)
        if not fix.text:
            print(f"{name(outcome)}: {'no fix' if fix.before.doubt else 'left alone'}", flush=True)
            continue
        found += 1
        best = max(train(yaml.safe_load(fix.text), 0, data).values())
        good += best >= TRAINED
        assert fix.after is not None
        print(f"{name(outcome)}: {outcome['best']:.3f} → {best:.3f}  {fix.after.name}", flush=True)
    print(f"a fix found for {found} of {len(failed)}, of which {good} then train")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take each N-th")
    parser.add_argument("--untrained", action="store_true", help="only what is left alone")
    arguments = parser.parse_args()
    lines = (FOLDER / "outcomes.jsonl").read_text().splitlines()
    outcomes = [json.loads(line) for line in lines]
    if arguments.untrained:
        left_alone(outcomes)
        return
    plain = [o for o in outcomes if o["config"]["kind"] == "plain"]
    mended([o for o in plain if o["best"] < TRAINED][:: arguments.every])


if __name__ == "__main__":
    main()
