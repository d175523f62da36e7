"""What builds a model → the model, of whose weights each process of torchrun holds a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from torch import nn

from gradprobe.errors import ModelError, first_line
from gradprobe.model.build import Network
from gradprobe.model.deferred import Deferred
from gradprobe.model.rows import find_rows, parameters_of
from gradprobe.model.sharded import is_sharded
from gradprobe.spec.options import ProbeOptions

M = TypeVar("M", bound=nn.Module)
WHOLE_WEIGHTS = "--weights are read as a whole, and under torchrun each process holds a part"
BY_HAND = "wrap it yourself with fully_shard, and call gradprobe.probe in your own job"


def built(build: Callable[[], M]) -> tuple[M, Deferred]:
    """The model in shape, and what gives its modules their numbers."""
    with Deferred() as deferred:
        return build(), deferred


def sharded(build: Callable[[], M], options: ProbeOptions) -> M:
    """The model, built in shape and spread."""
    return spread(*built(build), options)


def spread(model: M, deferred: Deferred, options: ProbeOptions) -> M:
    """The model with the numbers that it has in one process, sharded by FSDP2.

    One row at a time is made and sharded, and then the rest of the model: no process holds more
    than its parts and one row.

    Raises:
        ModelError: FSDP2 cannot take it.
    """
    from torch.distributed import get_world_size
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    rows = model.rows if isinstance(model, Network) else find_rows(model, options.rows)
    modules: list[nn.Module] = [*_apart(model, [row.module for row in rows]), model]
    mesh = init_device_mesh(options.device, (get_world_size(),))
    try:
        for module in modules:
            deferred.fill(module)
            numbers = {p for p in module.parameters() if not p.dim() and not is_sharded(p)}
            for number in numbers:  # FSDP2 shards no scalars
                number.data = number.data.to(mesh.device_type)
            fully_shard(module, mesh=mesh, ignored_params=numbers)
    except Exception as error:
        message = f"{type(model).__name__} cannot be sharded: {first_line(error)}"
        raise ModelError(message, hint=BY_HAND) from error
    return model


def _apart(model: nn.Module, rows: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """The rows that are sharded each by itself.

    What others read as well, a tied embedding, has to be there in all of the pass.
    """
    uses = Counter(id(p) for _, p in parameters_of(model))
    for row in rows:
        inside = Counter(id(p) for _, p in parameters_of(row))
        own = bool(inside) and all(uses[key] == count for key, count in inside.items())
        if own and row is not model and not isinstance(row, nn.Embedding | nn.ModuleList):
            yield row
