"""A module → the processes that share it: DistributedDataParallel, FSDP2, tensor parallelism."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from gradprobe.errors import InputError
from gradprobe.model.sharded import is_sharded
from gradprobe.spec.options import ProbeOptions

T = TypeVar("T")
PATIENCE = timedelta(minutes=5)  # for a rank that failed, and whose process is still there


class Ranks(NamedTuple):
    """The processes that share a model. Each calls it at the same time, and each is a rank."""

    group: Any  # of torch.distributed; None: all that there are
    rank: int  # of this process in the group
    size: int
    sharded: bool  # whether each holds a part of the weights, so that a pass takes all of them
    split: bool  # whether an output, too, may be spread over them: tensor parallelism

    def everyone(self, value: T) -> list[T]:
        """What each rank has, by rank. All of them have to ask."""
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value, self.group)
        return values

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of what the ranks have, tensors of one shape. All of them have to ask."""
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total, group=self.group)
        return total / self.size


def ranks_of(module: nn.Module) -> Ranks | None:
    """The processes that share a module as it is called; ``None`` where this one has it alone."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    if isinstance(module, DistributedDataParallel):
        return _ranks(module.process_group, sharded=False, split=False)
    meshes: set[Any] = {p.device_mesh for p in module.parameters() if is_sharded(p)}  # type: ignore[attr-defined]
    if not meshes:
        return None
    from torch.distributed.fsdp import FSDPModule

    mesh = max(meshes, key=lambda mesh: mesh.size())
    alone = mesh.ndim > 1 or not any(isinstance(m, FSDPModule) for m in module.modules())
    if mesh.size() == distributed.get_world_size():
        return _ranks(None, sharded=True, split=alone)
    return _ranks(mesh.get_group(), sharded=True, split=alone) if mesh.ndim == 1 else None


@contextmanager
def joined(options: ProbeOptions) -> Iterator[None]:
    """Meanwhile the processes that torchrun has started are one group, if they share a model.

    Raises:
        InputError: the device is one of several, and each process has its own.
    """
    if not options.sharded:
        yield
        return
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    kind, _, index = options.device.partition(":")
    if index:
        message = f"--device {options.device}: each rank has its own"
        raise InputError(message, hint=f"--device {kind}")
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, rank, size = next(rendezvous("env://"))
    before = _sockets()
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo",
        store=PrefixStore(str(options.seed), store),  # no two measurements share one
        rank=rank,
        world_size=size,
        timeout=PATIENCE,
    )
    try:
        yield
    except Exception:
        if kind == "cpu":
            _shut(_sockets() - before)
        raise
    finally:
        torch.distributed.destroy_process_group()


def _sockets() -> set[int]:
    """The open ones of this process."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    sockets = set()
    for number in map(int, os.listdir(folder)):
        with suppress(OSError):  # that of the listing itself is closed by now
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                sockets.add(number)
    return sockets


def _shut(sockets: Iterable[int]) -> None:
    """End connections, so that who waits at the other end fails at once.

    gloo itself ends them when the group is freed, which torch's caches of sharded operations hold.
    """
    for number in sockets:
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
            connection.getpeername()  # raises of one that listens, whose end gloo takes for fatal
            connection.shutdown(socket.SHUT_RDWR)


def _ranks(group: Any, sharded: bool, split: bool) -> Ranks | None:
    distributed = torch.distributed
    rank, size = distributed.get_rank(group), distributed.get_world_size(group)
    return Ranks(group, rank, size, sharded, split) if size > 1 else None


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside those that compile it or spread it over devices."""
    while True:
        if isinstance(module, DataParallel | DistributedDataParallel):
            module = module.module
        # A scripted module's are no dictionary, and have no get.
        elif "_orig_mod" in module._modules and (inner := module._modules["_orig_mod"]) is not None:
            module = inner
        else:
            return module
