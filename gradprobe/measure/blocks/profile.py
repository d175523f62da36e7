"""The values of a block taken apart and of a product expanded: no torch, no formatting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple


class Estimate(NamedTuple):
    """A mean and its standard error, which is 0 where the value is exact."""

    value: float
    error: float = 0.0


class JacobianProfile(NamedTuple):
    """The Jacobian J of a block whose output has its input's shape, on the measured batch.

    With n elements of input and v random ±1: ``highway`` = tr(J)/n, the "+1" as it really is;
    ``branch`` = sqrt(E‖Jᵀv - s·v‖²/n), the RMS gain of ∂F/∂x, with s the skip scale (1 where the
    block is not written as a residual); ``gain`` = sqrt(E‖Jᵀv‖²/n), the RMS singular value.
    """

    highway: Estimate
    branch: Estimate
    gain: Estimate


class BranchLayer(NamedTuple):
    """One layer of F, and the RMS of its output."""

    name: str
    kind: str
    rms: float


@dataclass(frozen=True, slots=True)
class BlockProfile:
    """One block y = skip(x) + F(x) with its real numbers, forward and backward.

    Where the block is no residual, there is no skip and F is the block itself. Norms are 2-norms
    over the whole batch.
    """

    name: str
    kind: str
    residual: bool
    skip_scale: float
    branch_scale: float
    shortcut: bool  # the skip holds layers of its own
    layers: tuple[BranchLayer, ...]
    input_rms: float
    branch_rms: float
    skip_rms: float
    output_rms: float
    arriving: float  # ‖∂L/∂y‖
    skip_part: float  # ‖(∂skip/∂x)ᵀ ∂L/∂y‖
    branch_part: float  # ‖(∂F/∂x)ᵀ ∂L/∂y‖
    total: float  # ‖∂L/∂x‖, autograd's own
    cosine: float | None  # between the two parts
    error: float  # ‖skip part + branch part - ∂L/∂x‖ / ‖∂L/∂x‖
    jacobian: JacobianProfile | None  # None where the output has another shape than the input

    @property
    def angle(self) -> float | None:
        """Degrees between what comes back through the skip and through the branch."""
        if self.cosine is None:
            return None
        return math.degrees(math.acos(max(-1.0, min(1.0, self.cosine))))


@dataclass(frozen=True, slots=True)
class PathProfile:
    """The gradient at the first row as a sum over paths, grouped by branches traversed.

    ``norms[j]`` is the norm of what arrives through all paths that go through j branches.
    """

    blocks: int
    norms: tuple[float, ...]
    total: float  # ‖∂L/∂x‖ at the first row, autograd's own
    error: float | None  # ‖sum of the groups - ∂L/∂x‖ / ‖∂L/∂x‖; None where groups were left out
    left_out: float | None  # norm of what arrives through the groups that were left out
    row: str  # the first row

    def paths(self, branches: int) -> int:
        """How many paths go through that many branches: a binomial coefficient."""
        return math.comb(self.blocks, branches)

    @property
    def shares(self) -> tuple[float, ...]:
        """Each group's norm ÷ the sum of all groups' norms."""
        whole = math.fsum(self.norms)
        return tuple(norm / whole if whole else 0.0 for norm in self.norms)

    @property
    def mean_length(self) -> float | None:
        """The mean number of branches on a path, weighted by the groups' shares.

        ``None`` where groups were left out, where nothing arrives, and where it is not finite.
        """
        return math.fsum(j * s for j, s in enumerate(self.shares)) if self._whole else None

    @property
    def effective(self) -> tuple[int, int] | None:
        """The range of lengths that carries 95 %: 2.5 % of the shares lie below, 2.5 % above.

        ``None`` where ``mean_length`` is.
        """
        if not self._whole:
            return None
        return _quantile(self.shares, 0.025), _quantile(self.shares, 0.975)

    @property
    def _whole(self) -> bool:
        arrives = math.fsum(self.norms) if all(map(math.isfinite, self.norms)) else 0.0
        return self.left_out is None and arrives > 0


def _quantile(shares: Sequence[float], level: float) -> int:
    totals = enumerate(accumulate(shares))
    return next((j for j, total in totals if total >= level), len(shares) - 1)
