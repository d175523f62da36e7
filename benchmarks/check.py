"""What 200 specs cost: one worker and two, a cold cache and a warm one, shards and the whole.

    python benchmarks/check.py

Prints ratios of times taken in one run, and says whether the outputs are the same bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPECS = 200
SPEC = """\
# network {number}
input: {{shape: [128]}}
layers:
  - Linear: {{out_features: 128}}
  - repeat:
      times: {depth}
      layers:
        - residual: [LayerNorm, Linear: {{out_features: 128}}, {activation}]
  - Linear: {{out_features: 10}}
"""
ACTIVATIONS = ("Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(SPECS):
            depth, activation = 10 + 5 * (number % 7), ACTIVATIONS[number % 5]
            text = SPEC.format(number=number, depth=depth, activation=activation)
            Path(folder, f"net{number:03}.yaml").write_text(text)
        one, first = timed(folder, "--no-cache", "--jobs", "1")
        two, second = timed(folder, "--no-cache", "--jobs", "2")
        cold, third = timed(folder, "--jobs", "2")
        warm, fourth = timed(folder, "--jobs", "2")
        parts = [timed(folder, "--shard", f"{k}/3")[1] for k in (1, 2, 3)]
        in_parts = [target for part in parts for target in json.loads(part)["targets"]]
        whole = json.loads(first)["targets"]
        print(f"{SPECS} specs, 1 worker ÷ 2 workers:  {one / two:.2f}")
        print(f"{SPECS} specs, cold cache ÷ warm:      {cold / warm:.1f}")
        print(
            f"the same bytes, 1 and 2 workers, cold and warm: {first == second == third == fourth}"
        )
        together = sorted(in_parts, key=lambda target: target["path"]) == whole
        print(f"three shards hold what one run holds: {together}")


def timed(folder: str, *arguments: str) -> tuple[float, str]:
    command = [sys.executable, "-m", "gradprobe", "check", "--output-format", "json", *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - start, done.stdout


if __name__ == "__main__":
    main()
