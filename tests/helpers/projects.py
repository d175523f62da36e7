"""Files of a user's own project, of every kind that a target may be."""

from __future__ import annotations

NET = """\
import torch
from torch import nn


def batch():
    return torch.ones(3, 8)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x):
        return x + 0.1 * self.inner(x).tanh()


class Net(nn.Module):
    def __init__(self, layers=3, width=8):
        super().__init__()
        self.stem = nn.Linear(width, 8)
        self.blocks = nn.Sequential(*[Block() for _ in range(layers)])
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))
"""
SPEC = """\
input: {shape: [8]}
layers:
  - Linear: {out_features: 8}
  - repeat: {times: 3, layers: [residual: [Linear: {out_features: 8}, Tanh]]}
  - Linear: {out_features: 4}
"""
CONFIG = {"model_type": "gpt2", "n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 50}
CONFIG |= {"n_positions": 16, "architectures": ["GPT2LMHeadModel"]}
