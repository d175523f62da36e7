"""What mean-field theory says of a network, as values."""

from __future__ import annotations

from typing import NamedTuple


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
