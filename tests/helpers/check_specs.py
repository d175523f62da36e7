"""Small specs for the check, one for each way in which it may end."""

from __future__ import annotations

from pathlib import Path

GOOD = """\
input: {shape: [8]}
layers:
  - Linear: {out_features: 8}
  - Tanh
  - Linear: {out_features: 4}
"""
VANISHING = """\
input: {shape: [8]}
layers:
  - Linear: {out_features: 8}
  - repeat: {times: 20, layers: [Linear: {out_features: 8}, Sigmoid]}
  - Linear: {out_features: 4}
"""
WEAK = VANISHING.replace("20", "7").replace("Sigmoid", "Tanh")
INVALID = "input: {shape: [8]}\nlayers: [Linaer: {out_features: 4}]\n"
MISFIT = "input: {shape: [5]}\nlayers: [Linear: {in_features: 6, out_features: 4}]\n"
# It fails when it runs: the memory that the plan allows is not there.
NOT_RUNNABLE = "input: {shape: [8]}\nlayers: [Unflatten: {dim: 1, unflattened_size: [3, 3]}]\n"
IGNORING = VANISHING + "check: {ignore: [{rule: GP101, reason: a lecture's bad example}]}\n"


def write(folder: Path, **specs: str) -> None:
    for name, text in specs.items():
        (folder / f"{name}.yaml").write_text(text)
