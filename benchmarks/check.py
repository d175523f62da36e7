"""What 200 specs cost: one worker and two, a cold cache and a warm one, shards and the whole.

With ``--trial``, what 100 that are clearly healthy cost where a check may make a trial, ÷ without.

Residual MLPs, 512 wide and 10 to 40 blocks deep: 3 to 11 million parameters.

    python benchmarks/check.py

Prints ratios of times taken in one run, and says whether the outputs are the same bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SPECS, HEALTHY = 200, 100
SPEC = """\
# network {number}
input: {{shape: [512]}}
layers:
  - Linear: {{out_features: 512}}
  - repeat:
      times: {depth}
      layers:
        - residual: [LayerNorm, Linear: {{out_features: 512}}, {activation}]
  - Linear: {{out_features: 10}}
"""
JSON = ("--output-format", "json")
ACTIVATIONS = ("Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")


def write(folder: str, count: int, activations: Sequence[str] = ACTIVATIONS) -> None:
    """Put ``count`` specs into ``folder``."""
    for number in range(count):
        depth, activation = 10 + 5 * (number % 7), activations[number % len(activations)]
        text = SPEC.format(number=number, depth=depth, activation=activation)
        Path(folder, f"net{number:03}.yaml").write_text(text)


def with_trial(folder: str) -> None:
    write(folder, HEALTHY, ACTIVATIONS[:-1])  # those of Sigmoid are not clear, and are tried
    cost = ("--no-cache", "--jobs", "1")
    times = [(timed(folder, *cost)[0], timed(folder, *cost, "--no-overfit")[0]) for _ in range(2)]
    tried, untried = (min(column) for column in zip(*times, strict=True))
    print(f"{HEALTHY} healthy specs, with trial ÷ without:  {tried / untried:.2f}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if "--trial" in sys.argv[1:]:
            with_trial(folder)
        else:
            workers_and_cache(folder)


def workers_and_cache(folder: str) -> None:
    write(folder, SPECS)
    one, _ = timed(folder, "--no-cache", "--jobs", "1")
    two, _ = timed(folder, "--no-cache", "--jobs", "2")
    cold, _ = timed(folder, "--jobs", "2")
    warm, _ = timed(folder, "--jobs", "2")
    _, first = timed(folder, *JSON, "--no-cache", "--jobs", "1")
    _, second = timed(folder, *JSON, "--no-cache", "--jobs", "2")
    _, third = timed(folder, *JSON)
    parts = [timed(folder, *JSON, "--shard", f"{k}/3")[1] for k in (1, 2, 3)]
    in_parts = [target for part in parts for target in json.loads(part)["targets"]]
    whole = json.loads(first)["targets"]
    print(f"{SPECS} specs, 1 worker ÷ 2 workers:  {one / two:.2f}")
    print(f"{SPECS} specs, cold cache ÷ warm:      {cold / warm:.1f}")
    print(f"the same bytes, 1 and 2 workers, cold and warm: {first == second == third}")
    together = sorted(in_parts, key=lambda target: target["path"]) == whole
    print(f"three shards hold what one run holds: {together}")


def timed(folder: str, *arguments: str) -> tuple[float, str]:
    command = [sys.executable, "-m", "gradprobe", "check", *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - start, done.stdout


if __name__ == "__main__":
    main()
