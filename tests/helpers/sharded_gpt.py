"""A small GPT whole and shared by processes; run under torchrun, it holds their reports together.

Each way to share it is probed, and watched while it trains. ``fine`` is printed by each process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import gradprobe
from gradprobe.verdict.report import Report

WIDTH, WORDS, LENGTH, HEADS = 16, 50, 8, 4
NUMBERS = (
    *("gradient_norm", "weight_norm", "weight_gradient_norm"),
    *("activation_rms", "input_dependence", "zero_fraction", "weighted_rms"),
)
Loss = Callable[[Tensor], Tensor]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        heads = [f(y).unflatten(-1, (-1, WIDTH // HEADS)) for f in (self.q, self.k, self.v)]
        q, k, v = (head.transpose(1, 2) for head in heads)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.h = nn.ModuleList(Block() for _ in range(3))
        self.ln_f, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x))


def whole() -> nn.Module:
    torch.manual_seed(0)
    return GPT()


def ddp() -> nn.Module:
    return nn.parallel.DistributedDataParallel(whole())


def fsdp(model: Any = None, mesh: Any = None) -> nn.Module:
    model = model or whole()
    for block in model.h:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def tensor_parallel(mesh: Any = None) -> nn.Module:
    model: Any = whole()
    columns = dict.fromkeys(("q", "k", "v", "up"), ColwiseParallel())
    plan = {**columns, **dict.fromkeys(("proj", "down"), RowwiseParallel())}
    for block in model.h:
        parallelize_module(block, mesh or init_device_mesh("cpu", (dist.get_world_size(),)), plan)
    return model


def both() -> nn.Module:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    return fsdp(tensor_parallel(mesh["tensor"]), mesh["data"])


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids, labels = torch.randint(WORDS, (2, 8, LENGTH), generator=generator)
    return ids, labels


def part_of(parts: int) -> tuple[Tensor, Tensor]:
    """This process's part of the batch, of so many."""
    index = dist.get_rank() * parts // dist.get_world_size()
    ids, labels = (x.chunk(parts)[index] for x in batch())
    return ids, labels


def loss_of(labels: Tensor) -> Loss:
    return lambda logits: nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def probed(model: nn.Module, parts: int, level: str = "blocks") -> Report:
    ids, labels = part_of(parts)
    return gradprobe.probe(model, ids, loss=loss_of(labels), level=level)


def trained(model: nn.Module, parts: int, watched: bool) -> tuple[Sequence[Report], list[Tensor]]:
    """The reports of a training's steps, and the weights after it."""
    ids, labels = part_of(parts)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = gradprobe.watch(model, every=2, deep=True) if watched else None
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(labels)(model(ids)).backward()
        optimizer.step()
    if watch:
        watch.close()
    weights: Any = list(model.parameters())
    full = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in weights]
    return watch.reports if watch else (), [p.detach().clone() for p in full]


def near(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and abs(a - b) <= 1e-6 * abs(b) + 1e-15)


def hold(report: Report, expected: Report, what: str, apart: Sequence[str] = ()) -> None:
    """The same rows, each number to 1e-6, and the same report on each process."""
    assert [row.name for row in report.rows] == [row.name for row in expected.rows], what
    assert near(report.profile.loss, expected.profile.loss), what
    assert report.target == expected.target or "watched" in what
    kinds = [[(row.kind, row.contains) for row in each.rows] for each in (report, expected)]
    assert kinds[0] == kinds[1], what
    found = [{(f.rule, f.row) for f in each.findings} for each in (report, expected)]
    assert found[0] - {("GP405", None)} == found[1], what  # no second look at sharded weights
    for row, other in zip(report.rows, expected.rows, strict=True):
        for name in (name for name in NUMBERS if name not in apart):
            a, b = getattr(row, name), getattr(other, name)
            assert near(a, b), (what, row.name, name, a, b)
        for own, others in zip(row.parameters, other.parameters, strict=True):
            assert own.size == others.size
            for name in ("norm", "gradient_norm", "low", "high"):
                a, b = getattr(own, name), getattr(others, name)
                assert near(a, b), (what, own.name, name, a, b)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, (report.profile, report.findings, report.training))
    assert all(other == everyone[0] for other in everyone), what


def main() -> None:
    torch.set_default_dtype(torch.float64)
    dist.init_process_group("gloo")
    ranks = dist.get_world_size()
    ways: dict[str, tuple[Callable[[], nn.Module], int]] = {
        "ddp": (ddp, ranks),
        "fsdp": (fsdp, ranks),
        "tensor parallel": (tensor_parallel, 1),
    }
    level = "leaves" if ranks == 2 else "blocks"
    expected = probed(whole(), 1, level)
    for name, (make, parts) in ways.items():
        model = make()
        hold(probed(model, parts, level), expected, name)
        if parts > 1:
            hold(probed(model, 1, level), expected, f"{name}, the same batch for all")
        assert all(p.grad is None for p in model.parameters())
    if ranks == 4:
        hold(probed(both(), 2), expected, "both", apart=["input_dependence"])
        return
    steps, _ = trained(whole(), 1, watched=True)
    for name, (make, parts) in ways.items():
        reports, weights = trained(make(), parts, watched=True)
        assert len(reports) == len(steps) == 2
        for report, step in zip(reports, steps, strict=True):
            hold(report, step, f"{name}, watched")
        _, alone = trained(make(), parts, watched=False)
        assert all(a.equal(b) for a, b in zip(weights, alone, strict=True)), name


if __name__ == "__main__":
    main()
    print("fine", flush=True)
    dist.destroy_process_group()
