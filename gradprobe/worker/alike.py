"""What each process of torchrun has measured → the same for all, or the error of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gradprobe.errors import GradprobeError
from gradprobe.worker.blame import blame
from gradprobe.worker.exchange import Failure, decode, encode
from gradprobe.worker.torchrun import torchrun

T = TypeVar("T")
# What is said where another has ended, or does not come.
_ECHO = ("by peer", "Socket", "remote process", "Broken pipe", "Timed out", "no result after")


def alike(measure: Callable[[], T], name: str) -> T:
    """What ``measure`` gives, in each process of torchrun, or for all the error of one.

    Args:
        name: of the measurement; no two have the same.

    Raises:
        InputError, ModelError: as ``measure`` in some process; names its rank, unless it is that
            of all.
    """
    processes = torchrun()
    assert processes is not None
    results: list[T] = []
    text = ""
    try:
        results.append(measure())
    except GradprobeError as error:
        text = encode(Failure.of(error))
    except Exception as error:
        text = encode(Failure.of(blame(error, "probing")))
    failures: dict[int, Failure] = {}
    for rank, other in enumerate(processes.everyone(f"gradprobe/{name}", text)):
        if other:
            failure = decode(Failure, other)
            message = failure.message.removeprefix(f"rank {rank}: ")
            failures[rank] = failure._replace(message=message)
    if not failures:
        return results[0]
    rank, first = min(failures.items(), key=lambda item: _is_echo(item[1]))
    if len({f.message for f in failures.values()}) > 1 or len(failures) < processes.size:
        first = first._replace(message=f"rank {rank}: {first.message}")
    raise first.error


def _is_echo(failure: Failure) -> bool:
    return any(word in failure.message for word in _ECHO)
