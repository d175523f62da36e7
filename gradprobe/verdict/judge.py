"""A measurement and what it is judged by → a report."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import metadata

from gradprobe._version import __version__
from gradprobe.measure.measurement import Measurement
from gradprobe.spec.options import JudgeOptions
from gradprobe.verdict.diagnose import diagnose
from gradprobe.verdict.report import Report
from gradprobe.verdict.rules.rule import Selection
from gradprobe.verdict.training import weigh


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
        measurement.profile, options.thresholds, check, selection, training
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
    )


def versions() -> dict[str, str]:
    """What made a report: a version of gradprobe and one of torch, which is not imported."""
    return {"gradprobe": __version__, "torch": _torch_version()}


@cache
def _torch_version() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "none"
