"""Other predictors at initialisation, on the same networks: what each ranks as well as a probe.

    OMP_NUM_THREADS=1 python benchmarks/trainability/predictors.py

Each gives one number for a network, by one batch of 64 digits and their cross entropy. A line of
``predictors.jsonl`` keeps them; what is there is not measured again. The AUC is two-sided: a
network is the better, the nearer the logarithm of its number is to the median of those that
trained among the 240 of ``outcomes.jsonl``; it is then said for the 1,152 of the report.

Sources: gradient norm and SNIP (Lee et al. 2019, arXiv 1810.02340), GraSP (Wang et al. 2020, arXiv
2002.07376), SynFlow (Tanaka et al. 2020, arXiv 2006.05467), the gradient quotient of MetaInit
(Dauphin & Schoenholz 2019), the Jacobian's norm, NASWOT (Mellor et al. 2021, arXiv 2006.04647),
ZiCo (Li et al. 2023, arXiv 2301.11300).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fit import TARGETS
from profiles import GIVEN, PEER_BATCH, REPORT, network_spec, short
from regression import auc
from report import trained
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from train import digits, read

from gradprobe.model.build import build

PREDICTORS = Path(__file__).parent / "predictors.jsonl"
EPS = 1e-5  # of MetaInit's quotient


class Batch:
    """One network with its batch: its weights, and the gradient of a loss with respect to them."""

    def __init__(self, network: nn.Module, x: Tensor, y: Tensor) -> None:
        self.network, self.x, self.y = network, x, y
        self.weights = [p for p in network.parameters() if p.dim() > 1]

    def loss(self, part: slice = slice(None)) -> Tensor:
        return F.cross_entropy(self.network(self.x[part]), self.y[part])

    def gradient(self, loss: Tensor, graph: bool = False) -> list[Tensor]:
        found = torch.autograd.grad(loss, self.weights, create_graph=graph, allow_unused=True)
        return [
            torch.zeros_like(w) if g is None else g
            for w, g in zip(self.weights, found, strict=True)
        ]


def gradient_norm(batch: Batch) -> float:
    return math.hypot(*(float(g.double().norm()) for g in batch.gradient(batch.loss())))


def snip(batch: Batch) -> float:
    pairs = zip(batch.gradient(batch.loss()), batch.weights, strict=True)
    return sum(float((g * w).detach().abs().double().sum()) for g, w in pairs)


def _hessian_gradient(batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    """The gradient g, and the Hessian times g."""
    gradient = batch.gradient(batch.loss(), graph=True)
    product = batch.gradient(sum((g * g.detach()).sum() for g in gradient))  # type: ignore[arg-type]
    return [g.detach() for g in gradient], product


def grasp(batch: Batch) -> float:
    """The magnitude alone: the median of a sign says nothing two-sided."""
    pairs = zip(_hessian_gradient(batch)[1], batch.weights, strict=True)
    return abs(sum(float((h * w).detach().double().sum()) for h, w in pairs))


def quotient(batch: Batch) -> float:
    """MetaInit's: how much a step along the gradient changes it, of itself."""
    total = 0.0
    for g, h in zip(*_hessian_gradient(batch), strict=True):
        safe = g + EPS * torch.where(g < 0, -1.0, 1.0)
        total += float(((g - h) / safe - 1).abs().double().sum())
    return total / sum(w.numel() for w in batch.weights)


def synflow(batch: Batch) -> float:
    """In float64: a sum over every path, of weights without a sign, on an input of ones."""
    network = batch.network.double().eval()
    signs = {p: p.detach().sign() for p in network.parameters()}
    with torch.no_grad():
        for p in signs:
            p.abs_()
    total = network(torch.ones_like(batch.x[:1], dtype=torch.float64)).sum()
    pairs = zip(batch.gradient(total), batch.weights, strict=True)
    score = sum(float((g * w).detach().abs().sum()) for g, w in pairs)
    with torch.no_grad():
        for p, sign in signs.items():
            p.mul_(sign)
    network.float().train()
    return score


