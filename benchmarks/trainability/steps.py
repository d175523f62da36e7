"""How well a coherence tells what trains, by the length of its step.

    OMP_NUM_THREADS=1 python benchmarks/trainability/steps.py

Tenfold cross-validated AUC on the networks of the fit, with the other signals as they are but for
shattering, which is made of it.
"""

from __future__ import annotations

import numpy as np
import torch
from fit import SIGNS, compare, seen
from profiles import FIT, GIVEN, load, network_spec

from gradprobe.measure.second_look import second_look
from gradprobe.model.make import make
from gradprobe.spec.options import ProbeOptions
from gradprobe.verdict.signals import Signals

LENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # of a weight's RMS singular value


def main() -> None:
    torch.set_num_threads(1)
    lines = [line for line in load(GIVEN) + load(FIT) if line[1]["signals"]]
    columns = np.zeros((len(lines), len(LENGTHS)))
    for row, (outcome, _) in enumerate(lines):
        subject = make(network_spec(outcome), ProbeOptions())
        for column, step in enumerate(LENGTHS):
            found = second_look(subject, step).coherence
            columns[row, column] = max(0.0, found or 0.0)
    x, targets = seen(lines)
    coherence, shattering = map(Signals._fields.index, ("coherence", "shattering"))
    bare = np.array([Signals(*row).bare for row in x])
    models = {}
    for step, column in zip(LENGTHS, columns.T, strict=True):
        of_step = x.copy()
        of_step[:, coherence], of_step[:, shattering] = column, bare * (1 - column)
        models[f"{step:g}"] = of_step, SIGNS
    compare("step", models, targets)


if __name__ == "__main__":
    main()
