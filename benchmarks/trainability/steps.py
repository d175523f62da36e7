"""How well a coherence tells what trains, by the length of its step.

    OMP_NUM_THREADS=1 python benchmarks/trainability/steps.py

Tenfold cross-validated AUC on the networks of the fit, with the other signals as they are but for
shattering, which is made of it.
"""

from __future__ import annotations

import numpy as np
import torch
from fit import SIGNS, TARGETS, TRAINED
from logistic import auc, cross_validated, log_loss
from profiles import FIT, GIVEN, load, network_spec

from gradprobe.check import prepare
from gradprobe.coherence import second_look
from gradprobe.config import ProbeOptions
from gradprobe.report import Signals

LENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # of a weight's RMS singular value


def main() -> None:
    torch.set_num_threads(1)
    lines = [line for line in load(GIVEN) + load(FIT) if line[1]["signals"]]
    columns = np.zeros((len(lines), len(LENGTHS)))
    for row, (outcome, _) in enumerate(lines):
        one = prepare(network_spec(outcome), ProbeOptions())
        for column, step in enumerate(LENGTHS):
            found = second_look(one.network, [one.x], {}, one.loss, step=step).coherence
            columns[row, column] = max(0.0, found or 0.0)
    x = np.array([Signals(**profile["signals"]) for _, profile in lines])
    coherence, shattering = map(Signals._fields.index, ("coherence", "shattering"))
    bare = x[:, shattering] / np.maximum(1 - x[:, coherence], 1e-9)
    print(f"{'step':8}" + "".join(f"{name + ': AUC':>20}{'log loss':>10}" for name in TARGETS))
    for column, step in enumerate(LENGTHS):
        x[:, coherence] = columns[:, column]
        x[:, shattering] = bare * (1 - columns[:, column])
        print(f"{step:<8g}", end="")
        for key in TARGETS.values():
            y = np.array([outcome[key] >= TRAINED for outcome, _ in lines], dtype=float)
            p = cross_validated(x, y, SIGNS)
            print(f"{auc(p, y):20.3f}{log_loss(p, y):10.3f}", end="")
        print()


if __name__ == "__main__":
    main()
