"""A subject and its measurement → the measurement with a trial, where the options ask for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradprobe.errors import ModelError
from gradprobe.measure.measurement import Measurement, Trial
from gradprobe.spec.options import ALWAYS, ProbeOptions
from gradprobe.spec.seeds import AUTO
from gradprobe.verdict.doubt import doubtful

if TYPE_CHECKING:
    from gradprobe.model.subject import Subject


def tried(subject: Subject, measurement: Measurement, options: ProbeOptions) -> Measurement:
    """``measurement``, with a trial if it is to be or the prediction is not clear.

    A model that cannot be trained is no failure: the trial has the reason.
    """
    asked = options.overfit == ALWAYS
    if not asked and not (options.overfit == AUTO and doubtful(measurement)):
        return measurement
    from gradprobe.measure.overfit import overfit

    try:
        trial = overfit(subject, options.overfit_time)
    except ModelError as error:
        trial = Trial(reason=f"the trial failed: {error.message}", raised=True)
    return measurement._replace(trial=trial._replace(asked=asked))
