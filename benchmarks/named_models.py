"""Probe every model that timm and torchvision know by name, and list those that do not work.

    pip install torch torchvision timm
    OMP_NUM_THREADS=1 python benchmarks/named_models.py benchmarks/named_models.jsonl [--jobs N]
    python benchmarks/named_models.py benchmarks/named_models.jsonl --table

Each is what ``gradprobe probe timm:NAME --batch-size 2 --max-memory 2GiB`` measures: built with
random weights, fed by the library's metadata, one pass. Larger ones (weights and gradients of over
2 GiB) are counted apart. They come in a fixed random order, each in a process of its own with so
many seconds of a core; a line is added to the file as soon as one is done, and what is there is not
probed again, so that a run that was cut off goes on, and its beginning is a sample. The whole takes
hours; ``named_models.jsonl`` holds all of it (timm 1.0.31, torchvision 0.29.1).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gradprobe.errors import GradprobeError
from gradprobe.spec.options import Limits, ProbeOptions, RunOptions
from gradprobe.spec.sources.table import load
from gradprobe.tasks.probe import probe_target

BATCH, MEMORY, SECONDS, PATIENCE = 2, 2 * 2**30, 120, 4
ALL_MEMORY = 10 * 2**30  # of a process, activations too
TOO_LARGE = "would take more than"


def names() -> list[str]:
    """Every name of both libraries as a target, in a fixed random order."""
    timm, models = import_module("timm"), import_module("torchvision.models")
    every = [f"timm:{name}" for name in timm.list_models()]
    every += [f"torchvision:{name}" for name in models.list_models()]
    random.Random(0).shuffle(every)
    return every


def probed(name: str, answer: Connection) -> None:
    """Send what came of one model: its verdict, or why there is none."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (ALL_MEMORY, ALL_MEMORY))
    options = ProbeOptions(batch_size=BATCH, limits=Limits(memory=MEMORY))
    try:
        report = probe_target(load(name), options, run=RunOptions(in_process=True))
        answer.send({"works": True, "verdict": str(report.verdict)})
    except GradprobeError as error:
        answer.send({"works": False, "reason": error.message})


def measured(name: str) -> dict[str, Any]:
    """The same from a process of its own, whatever becomes of it."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=probed, args=(name, theirs))
    start = time.monotonic()
    process.start()
    theirs.close()
    try:
        ready = ours.poll(SECONDS * PATIENCE)
        result = ours.recv() if ready else {"works": False, "reason": f"over {SECONDS} s"}
    except EOFError:
        process.join()
        late = process.exitcode == -24  # SIGXCPU
        reason = f"over {SECONDS} s" if late else f"its process ended with {process.exitcode}"
        result = {"works": False, "reason": reason}
    process.kill()
    process.join()
    return {"name": name, **result, "seconds": round(time.monotonic() - start, 1)}


def kind_of(reason: str) -> str:
    """The reason without what tells one model's from another's."""
    if "allocate memory" in reason:
        return f"over {ALL_MEMORY / 2**30:.0f} GiB"
    head, failed, what = reason.partition(" failed")
    return f"{head.split(' ')[0]}{failed}{what}" if failed else reason


def table(lines: list[dict[str, Any]]) -> str:
    """How many work of how many, and the others by their reasons."""
    shown: list[str] = []
    for library in ("timm", "torchvision"):
        own = [line for line in lines if line["name"].startswith(f"{library}:")]
        large = [line for line in own if TOO_LARGE in line.get("reason", "")]
        working = sum(line["works"] for line in own)
        shown.append(
            f"{library}: {working} of {len(own) - len(large)} work; {len(large)} too large"
        )
        reasons: dict[str, list[str]] = defaultdict(list)
        for line in own:
            if not line["works"] and line not in large:
                reasons[kind_of(line["reason"])].append(line["name"].partition(":")[2])
        for reason, of in sorted(reasons.items(), key=lambda entry: -len(entry[1])):
            shown.append(f"  {len(of)}  {reason}\n      {' '.join(sorted(of))}")
    return "\n".join(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--first", type=int, metavar="N", help="only so many, of the whole order")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many at once")
    parser.add_argument("--table", action="store_true", help="of what is there; probe nothing")
    words = parser.parse_args()
    lines = (
        [json.loads(line) for line in words.file.read_text().splitlines() if line.strip()]
        if words.file.exists()
        else []
    )
    if not words.table:
        done = {line["name"] for line in lines}
        missing = [name for name in names()[: words.first] if name not in done]
        with words.file.open("a") as stream, ThreadPoolExecutor(words.jobs) as pool:
            for line in pool.map(measured, missing):
                lines.append(line)
                print(json.dumps(line), file=stream, flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
