"""A subject and its measurement → the measurement with what its cures bring, tried in copies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from gradprobe.measure.measurement import Cure, Measurement, TriedCure
from gradprobe.spec.options import JudgeOptions, ProbeOptions
from gradprobe.verdict.judge import judge
from gradprobe.verdict.report import Report, Severity, Verdict

if TYPE_CHECKING:
    from gradprobe.model.subject import Subject

_MOST = 4  # cures, each with a probe of its own
_SECONDS = 5.0  # after which no further one begins
_PARAMETERS = 10_000_000  # of a model that is copied for it


def with_cures(subject: Subject, measurement: Measurement, options: ProbeOptions) -> Measurement:
    """``measurement`` with its cures tried, of a Python model that is not healthy.

    Only beside a second look, which says how likely it then trains. At most four are tried, and
    none is begun after five seconds; the subject is left as it was.
    """
    small = measurement.profile.parameters <= _PARAMETERS
    if subject.idiom.language != "code" or not options.looks_twice or not small:
        return measurement
    report = judge(measurement, "", JudgeOptions())
    if report.verdict is Verdict.HEALTHY:
        return measurement
    started, trials = time.monotonic(), list[TriedCure]()
    for cure in _cures(report):
        if len(trials) == _MOST or time.monotonic() - started > _SECONDS:
            break
        after = _probed(subject, cure, options)
        if after:
            trials.append(_tried(cure, after))
    return measurement._replace(cures=tuple(trials))


def _cures(report: Report) -> Iterator[Cure]:
    """Those of findings that count, the gravest first, each once."""
    told = (cure for f in report.findings if f.severity > Severity.INFO for cure in f.cures)
    yield from dict.fromkeys(told)


def _probed(subject: Subject, cure: Cure, options: ProbeOptions) -> Report | None:
    """What a probe says of a copy with the cure; ``None`` where it cannot be tried."""
    from gradprobe.measure.cures import cured
    from gradprobe.measure.take import take

    try:
        copy = cured(subject, cure)
        if copy is None:
            return None
        plain = replace(options, deep=True, blocks=False)
        return judge(take(copy, plain), "", JudgeOptions())
    except Exception:
        return None  # a model that cannot be copied, or does not run with it


def _tried(cure: Cure, report: Report) -> TriedCure:
    chance = report.training.probability if report.training else None
    rules = tuple(f.rule for f in report.findings if f.severity > Severity.INFO)
    return TriedCure(cure, str(report.verdict), chance.adam if chance else None, rules)
