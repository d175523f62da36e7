"""A model that several processes share is measured whole: see ``helpers/sharded_gpt.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import failing_rank, sharded_gpt
from helpers.places import ROOT
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from gradprobe.measure.norms import extremes, norms
from gradprobe.model.ranks import PATIENCE, ranks_of, unwrapped

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node")


def launched(ranks: int, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, str(ranks), *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_every_process_has_the_report_of_the_whole_model(ranks: int, tmp_path: Path) -> None:
    """In DistributedDataParallel, FSDP2 and tensor-parallel layers: probed, and while it trains."""
    done = launched(ranks, sharded_gpt.__file__, folder=tmp_path)
    assert done.stdout.count("fine") == ranks, done.stderr


def test_a_module_of_one_process_has_no_ranks() -> None:
    net = torch.nn.Linear(2, 2)
    assert ranks_of(net) is None
    assert unwrapped(torch.nn.DataParallel(net)) is net


def test_norms_of_parts_are_joined() -> None:
    """By a mesh of one process, which has the only part."""
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        mesh, x = init_device_mesh("cpu", (1,)), torch.tensor([[3.0, -4.0]])
        for place in (Shard(0), Shard(1), Replicate(), Partial()):
            spread = DTensor.from_local(x, mesh, [place])
            assert norms([x, spread, spread * 2]) == [5.0, 5.0, 10.0]
            assert extremes([spread, x * 3]) == [(-4.0, 3.0), (-12.0, 9.0)]
    finally:
        torch.distributed.destroy_process_group()


def probed(ranks: int, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """``gradprobe probe`` of the GPT that torchrun's processes build."""
    inputs = ("--input", "shape=4,6/dtype=int64/high=90", "--timeout", "600")
    command = ("-m", "gradprobe", "probe", *words, *inputs)
    if ranks > 1:
        return launched(ranks, *command, folder=folder)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


MODEL = "helpers.torchrun_gpt:GPT"


def near(value: object, expected: object) -> bool:
    """Whether two documents are one, each number to 1e-6."""
    if isinstance(value, dict) and isinstance(expected, dict):
        same = value.keys() == expected.keys()
        return same and all(near(value[key], expected[key]) for key in value)
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(near, value, expected))
    if isinstance(value, float) and isinstance(expected, float):
        return value == pytest.approx(expected, rel=1e-6)
    return value == expected


@pytest.mark.slow
def test_torchrun_builds_and_shards_a_model(tmp_path: Path) -> None:
    """One report, that of one process; no rank holds more than its part of the blocks."""
    words = (MODEL, "--dtype", "float64", "--format", "json")
    alone = probed(1, *words, folder=tmp_path)
    shared = probed(2, *words, "--html", "page.html", folder=tmp_path)
    assert near(json.loads(shared.stdout), json.loads(alone.stdout)), shared.stderr
    assert shared.returncode == alone.returncode == 0, shared.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.slow
def test_a_rank_that_dies_ends_all_and_is_named(tmp_path: Path) -> None:
    done = probed(2, MODEL, "--arg", "dies=1", folder=tmp_path)
    assert not done.stdout
    said = f"rank 1: {MODEL}: its process ended with exit code 7 and no result"
    assert done.stderr.count(said) == 1, done.stderr
    assert done.stderr.count("exitcode  : 3") == 2, done.stderr


@pytest.mark.slow
def test_a_rank_that_fails_in_a_pass_keeps_no_other_waiting(tmp_path: Path) -> None:
    """Of a spec, which is measured in the processes themselves: they go on when one has failed."""
    started = time.monotonic()
    done = launched(2, failing_rank.__file__, "probe", "plain", folder=tmp_path)
    assert time.monotonic() - started < PATIENCE.total_seconds() / 2
    said = "rank 1: probing failed in fail: MemoryError: no more of it"
    assert (done.stdout, done.stderr.count(said)) == ("", 1), done.stderr
    assert done.stderr.count("exitcode  : 3") == 2, done.stderr
