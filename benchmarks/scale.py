"""Networks larger than memory: memory and time of a streamed probe, held against the limit.

    python benchmarks/scale.py                    # every case, with a few of its blocks
    python benchmarks/scale.py 7B --blocks 32     # one case with so many blocks, here all
    python benchmarks/scale.py --equal            # 10⁸ weights, streamed and in memory
    python benchmarks/scale.py --cost             # time over depth, 10 to 10,000 blocks of width 16

Each case is one process: a probe with ``--stream``. The limit is what nothing can be faster than
that makes every weight twice: drawing all numbers twice, and the multiplications of four passes
(forward, forward again, and two backward), at the rates that are measured in the same process, of
the case's own width and batch. Times are the processor's, of one thread; memory is the peak
resident set, which more blocks do not raise but for what is kept between them, printed beside it.
With fewer blocks than the case has, the time of all is that of as many weights at the same pace.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from gradprobe.spec.options import Limits, ProbeOptions
from gradprobe.spec.sources.huggingface import ArchitectureOptions
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.spec.sources.table import Target, TargetOptions
from gradprobe.tasks.targets import load_target

GIB = 2**30


class Case(NamedTuple):
    """A network of equal blocks."""

    blocks: int
    width: int
    rows: int  # of each matrix that the weights are multiplied with: samples × positions
    batch: int
    parameters: float
    config: dict[str, object] | None = None  # None: the built-in residual stack

    def small(self) -> Case:
        """The same of width 128."""
        heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
        sizes = {"hidden_size": 128, "intermediate_size": 128, "vocab_size": 100}
        config = self.config and {**self.config, **sizes, **heads}
        return self._replace(width=128, config=config)


def _llama(blocks: int, width: int, inner: int, groups: int, positions: int) -> dict[str, object]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": blocks,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": width // 128,
        "num_key_value_heads": groups,
        "vocab_size": 32_000,
        "max_position_embeddings": positions + 2,
    }


CASES = {
    "residual": Case(1000, 4096, 32, 32, 1.68e10),
    "7B": Case(32, 4096, 32, 1, 6.74e9, _llama(32, 4096, 11_008, 32, 32)),
    "70B": Case(80, 8192, 32, 1, 6.90e10, _llama(80, 8192, 28_672, 8, 32)),
}


def target_of(case: Case, blocks: int, folder: str) -> Target:
    """The case's network with so many blocks."""
    if case.config is None:
        stack = StackOptions(depth=blocks, width=case.width)
        return load_target("residual", TargetOptions(stack=stack))
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(case.config))
    options = TargetOptions(architecture=ArchitectureOptions(layers=blocks))
    return load_target(str(path), options)


def seconds(work: Callable[[], object]) -> float:
    """The processor's time of ``work``."""
    before = time.process_time()
    work()
    return time.process_time() - before


def rates(case: Case) -> tuple[float, float]:
    """Numbers drawn and multiplications made in a second."""
    import torch

    weight, x = torch.empty(case.width, case.width), torch.randn(case.rows, case.width)
    draw: Callable[[], object] = weight.normal_ if case.config else weight.uniform_
    drawing = mean(seconds(draw) for _ in range(5)) / weight.numel()
    passes = (lambda: x @ weight.T, lambda: x @ weight.T, lambda: x @ weight, lambda: x.T @ x)
    multiplying = mean(seconds(one) for one in passes * 5)
    return 1 / drawing, weight.numel() * case.rows / multiplying


def run(name: str, blocks: int) -> dict[str, float]:
    """One streamed probe in this process."""
    import torch

    from gradprobe.worker.run import measure_target

    torch.set_num_threads(1)
    case, parameters = CASES[name], 0
    with tempfile.TemporaryDirectory() as folder:
        limits = Limits(parameters=10**12, memory=12 * GIB)
        options = ProbeOptions(stream=True, batch_size=case.batch, limits=limits)
        # The first probe imports what it needs.
        measure_target(target_of(case.small(), 1, folder), options)
        target, start = target_of(case, blocks, folder), time.monotonic()

        def probe() -> None:
            nonlocal parameters
            parameters = measure_target(target, options).profile.parameters

        took = seconds(probe)
        waited = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    drawn, multiplied = rates(case)
    limit = 2 * parameters / drawn + 4 * parameters * case.rows / multiplied
    return {
        "parameters": parameters, "GiB": peak, "seconds": took, "waited": waited,
        "limit": limit, "drawn": drawn, "multiplied": multiplied,
    }  # fmt: skip


def measured(name: str, blocks: int) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, name, "--blocks", str(blocks), "--here"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    result: dict[str, float] = json.loads(out.stdout)
    return result


def report(name: str, blocks: int | None) -> None:
    """Print a line for a case."""
    case = CASES[name]
    some = blocks or 2
    result = measured(name, some)
    print(
        f"{name}: {some} of {case.blocks} blocks, {result['parameters']:.3g} parameters, "
        f"peak {result['GiB']:.2f} GiB, {result['seconds']:.0f} s, "
        f"limit {result['limit']:.0f} s, ratio {result['seconds'] / result['limit']:.2f} "
        f"({result['drawn'] / 1e6:.0f} million numbers, "
        f"{result['multiplied'] / 1e9:.1f} × 10⁹ multiplications a second)"
    )
    if some < case.blocks:
        times = case.parameters / result["parameters"]
        kept = (case.blocks + 2) * case.rows * case.width * 4 / GIB
        print(
            f"  all blocks: {case.parameters:.3g} parameters, "
            f"{times * result['seconds'] / 60:.0f} min, limit {times * result['limit'] / 60:.0f} "
            f"min; {kept:.2f} GiB kept between them"
        )


def cost() -> None:
    """Print the processor's time of a probe over depth, and its exponent."""
    from gradprobe.worker.run import measure_target

    times: dict[int, float] = {}
    for depth in (10, 100, 1000, 10_000):
        stack = StackOptions(depth=depth, width=16)
        target = load_target("residual", TargetOptions(stack=stack))
        times[depth] = min(seconds(lambda: measure_target(target, ProbeOptions())) for _ in "12")  # noqa: B023
        print(f"{depth} blocks: {times[depth]:.3f} s")
    for first, decades in ((10, 3), (100, 2)):
        exponent = math.log10(times[10_000] / times[first]) / decades
        print(f"exponent from {first} blocks on: {exponent:.2f}")


def equal() -> None:
    """Print whether a streamed probe gives every number of the network in memory."""
    from gradprobe.worker.run import measure_target

    stack = StackOptions(depth=24, width=2048)
    target = load_target("residual", TargetOptions(stack=stack))
    for dtype in ("float32", "float64"):
        both = [measure_target(target, ProbeOptions(dtype=dtype, stream=s)) for s in (True, False)]
        same = repr(both[0]) == repr(both[1])
        print(f"{dtype}, {both[0].profile.parameters:,} parameters: equal to the last bit: {same}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("case", nargs="?", choices=CASES)
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--equal", action="store_true")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.equal:
        equal()
    elif options.cost:
        cost()
    elif options.here:
        print(json.dumps(run(options.case, options.blocks)))
    else:
        for name in [options.case] if options.case else CASES:
            report(name, options.blocks)


if __name__ == "__main__":
    main()
