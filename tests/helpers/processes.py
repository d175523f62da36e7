"""What may befall a process: no disk, no memory, nobody who reads, an early end."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

# Larger than the memory that a process may have: allowed by the options, refused by the machine.
BIG = (
    "input: {shape: [8]}\nlayers: [Linear: {out_features: 60000}, Linear: {out_features: 20000}]\n"
)
BIG_IS_ALLOWED = "max-parameters = 3_000_000_000\nmax-memory = '64G'\n"


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))


def limit_file_size() -> None:
    """Files end after 50 bytes: a disk that is full, for root too."""
    # Python 3.11 takes half a .pyc for a whole one, and could not import it ever after.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))


def broken_pipe() -> int:
    """The writing end of a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def is_gone(pid: int) -> bool:
    """Whether a process has ended, within a second; what nobody reaped has ended too."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False
