"""A measurement → whether a trial would tell more than the prediction does. No torch."""

from __future__ import annotations

from gradprobe.measure.measurement import Measurement
from gradprobe.spec.options import JudgeOptions
from gradprobe.verdict.judge import judge
from gradprobe.verdict.report import Severity, Verdict

_CLEAR = 0.97  # chance under SGD from which on nothing needs to be tried
_HOPELESS = (Verdict.DEAD, Verdict.DISCONNECTED, Verdict.NON_FINITE)  # no trial is needed to know


def doubtful(measurement: Measurement) -> bool:
    """Whether a trial would tell more than the prediction does.

    It would where the chance of training is below 97 % under SGD or not known though a second look
    was asked for, and where a finding would fail. What is dead, disconnected or not finite fails
    whatever a trial says.
    """
    report = judge(measurement, "", JudgeOptions())
    if report.verdict in _HOPELESS:
        return False
    chance = report.training.probability if report.training else None
    if report.training and not (chance and chance.sgd >= _CLEAR):
        return True
    return report.fails(Severity.ERROR)
