"""Mutated specs are refused in a sentence, or planned: how many, how fast, in how much memory.

    OMP_NUM_THREADS=1 python benchmarks/fuzz.py [--count 1000000] [--seed 0] [--jobs 1]

Each of them is a spec of `tests/specs/good/` with one to four changes, drawn from its number: a
spec that breaks something can be had again by `--seed N --count 1`. It is read and planned, which
is all that stands between a file and the first allocation; no network is built. Printed: how many
ended in which way, every one that ended in no sentence, the slowest, and the peak of the memory.
Exits 1 where one raised what is no `GradprobeError`, or took more than two seconds of CPU.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from helpers.mutations import mutated  # noqa: E402

from gradprobe.errors import GradprobeError  # noqa: E402
from gradprobe.model.plan import plan  # noqa: E402
from gradprobe.spec.network import NetworkSpec  # noqa: E402
from gradprobe.spec.options import Limits  # noqa: E402
from gradprobe.spec.sources.yaml import parse_any  # noqa: E402

LONGEST = 2.0  # seconds of the processor
MOST = 500  # MB
PART = 20_000  # specs that are told of at once
LIMITS = Limits(parameters=100_000, memory=64 << 20)
TEXTS = [path.read_text("utf-8") for path in sorted((TESTS / "specs" / "good").glob("*.yaml"))]


def warm() -> None:
    """What torch imports at its first layer is not the first spec's time."""
    warnings.simplefilter("ignore")
    for seed in range(50):
        ending(seed)


def ending(seed: int) -> str:
    """How the spec of this number ended."""
    text = mutated(TEXTS[seed % len(TEXTS)], seed)
    try:
        spec = parse_any(text.encode("utf-8", "surrogatepass"), "net.yaml")
        if isinstance(spec, NetworkSpec):
            plan(spec, 2, LIMITS)
            return "planned"
        return "names code"
    except GradprobeError as error:
        str(error)
        return "refused" if int(error.exit_code) == 2 else "exit 3"
    except Exception as error:
        return f"CRASH {type(error).__name__}: {str(error)[:100]}"


def shard(first: int, count: int) -> tuple[Counter[str], list[str], tuple[float, int], float]:
    """How many ended in which way, what is wrong, the slowest with its number, the peak in MB."""
    endings: Counter[str] = Counter()
    wrong, slowest = [], (0.0, first)
    for seed in range(first, first + count):
        start = time.process_time()
        how = ending(seed)
        seconds = time.process_time() - start
        endings[how] += 1
        slowest = max(slowest, (seconds, seed))
        if how[:5] in ("CRASH", "exit ") or seconds > LONGEST:
            wrong.append(f"--seed {seed} --count 1: {how}, {seconds:.2f} s")
    return endings, wrong, slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--count", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--jobs", type=int, default=1)
    asked = arguments.parse_args()
    end = asked.seed + asked.count
    shards = [(n, min(PART, end - n)) for n in range(asked.seed, end, PART)]
    endings: Counter[str] = Counter()
    slowest, peak, wrong, start = (0.0, 0), 0.0, 0, time.perf_counter()
    with ProcessPoolExecutor(asked.jobs, multiprocessing.get_context("spawn"), warm) as pool:
        for result in pool.map(shard, *zip(*shards, strict=True)):
            endings += result[0]
            wrong += len(result[1])
            slowest, peak = max(slowest, result[2]), max(peak, result[3])
            seconds = time.perf_counter() - start
            print(*result[1], f"{endings.total():,} in {seconds:,.0f} s", sep="\n", flush=True)
    print(", ".join(f"{n:,} {how}" for how, n in endings.most_common()))
    print(f"slowest: {slowest[0]:.2f} s, --seed {slowest[1]}; peak memory: {peak:.0f} MB")
    print(f"{wrong} of {asked.count:,} mutated specs crashed or hung")
    return int(wrong > 0 or peak > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
