"""Where tokens have become alike, queries starve: their gradient is a small part of the values'.

Claim: with depth the tokens of a transformer align, and the gradients of queries and keys vanish
beside that of the values, unless the branches are scaled by 1/√L (Noci et al. 2022, arXiv
2206.03126). Measured: ‖∂W_q‖ / ‖∂W_v‖ of the last of L Post-LN attention blocks. Stated: it falls
by 10 or more from L = 4 to 64, and with branches of 1/√L stays within a factor of 1.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import gradprobe

TOKENS, WIDTH, DEPTHS = 32, 64, (4, 16, 64)


class Block(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale, self.norm = scale, nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        for layer in (self.query, self.key, self.value):
            nn.init.normal_(layer.weight, std=WIDTH**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2) / math.sqrt(WIDTH)
        out: Tensor = self.norm(x + self.scale * (scores.softmax(-1) @ self.value(x)))
        return out


def ratio(depth: int, scale: float) -> float:
    torch.manual_seed(0)
    blocks = [Block(scale) for _ in range(depth)]
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), *blocks, nn.Linear(WIDTH, 8))
    report = gradprobe.probe(model, torch.randn(8, TOKENS, WIDTH))
    last = next(row for row in report.rows if row.name == str(depth))
    norms = {p.name.split(".")[1]: p.gradient_norm or 0.0 for p in last.parameters}
    return norms["query"] / norms["value"]


def main() -> None:
    print(f"{'branch':10}" + "".join(f"{f'L={depth}':>9}" for depth in DEPTHS))
    plain = [ratio(depth, 1.0) for depth in DEPTHS]
    scaled = [ratio(depth, depth**-0.5) for depth in DEPTHS]
    for label, ratios in (("1", plain), ("1/√L", scaled)):
        print(f"{label:10}" + "".join(f"{value:>9.3g}" for value in ratios))
    assert plain[0] / plain[-1] >= 10
    assert max(scaled) / min(scaled) <= 1.5


if __name__ == "__main__":
    main()
