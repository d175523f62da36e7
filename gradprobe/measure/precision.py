"""What float16, bfloat16 and float8 would lose of each row's gradient, and what scale saves it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradprobe.measure.again import output_of
from gradprobe.measure.passes import gradients_of, scalar
from gradprobe.measure.profile import PrecisionProfile
from gradprobe.measure.recorder import Recorder
from gradprobe.model.sharded import whole
from gradprobe.model.subject import Subject, copied_subject
from gradprobe.model.tensors import first_tensor, map_tensors

# The exponents of the smallest positive numbers; float8 is e5m2, which gradients are kept in.
SMALLEST = {"float16": -24, "bfloat16": -133, "float8": -16}
_LARGEST = 16  # float16 ends below 2 to this
_MAY_BE_LOST = 1e-3  # share of the entries that a scale need not save
_HALVES = (torch.float16, torch.bfloat16)
_LOWEST, _HIGHEST = -1100, 1100  # exponents of float64


def precision(subject: Subject) -> dict[str, PrecisionProfile]:
    """One more forward and backward pass, in float32 at least: by the names of the rows.

    Where the model is in half precision a copy of it is widened: what was lost reads 0 there.
    """
    if any(p.dtype in _HALVES for p in subject.model.parameters()):
        subject = _widened(subject)
    with torch.enable_grad(), _Counts(subject.rows) as counts:
        loss = scalar(subject.loss(output_of(subject)))
        counts.recording = False
        gradients_of(loss, [p for p in subject.model.parameters() if p.requires_grad])
    return {name: _profile(seen) for name, seen in counts.exponents.items() if seen}


def scale_for(exponents: Counter[int]) -> int | None:
    """The least power of two, as an exponent, with which float16 holds the entries; ``None``: none.

    Args:
        exponents: e of each entry that is not zero, which is at least 2^e and below 2^(e + 1).
    """
    lost, limit = 0, _MAY_BE_LOST * exponents.total()
    for exponent in sorted(exponents):
        lost += exponents[exponent]
        if lost > limit:
            scale = max(0, SMALLEST["float16"] - exponent)
            return scale if max(exponents) + scale < _LARGEST else None
    return 0


def _widened(subject: Subject) -> Subject:
    copy = copied_subject(subject)
    copy.model.float()

    def widen(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.dtype in _HALVES else tensor

    args, kwargs = map_tensors(widen, (copy.args, dict(copy.kwargs)))
    return replace(copy, args=args, kwargs=kwargs)


def _profile(exponents: Counter[int]) -> PrecisionProfile:
    entries = exponents.total()

    def share(dtype: str) -> float:
        return sum(n for e, n in exponents.items() if e < SMALLEST[dtype]) / entries

    scale = scale_for(exponents)
    return PrecisionProfile(
        float16=share("float16"),
        bfloat16=share("bfloat16"),
        float8=share("float8"),
        scale=None if scale is None else 2.0**scale,
        ceiling=2.0 ** (_LARGEST - 1 - max(exponents)),
        entries=entries,
    )


class _Counts(Recorder):
    """Counts the exponents of what arrives at each row's output."""

    def __init__(self, rows: Any) -> None:
        super().__init__(rows)
        self.exponents: dict[str, Counter[int]] = {}

    def after(self, row: Any, note: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None and tensor.requires_grad:
            name = self.call_name(row)
            self.exponents[name] = Counter()
            tensor.register_hook(partial(self._count, name))  # type: ignore[no-untyped-call]

    def _count(self, name: str, gradient: Tensor) -> None:
        size = whole(gradient).abs()
        size = size[torch.isfinite(size) & (size > 0)]
        exponents = torch.frexp(size).exponent.clamp(_LOWEST, _HIGHEST) - _LOWEST
        counts = torch.bincount(exponents.flatten().cpu())
        for index in counts.nonzero().flatten().tolist():
            self.exponents[name][index + _LOWEST - 1] += int(counts[index])
