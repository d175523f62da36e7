"""Train the networks of ``families.py`` on scikit-learn's digits: a line of JSON for each.

    OMP_NUM_THREADS=1 nice -n 10 python benchmarks/trainability/train_families.py

Lines go to ``outcomes_families.jsonl``, in an order drawn at random, so that a run that was cut off
has trained a fair sample; what is there is not trained again. The images are those of ``train.py``,
8 × 8, four times as large and three times over: 3 × 32 × 32. So is the recipe: 300 steps of 64
images, and the mean training accuracy of the last 30 steps; but what is decided is not run to its
end. A rate ends where 30 steps had a mean of 95 %, and where it is hopeless: below 20 % after 100
steps, below 40 % after 200. The rates of SGD are tried from the middle on, then those of Adam,
until one comes to 90 %; the outermost are left out where none of the others came to 50 %.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from families import SIDE, Network, make, networks
from torch import Tensor, nn
from train import ADAM, BATCH, BETAS, EPS, LAST, MOMENTUM, SGD, STEPS, digits, read

from gradprobe.model.seeds import derive

OUTCOMES = Path(__file__).parent / "outcomes_families.jsonl"
RECIPE = 1
TRAINED, SURE = 0.9, 0.95
HOPELESS = {100: 0.2, 200: 0.4}  # below such an accuracy after so many steps
INNER = (("SGD", 1e-1), ("SGD", 1e-2), ("SGD", 1e-3), ("Adam", 1e-3), ("Adam", 1e-2))
OUTER = tuple(
    rate
    for rate in [*(("SGD", lr) for lr in SGD), *(("Adam", lr) for lr in ADAM)]
    if rate not in INNER
)
NEARLY = 0.5


def images() -> tuple[Tensor, Tensor]:
    """Images of shape (1797, 3, 32, 32) and labels."""
    x, y = digits()
    square = x.view(-1, 1, 8, 8)
    return F.interpolate(square, size=(SIDE, SIDE)).expand(-1, 3, -1, -1).contiguous(), y


def accuracy(network: Network, optimizer: str, rate: float, data: tuple[Tensor, Tensor]) -> float:
    """The mean training accuracy of the last 30 steps; 0 where the loss is not finite."""
    model = make(network).train()
    x, y = data
    steps = torch.Generator().manual_seed(derive(0, "batches"))
    taken = optimizer_of(model, optimizer, rate)
    hits: list[float] = []
    for number in range(1, STEPS + 1):
        chosen = torch.randint(len(x), (BATCH,), generator=steps)
        logits = model(x[chosen])
        loss = F.cross_entropy(logits, y[chosen])
        if not torch.isfinite(loss):
            return 0.0
        hits.append(float((logits.argmax(1) == y[chosen]).float().mean()))
        taken.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        taken.step()
        late = sum(hits[-LAST:]) / LAST
        if late >= SURE or late < HOPELESS.get(number, 0.0):
            break
    return late


def optimizer_of(model: nn.Module, name: str, rate: float) -> torch.optim.Optimizer:
    if name == "SGD":
        return torch.optim.SGD(model.parameters(), rate, momentum=MOMENTUM)
    return torch.optim.Adam(model.parameters(), rate, BETAS, EPS)


def rates(settings: dict[str, float]) -> Iterator[tuple[str, float]]:
    """What is still to be tried, given what the rates before came to."""
    for group in (INNER, OUTER):
        for optimizer, rate in group:
            best = max(settings.values(), default=0.0)
            if best >= TRAINED or (group is OUTER and best < NEARLY):
                return
            yield optimizer, rate


def outcome(network: Network, data: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """The line of one network."""
    start, settings = time.process_time(), dict[str, float]()
    for optimizer, rate in rates(settings):
        name = f"{optimizer.lower()}_{rate:.0e}"
        settings[name] = round(accuracy(network, optimizer, rate, data), 4)
    return {
        "id": network.name,
        "family": network.family,
        "best": max(settings.values()),
        "best_sgd": max(v for name, v in settings.items() if name.startswith("sgd")),
        "settings": settings,
        "seconds": round(time.process_time() - start, 1),
        "recipe": RECIPE,
        "versions": {"torch": version("torch")},
    }


def main() -> None:
    torch.set_num_threads(1)
    data, every = images(), list(networks())
    done = {line["id"] for line in read(OUTCOMES)}
    todo = [n for n in Random(0).sample(every, len(every)) if n.name not in done]
    for network in todo:
        line = outcome(network, data)
        with OUTCOMES.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        print(f"{line['id']:44}{line['best_sgd']:7.2f}{line['best']:7.2f}", flush=True)
    print(f"{len(todo)} trained, {len(every)} in all")


if __name__ == "__main__":
    main()
