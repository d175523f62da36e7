"""A measurement and what it is judged by → a report."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import metadata

from gradprobe._version import __version__
from gradprobe.measure.measurement import Measurement
from gradprobe.spec.options import JudgeOptions
from gradprobe.verdict.advice import with_trials
from gradprobe.verdict.calibration import outlook, probability
from gradprobe.verdict.diagnose import diagnose
from gradprobe.verdict.report import Report, Training
from gradprobe.verdict.rules.rule import Selection
from gradprobe.verdict.signals import effort, signals

# Values a channel, as the calibration's networks had: with fewer a coherence is lower, so that what
# is said to train with few does, and the others cannot be told.
_NORMALISED = 32


def judge(measurement: Measurement, target: str, options: JudgeOptions) -> Report:
    """The report on a measurement.

    Args:
        target: as the user named it.
        options: whose thresholds give way to the spec's own, and whose reasons count beside it.
    """
    check = replace(measurement.check, ignore=(*measurement.check.ignore, *options.reasons))
    training = weigh(measurement)
    selection = Selection(options.select, options.ignore)
    findings, verdict = diagnose(
        measurement.profile, options.thresholds, check, selection, training, measurement.trial
    )
    findings = tuple(
        with_trials(finding, measurement.cures, verdict, measurement.profile)
        for finding in findings
    )
    limits = {**options.thresholds, **check.thresholds}
    return Report(
        target,
        measurement.profile,
        findings,
        verdict,
        config={**measurement.config, "thresholds": limits},
        versions=versions(),
        name=measurement.name,
        training=training,
        trial=measurement.trial,
    )


def weigh(measurement: Measurement) -> Training | None:
    """How likely the network is to train, or why that is not known.

    ``None`` where nobody asked for a second look.
    """
    if measurement.no_look:
        return Training(reason=measurement.no_look.reason, failed=measurement.no_look.failed)
    look = measurement.look
    if look is None:
        return None
    weighed = signals(
        measurement.profile, look.coherence, look.highways, look.lost_past, look.invariant
    )
    if weighed is None:
        return Training(reason="no weight has a finite gradient that is not zero")
    chance, trial = probability(weighed), measurement.trial
    few = look.normalised is not None and look.normalised < _NORMALISED
    if few and not outlook(chance).trains:
        reason = f"BatchNorm has {look.normalised} values a channel, too few to tell"
        return Training(reason=f"{reason} ({_NORMALISED} do: --batch-size)")
    # The second model knows the drawn loss, not the user's own.
    took = effort(trial) if trial and not trial.own else None
    after = None if took is None else probability(weighed, took)
    return Training(weighed, chance, outlook(chance).margin, after_trial=after)


def versions() -> dict[str, str]:
    """What made a report: a version of gradprobe and one of torch, which is not imported."""
    return {"gradprobe": __version__, "torch": _torch_version()}


@cache
def _torch_version() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "none"
