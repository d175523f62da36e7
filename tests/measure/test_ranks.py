"""A model that several processes share is measured whole: see ``helpers/sharded_gpt.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import sharded_gpt
from helpers.places import ROOT
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from gradprobe.measure.norms import extremes, norms
from gradprobe.model.ranks import ranks_of, unwrapped

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
