"""Compiled code, run as it was written meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def eager() -> Iterator[None]:
    """Meanwhile nothing is compiled: to trace the hooks takes seconds, and compiles again."""
    if "torch._dynamo" not in sys.modules:  # what is compiled has imported it, which takes long
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
