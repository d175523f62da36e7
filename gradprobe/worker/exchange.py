"""What is handed to the process that runs a Python model, which hands back a ``Reply``."""

from __future__ import annotations

from typing import NamedTuple

from gradprobe.spec.network import TensorSpec


class Request(NamedTuple):
    """One probe of one Python model; see ``CodeSpec`` and ``ProbeOptions``."""

    target: str
    arguments: str  # a JSON object
    path: str
    tensors: tuple[TensorSpec, ...]
    function: str | None  # which makes the inputs
    data: str | None
    mode: str | None
    loss: str
    seed: int
    dtype: str | None  # None: as the model was built
    device: str
    batch_size: int | None
    level: str
    deep: bool
    memory: int  # bytes that the inputs, and a second look, may take
    rows: str | None = None  # a glob over module paths
    blocks: bool = False
