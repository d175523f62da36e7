"""The gradient of the last layers: Post-LN against Pre-LN transformers.

Claim: at init the gradient of the last feed-forward weights is O(d·√ln d) in a Post-LN transformer
whatever its depth L, and O(d·√(ln d / L)) in a Pre-LN one (Xiong et al. 2020, arXiv 2002.04745).
Measured: the gradient norm of the last block's feed-forward weights in encoders of 3 to 24 blocks
at Xavier init under cross entropy; the power of L, 0 against -1/2. Four positions only: with many,
Post-LN's positions grow alike and their gradients add up. Stated error: 0.12 for each power.
"""

from __future__ import annotations

import math
import statistics

from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.yaml import parse
from gradprobe.tasks.probe import probe_target

STATED_ERROR = 0.12
DEPTHS = (3, 6, 12, 24)
CLAIMS = {"Post-LN": 0.0, "Pre-LN": -0.5}
ATTENTION, FORWARD = (
    "{MultiheadAttention: {num_heads: 4}}",
    "{Linear: {out_features: 256}}, ReLU, {Linear: {out_features: 64}}",
)
BODIES = {
    "Post-LN": f"[{{residual: [{ATTENTION}]}}, LayerNorm, {{residual: [{FORWARD}]}}, LayerNorm]",
    "Pre-LN": f"[{{residual: [LayerNorm, {ATTENTION}]}}, {{residual: [LayerNorm, {FORWARD}]}}]",
}


def last_gradient(kind: str, depth: int) -> float:
    """Mean over twelve seeds of the gradient norm of the last block's feed-forward weights."""
    final = "- LayerNorm" if kind == "Pre-LN" else ""
    text = f"""
input: {{shape: [4, 64], batch_size: 1}}
loss: cross_entropy
init:
  Linear: {{weight: xavier_normal, bias: zeros}}
  MultiheadAttention: {{weight: xavier_normal, bias: zeros}}
layers:
- repeat: {{times: {depth}, layers: {BODIES[kind]}}}
{final}
- Linear: {{out_features: 32}}
"""
    spec = parse(text.encode(), kind)
    found = []
    for seed in range(12):
        report = probe_target(spec, ProbeOptions(seed=seed))
        last = next(row for row in report.rows if row.name == f"0.{depth - 1}")
        weights = [p for p in last.parameters if p.dimensions == 2 and p.size == 256 * 64]
        found.append(math.hypot(*(p.gradient_norm or 0.0 for p in weights)))
    return statistics.mean(found)


def main() -> None:
    print(
        f"{'':10}" + "".join(f"{f'L={depth}':>9}" for depth in DEPTHS) + f"{'claim':>8}{'power':>7}"
    )
    for kind, claim in CLAIMS.items():
        sizes = [last_gradient(kind, depth) for depth in DEPTHS]
        line = statistics.linear_regression(
            [math.log(depth) for depth in DEPTHS], [math.log(size) for size in sizes]
        )
        cells = "".join(f"{size:>9.4f}" for size in sizes)
        print(f"{kind:10}{cells}{claim:>8.2f}{line.slope:>7.2f}")
        assert abs(line.slope - claim) <= STATED_ERROR


if __name__ == "__main__":
    main()
