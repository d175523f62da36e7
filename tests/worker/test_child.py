"""What a model's process does with its inputs."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from gradprobe.spec.options import ProbeOptions
from gradprobe.worker import inputs
from gradprobe.worker.exchange import Request


def test_a_packed_sequence_moves_and_its_batch_sizes_stay_on_the_cpu() -> None:
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)], enforce_sorted=False)
    model = nn.Linear(2, 2, device="meta", dtype=torch.float64)
    options = ProbeOptions(dtype="float64")
    request = Request("net:Net", "{}", ".", (), "net:inputs", None, "projection", options)
    moved, plain = inputs.moved((packed, torch.ones(2, dtype=torch.long)), model, request)
    assert moved.data.device.type == moved.sorted_indices.device.type == plain.device.type == "meta"
    assert moved.batch_sizes.device.type == "cpu"
    assert (moved.data.dtype, plain.dtype) == (torch.float64, torch.int64)
