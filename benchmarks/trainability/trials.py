"""Try whether each network overfits one batch, as ``gradprobe probe --overfit`` does, and keep it.

    OMP_NUM_THREADS=1 nice -n 5 python benchmarks/trainability/trials.py fit
    OMP_NUM_THREADS=1 nice -n 5 python benchmarks/trainability/trials.py report

One line of ``trials.jsonl`` for each network that the fit reads, or the report, in an order drawn
at random, so that a run that was cut off has tried a fair sample. What is there is not tried again:
delete the file when the trial changes, and fit again when it has more for the fit.

A line is the network's id and, of every rate that was tried, its optimizer, the rate, the steps,
the last loss ÷ the first (``null``: not finite) and what became of it.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from random import Random
from typing import Any

import torch
from profiles import FIT, GIVEN, REPORT, network_spec, short
from train import read

from gradprobe.measure.measurement import Course, Outcome, Trial
from gradprobe.measure.overfit import overfit
from gradprobe.model.make import make
from gradprobe.spec.options import ProbeOptions

TRIALS = Path(__file__).parent / "trials.jsonl"
PARTS = {"fit": (GIVEN, FIT), "report": (REPORT,)}


def trial(line: dict[str, Any]) -> dict[str, Any]:
    """The line of ``trials.jsonl`` for one network."""
    tried = overfit(make(network_spec(line), ProbeOptions()))
    rates = [
        [c.optimizer, c.rate, len(c.losses) - 1, short(c.losses[-1] / c.losses[0]), str(c.outcome)]
        for c in tried.courses
    ]
    return {"id": line["id"], "rates": rates}


def read_trials() -> dict[int, Trial]:
    """By the network's id, what was tried; of a course only the steps and the end are kept."""
    return {line["id"]: Trial(courses=tuple(map(_course, line["rates"]))) for line in read(TRIALS)}


def _course(kept: list[Any]) -> Course:
    optimizer, rate, steps, share, outcome = kept
    last = math.nan if share is None else share
    return Course(optimizer, rate, (1.0,) * steps + (last,), Outcome(outcome))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    torch.set_num_threads(1)
    done = read_trials()
    lines = [line for path in PARTS[parser.parse_args().part] for line in read(path)]
    todo = [line for line in Random(0).sample(lines, len(lines)) if line["id"] not in done]
    with TRIALS.open("a") as stream:
        for line in todo:
            stream.write(json.dumps(trial(line), separators=(",", ":")) + "\n")
            stream.flush()
    print(f"{len(todo)} tried, {len(lines)} in all")


if __name__ == "__main__":
    main()
