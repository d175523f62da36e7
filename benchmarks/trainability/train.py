"""Train small networks on scikit-learn's digits: what became of each is one line of JSON.

    OMP_NUM_THREADS=1 python benchmarks/trainability/train.py specs.jsonl outcomes.jsonl
    python benchmarks/trainability/train.py --again 10 outcomes.jsonl    # compare with the file

``specs.jsonl`` comes from ``sample.py``. A line is added to the outcomes as soon as a network is
done, and a network whose id is there already is left out, so a run that was cut off goes on.

The recipe: 1,797 real 8×8 images, each feature standardised with its std + 1e-3; 300 steps of 64
images; SGD with momentum 0.9 at five learning rates and Adam at three. The outcome of a setting is
its mean training accuracy over the last 30 steps, 0 where the loss ceased to be finite; ``best`` is
the best of the eight, ``best_sgd`` of the five. All eight are trained side by side, from the same
weights on the same images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradprobe.model.build import build
from gradprobe.model.seeds import derive
from gradprobe.spec.sources.yaml import parse

RECIPE = 1  # a change that changes outcomes makes it another recipe
STEPS, LAST, BATCH = 300, 30, 64
MOMENTUM, BETAS, EPS = 0.9, (0.9, 0.999), 1e-8
SGD = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
ADAM = (1e-4, 1e-3, 1e-2)
SETTINGS = tuple([f"sgd_{lr:.0e}" for lr in SGD] + [f"adam_{lr:.0e}" for lr in ADAM])


def digits() -> tuple[Tensor, Tensor]:
    """Images of shape (1797, 64) and labels of shape (1797,)."""
    x, y = load_digits(return_X_y=True)
    x = (x - x.mean(0)) / (x.std(0) + 1e-3)
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64))


class Side:
    """Copies of one network side by side, one row of weights for each setting still alive."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.shapes = {name: p.shape for name, p in network.named_parameters()}
        flat = torch.cat([p.detach().flatten() for p in network.parameters()])
        self.weights = flat.repeat(len(SETTINGS), 1)
        self.first = torch.zeros_like(self.weights)  # momentum, and Adam's first moment
        self.second = torch.zeros_like(self.weights)
        self.alive = torch.arange(len(SETTINGS))

    def step(self, x: Tensor, y: Tensor, number: int) -> Tensor:
        """One step of every setting; the accuracy on ``x`` before it, one for each setting."""
        leaves = {
            name: part.detach().view(-1, *shape).requires_grad_()
            for (name, shape), part in zip(self.shapes.items(), self._parts(), strict=True)
        }
        logits = self._run(leaves, x)
        copies, classes = logits.shape[0], logits.shape[-1]
        labels = y.expand(copies, -1)
        each = F.cross_entropy(logits.reshape(-1, classes), labels.reshape(-1), reduction="none")
        losses = each.view(copies, -1).mean(1)
        gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
        gradient = torch.cat(
            [
                torch.zeros_like(leaf).flatten(1) if g is None else g.flatten(1)
                for g, leaf in zip(gradients, leaves.values(), strict=True)
            ],
            1,
        )
        accuracy = torch.zeros(len(SETTINGS))
        finite = torch.isfinite(losses.detach())
        hits = (logits.detach().argmax(-1) == labels).float().mean(1)
        accuracy[self.alive[finite]] = hits[finite]
        self._update(gradient, number)
        if not bool(finite.all()):
            self._keep(finite)
        return accuracy

    def _parts(self) -> Iterator[Tensor]:
        sizes = [shape.numel() for shape in self.shapes.values()]
        return iter(self.weights.split(sizes, 1))

    def _run(self, leaves: dict[str, Tensor], x: Tensor) -> Tensor:
        def one(parameters: dict[str, Tensor]) -> Tensor:
            out: Tensor = functional_call(self.network, parameters, (x,))
            return out

        if any(isinstance(module, nn.RNNBase) for module in self.network.modules()):
            # torch has no batching rule for recurrent layers
            rows = [{k: v[i] for k, v in leaves.items()} for i in range(len(self.alive))]
            return torch.stack([one(row) for row in rows])
        with sdpa_kernel(SDPBackend.MATH):  # the only attention with a batching rule
            return vmap(one)(leaves)

    def _update(self, gradient: Tensor, number: int) -> None:
        sgd = int((self.alive < len(SGD)).sum())
        rates = torch.tensor((*SGD, *ADAM))[self.alive][:, None]
        g, m, v = gradient[:sgd], self.first[:sgd], self.second[:sgd]
        m.mul_(MOMENTUM).add_(g)
        self.weights[:sgd].sub_(rates[:sgd] * m)
        g, m, v = gradient[sgd:], self.first[sgd:], self.second[sgd:]
        m.mul_(BETAS[0]).add_(g, alpha=1 - BETAS[0])
        v.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
        divisor = (v / (1 - BETAS[1] ** number)).sqrt_().add_(EPS)
        self.weights[sgd:].sub_(rates[sgd:] / (1 - BETAS[0] ** number) * m / divisor)

    def _keep(self, finite: Tensor) -> None:
        self.alive, self.weights = self.alive[finite], self.weights[finite]
        self.first, self.second = self.first[finite], self.second[finite]


