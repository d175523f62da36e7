"""One step of SGD changes the output by as much at every width under µP, and not otherwise.

Claim: with torch's parametrisation and one learning rate for all, a step changes the output in
proportion to the width n; with µP, an output layer of 1/n and rates of n, 1 and 1/n for the input,
the hidden and the output layer, by as much at every width (Yang et al. 2021, arXiv 2203.03466,
table 3). Measured: the loss that gradprobe reports for the squared change of the output; its root's
slope in n on a log scale, over widths 128 to 2,048. Stated error: 0.15 of slopes 1 and 0.
"""

from __future__ import annotations

import copy
import math
import statistics

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradprobe

STATED_ERROR = 0.15
WIDTHS, RATE, SEEDS = (128, 256, 512, 1024, 2048), 1e-2, 4
CLAIMS = {"standard": 1.0, "µP": 0.0}


def network(width: int, mup: bool) -> nn.Sequential:
    layers = [nn.Linear(*sizes, bias=False) for sizes in ((16, width), (width, width), (width, 4))]
    for layer in layers:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    if mup:
        nn.init.normal_(layers[-1].weight, std=1 / width)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def change(width: int, mup: bool, seed: int) -> float:
    """The RMS by which the output changes in one step."""
    torch.manual_seed(seed)
    x, y = torch.randn(32, 16), torch.arange(32) % 4
    model = network(width, mup)
    before = copy.deepcopy(model)(x).detach()
    rates = [RATE * width / 128, RATE, RATE * 128 / width] if mup else [RATE] * 3
    groups = [{"params": [p], "lr": r} for p, r in zip(model.parameters(), rates, strict=True)]
    F.cross_entropy(model(x), y).backward()
    torch.optim.SGD(groups).step()

    def squared(output: Tensor) -> Tensor:
        return (output - before).square().mean()

    return math.sqrt(gradprobe.probe(model, x, loss=squared).profile.loss)


def main() -> None:
    print(f"{'':10}" + "".join(f"{width:>9}" for width in WIDTHS) + f"{'claim':>8}{'slope':>7}")
    for label, claim in CLAIMS.items():
        sizes = [
            statistics.mean(change(width, label == "µP", seed) for seed in range(SEEDS))
            for width in WIDTHS
        ]
        line = statistics.linear_regression(
            [math.log(width) for width in WIDTHS], [math.log(size) for size in sizes]
        )
        cells = "".join(f"{size:>9.4f}" for size in sizes)
        print(f"{label:10}{cells}{claim:>8.2f}{line.slope:>7.2f}")
        assert abs(line.slope - claim) <= STATED_ERROR


if __name__ == "__main__":
    main()
