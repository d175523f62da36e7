"""What passes between a process and the one that measures for it: a request, and a reply."""

from __future__ import annotations

from typing import NamedTuple

from gradprobe.spec.network import TensorSpec
from gradprobe.spec.options import ProbeOptions


class Request(NamedTuple):
    """One probe of one Python model; see ``CodeSpec`` and ``ProbeOptions``."""

    target: str
    arguments: str  # a JSON object
    path: str
    tensors: tuple[TensorSpec, ...]
    function: str | None  # which makes the inputs
    mode: str | None
    loss: str
    options: ProbeOptions
