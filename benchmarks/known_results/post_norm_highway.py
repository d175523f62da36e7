"""A Post-LN block hands 1/√2 of a gradient straight back.

Claim: LayerNorm(x + F(x)) divides both by √2 where the branch keeps its input's size, as an
orthogonal one does, so that after L blocks 2^(-L/2) is left of the clean path (Xiong et al. 2020,
arXiv 2002.04745). Measured: ``gradprobe probe --blocks``, the mean highway of 12 blocks of width
256. Stated error: 2 %.
"""

from __future__ import annotations

import statistics

from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.yaml import parse
from gradprobe.tasks.probe import probe_target

STATED_ERROR = 0.02
WIDTH = 256
SPEC = f"""
input: {{shape: [{WIDTH}], batch_size: 32}}
layers:
- {{Linear: {{out_features: {WIDTH}}}}}
- LayerNorm
- repeat:
    times: 12
    layers:
    - residual: [{{Linear: {{out_features: {WIDTH}, init: {{weight: orthogonal, bias: zeros}}}}}}]
    - LayerNorm
- {{Linear: {{out_features: 10}}}}
"""


def main() -> None:
    claim = 0.5**0.5
    spec = parse(SPEC.encode(), "Post-LN")
    rows = probe_target(spec, ProbeOptions(blocks=True)).rows
    highways = [r.jacobian.highway.value for r in rows if r.jacobian and r.name.startswith("2.")]
    measured = statistics.mean(highways)
    print(f"{len(highways)} blocks, claim {claim:.4f}, measured {measured:.4f}")
    assert abs(measured / claim - 1) <= STATED_ERROR


if __name__ == "__main__":
    main()