def jacobian_norm(batch: Batch) -> float:
    """Frobenius, of the outputs with respect to the inputs, by one random direction a sample."""
    x = batch.x.clone().requires_grad_()
    out = batch.network(x)
    draw = torch.Generator().manual_seed(0)
    (rows,) = torch.autograd.grad(out, x, torch.randn(out.shape, generator=draw))
    return float(rows.double().norm()) / math.sqrt(len(x))


def naswot(batch: Batch) -> float:
    """The log determinant of how many units two samples have in one state."""
    kernel = torch.zeros(len(batch.x), len(batch.x), dtype=torch.float64)

    def add(module: nn.Module, inputs: Any, out: Tensor) -> None:
        active = (out.detach().flatten(1) > 0).double()
        kernel.add_(active @ active.T + (1 - active) @ (1 - active).T)

    kinds = (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.SELU)
    hooks = [m.register_forward_hook(add) for m in batch.network.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        batch.network(batch.x)
    for hook in hooks:
        hook.remove()
    return max(float(torch.linalg.slogdet(kernel)[1]), 1e-9)


def zico(batch: Batch) -> float:
    """By layer, the logarithm of the sum of mean |g| ÷ its deviation over parts of the batch."""
    size = len(batch.x) // 4
    parts = [batch.gradient(batch.loss(slice(k, k + size))) for k in range(0, 4 * size, size)]
    total = 0.0
    for several in zip(*parts, strict=True):
        g = torch.stack([one.abs().double() for one in several])
        ratio = g.mean(0) / g.std(0)
        total += math.log(max(float(ratio[ratio.isfinite()].sum()), 1e-9))
    return max(total, 1e-9)


SCORES: dict[str, Callable[[Batch], float]] = {
    "gradient norm": gradient_norm,
    "SNIP": snip,
    "GraSP": grasp,
    "SynFlow": synflow,
    "gradient quotient": quotient,
    "Jacobian norm": jacobian_norm,
    "NASWOT": naswot,
    "ZiCo": zico,
}


def scores(line: dict[str, Any], data: tuple[Tensor, Tensor]) -> dict[str, Any]:
    x, y = data[0][:PEER_BATCH], data[1][:PEER_BATCH]
    batch = Batch(build(network_spec(line), seed=0, batch_size=PEER_BATCH), x, y)
    with sdpa_kernel(SDPBackend.MATH):  # the fused one has no second derivative
        return {"id": line["id"]} | {name: short(score(batch)) for name, score in SCORES.items()}


def two_sided(path: Path) -> None:
    """The AUC of each, on the networks of the report that have been measured."""
    known = {line["id"]: line for line in read(PREDICTORS)}
    given, report = ([o for o in read(p) if o["id"] in known] for p in (GIVEN, path))
    print(f"{len(report)} networks{'':15}" + "".join(f"{target:>15}" for target in TARGETS))
    for name in SCORES:
        row = [_auc(name, target, known, given, report) for target in TARGETS]
        print(f"{name:28}" + "".join(f"{value:15.3f}" for value in row))


def _auc(
    name: str,
    target: str,
    known: dict[int, dict[str, Any]],
    given: list[dict[str, Any]],
    report: list[dict[str, Any]],
) -> float:
    def place(outcome: dict[str, Any]) -> float:
        value = known[outcome["id"]][name]
        return math.log(value) if value and value > 0 else -math.inf

    usual = np.median([place(o) for o in given if trained(o, target)])
    far = [-abs(place(o) - usual) for o in report]
    y = np.array([trained(o, target) for o in report], dtype=float)
    return auc(np.maximum(np.array(far), -1e9), y)


def main() -> None:
    torch.set_num_threads(1)
    data, done = digits(), {line["id"] for line in read(PREDICTORS)}
    for line in (line for path in (GIVEN, REPORT) for line in read(path)):
        if line["id"] not in done:
            text = json.dumps(scores(line, data))
            with PREDICTORS.open("a") as stream:
                stream.write(text + "\n")
    two_sided(REPORT)


if __name__ == "__main__":
    main()
