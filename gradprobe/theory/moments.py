"""What theory knows of a tensor, of a layer and of a network, as values."""

from __future__ import annotations

import math
from typing import NamedTuple


class Tangent(NamedTuple):
    """A small change ẋ of a signal x, as moments over its units."""

    square: float  # E[ẋ²]
    along: float  # E[x ẋ]
    mean: float  # E[ẋ]


class Moments(NamedTuple):
    """What theory knows of a tensor: its shape, batch first, and moments over units and samples.

    ``product`` is E[x_a x_b] of one unit for two inputs a and b. ``features`` is the axis whose
    units have weights of their own, ``None`` where each number was drawn by itself. ``tangent`` is
    what a small change along the signal, made at the start of the segment, has become.
    """

    shape: tuple[int, ...]
    mean: float = 0.0
    square: float = 1.0
    product: float = 0.0
    gaussian: bool = True
    features: int | None = None
    tangent: Tangent = Tangent(1.0, 1.0, 0.0)

    @property
    def along(self) -> float:
        """The share of the tangent that lies along the signal, from 0 to 1."""
        whole = self.tangent.square * self.square
        return abs(self.tangent.along) / math.sqrt(whole) if whole > 0 else 0.0

    @property
    def variance(self) -> float:
        """Over the units of one sample."""
        return max(0.0, self.square - self.mean**2)

    @property
    def width(self) -> int:
        """Number of units with weights of their own."""
        if self.features is None:
            return math.prod(self.shape[1:])
        return self.shape[self.features]


class Gain(NamedTuple):
    """A layer's factor of the squared gradient norm, going back, and that factor's relative
    variance between networks of finite width (``mixes``: it holds random weights of mean 0)."""

    chi: float = 1.0
    variance: float = 0.0
    mixes: bool = False

    def then(self, other: Gain) -> Gain:
        """The gain of this layer followed by ``other``."""
        return Gain(self.chi * other.chi, self.variance + other.variance, self.mixes or other.mixes)


class Silent(Exception):  # noqa: N818  it is no error
    """Theory has nothing to say about a layer; the argument says why."""


def restarted(moments: Moments) -> Moments:
    """The same with a tangent that begins here: a small change along the signal."""
    return moments._replace(tangent=Tangent(moments.square, moments.square, moments.mean))


class RowPrediction(NamedTuple):
    """What mean-field theory says about one row, before anything is measured.

    ``factor`` is that by which the gradient norm changes across the row, going back; ``None`` where
    theory has nothing to say, for the ``reason``. ``deviation`` is the standard deviation of the
    factor's logarithm that a network of finite width has around it.
    """

    name: str
    factor: float | None
    deviation: float = 0.0
    reason: str | None = None


class Theory(NamedTuple):
    """What stands beside the predicted factors: whose they are, and how they could be nearer 1."""

    about: str  # ReLU, torch's default init
    alternative: str | None = None  # an init whose factor per row is nearer 1
    alternative_decay: float | None = None
