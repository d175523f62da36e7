"""The processes that torchrun has started, of which one speaks and all end alike. No torch."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, NamedTuple

_TICK = 0.02  # s between two looks whether another process has said something


class Torchrun(NamedTuple):
    """The processes that torchrun has started, of which this is one."""

    rank: int
    size: int

    def everyone(self, key: str, value: str) -> list[str]:
        """What each process says under ``key``; torchrun ends those that wait for a dead one."""
        store = _store()
        store.set(f"{key}/{self.rank}", value)
        return [_get(store, f"{key}/{rank}") for rank in range(self.size)]

    def end(self, code: int) -> int:
        """The exit code for all, once the first process has said what there is to say.

        torchrun terminates all processes as soon as one has failed: those that end now go on.
        """
        code = code if self.rank == 0 else max(code, int(_get(_store(), "gradprobe/end")))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.rank == 0:
            _store().set("gradprobe/end", str(code))
        return code


def torchrun() -> Torchrun | None:
    """The processes of torchrun; ``None`` where this one is alone."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    size = int(os.environ["WORLD_SIZE"])
    return Torchrun(int(os.environ["RANK"]), size) if size > 1 else None


def rank_of_script() -> str:
    """The number of this process among those of a training script, by whichever launcher.

    ``torchrun`` knows torchrun's own alone: a pod of a cluster may have a ``RANK`` and be alone.
    """
    return os.environ.get("RANK") or "0"


def ended(code: int) -> int:
    """The exit code of this process, or the one for all."""
    processes = torchrun()
    return processes.end(code) if processes else code


def _store() -> Any:
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://"))
    return store


def _get(store: Any, key: str) -> str:
    """What a process has said, once it has; an interrupt can come in between."""
    while not store.check([key]):
        time.sleep(_TICK)
    return str(store.get(key).decode())
