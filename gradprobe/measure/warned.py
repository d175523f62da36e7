"""What torch warns of while a user's model runs: kept, and said again afterwards."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_OWN = os.path.dirname(os.path.dirname(__file__)) + os.sep
_TORCH = os.path.dirname(torch.__file__) + os.sep
_OTHERS = f"{os.sep}site-packages{os.sep}"
_MOST = 5


@contextmanager
def heard() -> Iterator[list[str]]:
    """Yields a list that is filled at the end: where the user's lines and what torch warns of them.

    Whoever listens hears the warnings as well, once each.
    """
    said: list[str] = []
    always = torch.is_warn_always_enabled()
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        torch.set_warn_always(True)  # also what was said to an earlier probe
        try:
            yield said
        finally:
            torch.set_warn_always(always)
    for warning in raised:
        warnings.warn_explicit(
            warning.message, warning.category, warning.filename, warning.lineno, source=None
        )
    about = [w for w in raised if w.category is UserWarning and _is_users(w.filename)]
    texts = dict.fromkeys(_in_short(str(w.message)) for w in about)
    said += list(texts)[:_MOST]


def _is_users(path: str) -> bool:
    """Whether it is torch's or the user's: not our own line, nor one of another package."""
    return not path.startswith(_OWN) and (path.startswith(_TORCH) or _OTHERS not in path)


def _in_short(text: str) -> str:
    """The first sentence, without where in torch it was triggered."""
    line = text.strip().splitlines()[0] if text.strip() else "a warning without words"
    return line.partition(" (Triggered internally")[0][:200]
