"""What was tried and left out: other signals, and the other link.

    OMP_NUM_THREADS=1 python benchmarks/trainability/candidates.py

Tenfold cross-validated on the networks of the fit: AUC and log loss with each candidate beside the
signals that there are, and the reliability of what the other link says of the same signals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from fit import SIGNS, compare, seen
from profiles import FIT, GIVEN, load, network_spec
from regression import LOGISTIC, LOGLOG, auc, cross_validated, reliability
from torch import Tensor, nn

from gradprobe.measure.one_pass import measure
from gradprobe.measure.profile import GradientProfile
from gradprobe.model.make import make
from gradprobe.model.subject import Subject
from gradprobe.spec.options import ProbeOptions
from gradprobe.verdict.signals import Signals

SEEDS = 3
FLAT = 0.1  # of the slope at 0
SLOPES: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Tanh: lambda x: 1 - torch.tanh(x).square(),
    nn.Sigmoid: lambda x: 4 * torch.sigmoid(x) * torch.sigmoid(-x),
    nn.Hardtanh: lambda x: (x.abs() < 1).to(x),
}
OTHERS = {"SGD": LOGLOG, "best of eight": LOGISTIC}  # the links that are not those of the fit
NAMES = (
    "zeros",
    "saturated",
    "spread over seeds",
    "depth without a skip",
    "weight gradients apart",
)


def saturated(one: Subject) -> float:
    """The largest share of an activation's inputs where its slope is below ``FLAT``."""
    shares = [0.0]

    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        flat = SLOPES[type(module)](inputs[0].detach()) < FLAT
        shares.append(float(flat.double().mean()))

    for module in one.model.modules():
        if type(module) in SLOPES:
            module.register_forward_hook(hook)
    with torch.no_grad():
        one.model(one.args[0])
    return max(shares)


def decades(reach: float | None) -> float:
    return math.log10(reach) if reach and math.isfinite(reach) else 0.0


def apart(profile: GradientProfile) -> float:
    """Decades from the median of the trunk's weights' gradients ÷ weights to the smallest."""
    weights = [p for row in profile.trunk for p in row.parameters if p.dimensions > 1]
    relative = [decades(p.gradient_norm / p.norm) for p in weights if p.gradient_norm and p.norm]
    return min(4.0, median(relative) - min(relative)) if relative else 0.0


def candidates(outcome: dict[str, Any], signals: dict[str, float]) -> tuple[float, ...]:
    spec = network_spec(outcome)
    found = []
    for seed in range(SEEDS):
        found.append(measure(make(spec, ProbeOptions(seed=seed))))
    return (
        max(row.zero_fraction or 0.0 for row in found[0].trunk),
        saturated(make(spec, ProbeOptions())),
        float(np.std([decades(profile.reach) for profile in found])),
        math.log10(min(found[0].steps, 100)) * Signals(**signals).bare,
        apart(found[0]),
    )


def main() -> None:
    torch.set_num_threads(1)
    lines = [line for line in load(GIVEN) + load(FIT) if line[1]["signals"]]
    x, targets = seen(lines)
    tried = np.array([candidates(outcome, profile["signals"]) for outcome, profile in lines])
    models = {"-": (x, SIGNS)}
    for name, column in zip(NAMES, tried.T, strict=True):
        models[name] = np.column_stack([x, column]), np.append(SIGNS, -1.0)
    compare("with", models, targets)
    for name, y in targets.items():
        p = cross_validated(x, y, SIGNS, OTHERS[name])
        reliability(f"{name}, with the other link: AUC {auc(p, y):.4f}", p, y)


if __name__ == "__main__":
    main()
