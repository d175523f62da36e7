"""A head without an object and an expert with a gate of zero are idle; a dead block is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gradprobe
from gradprobe.measure.profile import RowStatus

WIDTH = 12


def linears(count: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(count))


class Pyramid(nn.Module):
    """Heads on a stem, each behind one more level; the loss takes the first ones alone."""

    def __init__(self, seen: int, heads: Callable[[int], nn.Module] = linears) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.levels, self.heads = nn.Linear(WIDTH, WIDTH), linears(4), heads(4)
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        x, losses = self.stem(x), []
        for index, (level, head) in enumerate(zip(self.levels, self.heads.children(), strict=True)):
            x = level(torch.tanh(x))
            losses.append(head(x).square().mean() * (index < self.seen))
        return sum(losses, torch.zeros(()))


class Mixture(nn.Module):
    """All experts run, and the gates of the last one, or of the last block, are zero."""

    def __init__(self, chain: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.experts, self.head = (
            nn.Linear(WIDTH, WIDTH),
            linears(3),
            nn.Linear(WIDTH, 3),
        )
        self.chain = chain

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        total = x
        for gate, expert in zip((0.5, 0.7, 0.0), self.experts, strict=True):
            total = total + gate * expert(total if self.chain else x)
        out: Tensor = self.head(total)
        return out


class Chain(nn.Module):
    """Blocks that run one after the other, of which the third is dead."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks, self.head = linears(5), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = torch.relu(block(x) - 100 * (index == 2))
        out: Tensor = self.head(x)
        return out


def idle(report: gradprobe.Report) -> list[str]:
    return [row.name for row in report.rows if row.status is RowStatus.IDLE]


def batch() -> Tensor:
    return torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(1))


def named(count: int) -> nn.ModuleDict:
    return nn.ModuleDict({f"p{n}": nn.Linear(WIDTH, WIDTH) for n in range(count)})


@pytest.mark.parametrize("heads", [linears, named])
@pytest.mark.parametrize("deep", [False, True])
def test_a_head_without_an_object_is_idle(heads: Callable[[int], nn.Module], deep: bool) -> None:
    model = Pyramid(seen=2, heads=heads)
    report = gradprobe.probe(model, batch(), loss=lambda out: out, deep=deep)
    last = [f"heads.{name}" for name, _ in list(model.heads.named_children())[2:]]
    assert set(idle(report)) == {"levels.2", "levels.3", *last}
    assert report.profile.trunk[0].name == "stem"
    assert {f.rule for f in report.findings if f.row} == {"GP204"}
    assert not report.fails(gradprobe.Severity.ERROR)


def test_without_any_object_the_network_is_dead() -> None:
    report = gradprobe.probe(Pyramid(seen=0), batch(), loss=lambda out: out)
    assert not idle(report)
    assert report.verdict == "dead"


def test_an_expert_with_a_gate_of_zero_is_idle() -> None:
    report = gradprobe.probe(Mixture(chain=False), batch())
    assert idle(report) == ["experts.2"]
    assert report.verdict == "healthy"


@pytest.mark.parametrize("model", [Mixture(chain=True), Chain()])
def test_a_dead_block_of_a_chain_is_not_idle(model: nn.Module) -> None:
    report = gradprobe.probe(model, batch())
    assert not idle(report)
    assert report.fails(gradprobe.Severity.ERROR)
