"""A profile and a second look → whether the network will train. No torch."""

from __future__ import annotations

from gradprobe.measure.measurement import Measurement
from gradprobe.verdict.calibration import outlook, probability
from gradprobe.verdict.report import Training
from gradprobe.verdict.signals import signals

_NORMALISED = 32  # values a channel: what the calibration's networks had, and fewer shatter


def weigh(measurement: Measurement) -> Training | None:
    """How likely the network is to train, or why that is not known.

    ``None`` where nobody asked for a second look.
    """
    if measurement.no_look:
        return Training(reason=measurement.no_look.reason, failed=measurement.no_look.failed)
    look = measurement.look
    if look is None:
        return None
    if look.normalised is not None and look.normalised < _NORMALISED:
        few = f"BatchNorm has {look.normalised} values a channel, too few to tell"
        return Training(reason=f"{few} ({_NORMALISED} do: --batch-size)")
    weighed = signals(measurement.profile, look.coherence, look.highways, look.lost_past)
    if weighed is None:
        return Training(reason="no weight has a finite gradient that is not zero")
    chance = probability(weighed)
    return Training(weighed, chance, outlook(chance).margin)
