"""A small GPT that torchrun's processes build and share; it holds itself what each has of it."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, WORDS = 72, 90  # so that a matrix is large enough to be built without its numbers


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.scale = nn.LayerNorm(WIDTH), nn.Parameter(torch.tensor(1.0))
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.scale * self.down(nn.functional.gelu(self.up(x)))


class GPT(nn.Module):
    """With an initialisation of its own, a scalar parameter and a tied head.

    Args:
        dies: the rank that ends itself in the forward pass.
    """

    def __init__(self, dies: int = -1) -> None:
        super().__init__()
        self.dies = dies
        self.wte = nn.Embedding(WORDS, WIDTH)
        self.h = nn.ModuleList(Block() for _ in range(3))
        self.ln_f, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.wte.weight
        self.apply(self.init)

    def init(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.05)

    def forward(self, ids: Tensor) -> Tensor:
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
        if int(os.environ.get("RANK", "0")) == self.dies:
            os._exit(7)
        if ranks > 1:
            blocks: list[Any] = [p for p in self.h.parameters() if p.dim()]
            here = sum(p.to_local().numel() for p in blocks)
            assert here * ranks <= sum(p.numel() for p in blocks) + 8 * len(blocks)
        x = self.wte(ids)
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x))