def train(spec: dict[str, Any], seed: int, data: tuple[Tensor, Tensor]) -> dict[str, float]:
    """The outcome of every setting, by its name."""
    x, y = data
    network = build(parse(json.dumps(spec).encode(), "spec"), seed=seed, batch_size=BATCH)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # The batch's own statistics are all that training uses.
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    side = Side(network)
    generator = torch.Generator().manual_seed(derive(seed, "batches"))
    late = []
    for number in range(1, STEPS + 1):
        chosen = torch.randint(len(x), (BATCH,), generator=generator)
        accuracy = side.step(x[chosen], y[chosen], number)
        if number > STEPS - LAST:
            late.append(accuracy)
        if not len(side.alive):
            break
    means = torch.stack(late).mean(0) if len(late) == LAST else torch.zeros(len(SETTINGS))
    return {name: round(float(m), 4) for name, m in zip(SETTINGS, means, strict=True)}


def outcome(line: dict[str, Any], seed: int, data: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """The line of one network, with what it takes to make it again."""
    settings = train(line["spec"], seed, data)
    packages = ("torch", "numpy", "scikit-learn")
    return {
        "id": line["id"],
        "config": line["config"],
        "best": max(settings.values()),
        "best_sgd": max(settings[name] for name in SETTINGS[: len(SGD)]),
        "adam_1e-3": settings["adam_1e-03"],
        "settings": settings,
        "recipe": RECIPE,
        "seed": seed,
        "versions": {package: version(package) for package in packages},
        "spec": line["spec"],
    }


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def again(path: Path, count: int, data: tuple[Tensor, Tensor]) -> None:
    """Train every n-th network of an outcomes file again, and print both outcomes."""
    lines = read(path)
    print(f"{'id':>5} {'best':>7} {'again':>7} {'best SGD':>9} {'again':>7}")
    for line in lines[:: max(1, len(lines) // count)][:count]:
        new = outcome(line, line.get("seed", 0), data)
        print(
            f"{line['id']:>5} {line['best']:>7.3f} {new['best']:>7.3f} "
            f"{line['best_sgd']:>9.3f} {new['best_sgd']:>7.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("outcomes", type=Path, nargs="?")
    parser.add_argument("--again", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = digits()
    if arguments.again:
        again(arguments.source, arguments.again, data)
        return
    done = {line["id"] for line in read(arguments.outcomes)}
    for line in read(arguments.source):
        if line["id"] not in done:
            text = json.dumps(outcome(line, arguments.seed, data))
            with arguments.outcomes.open("a") as stream:
                stream.write(text + "\n")
            print(text[:160], flush=True)


if __name__ == "__main__":
    main()
