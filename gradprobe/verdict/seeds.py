"""Whether a verdict would be another one at another seed. No torch.

A verdict is settled where it is 99 % sure that more than half of all seeds give it, seen from the
margins of those that were probed or from their number alone. Both are posterior probabilities under
a flat prior, which do not depend on when one stops; a network that stands on a boundary itself may
be settled on either side of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from gradprobe.numbers import finite
from gradprobe.spec.network import Ignore
from gradprobe.spec.seeds import AUTO_SEEDS, Seeds
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.verdict.calibration import minus_log_log, outlook
from gradprobe.verdict.diagnose import decides, diagnose_seeds
from gradprobe.verdict.report import Repeats, Report, Verdict, tally

SURE = 0.99

# Student's t at 0.99, for 2 to 29 degrees of freedom: scipy.stats.t.ppf(0.99, range(2, 30)).
QUANTILES = (
    *(6.9646, 4.5407, 3.7469, 3.3649, 3.1427, 2.9980, 2.8965, 2.8214, 2.7638, 2.7181),
    *(2.6810, 2.6503, 2.6245, 2.6025, 2.5835, 2.5669, 2.5524, 2.5395, 2.5280, 2.5176),
    *(2.5083, 2.4999, 2.4922, 2.4851, 2.4786, 2.4727, 2.4671, 2.4620),
)

# The verdicts that follow from the reach or from the probability that it trains.
_MEASURED = (
    Verdict.HEALTHY,
    Verdict.WEAK,
    Verdict.VANISHING,
    Verdict.EXPLODING,
    Verdict.SHATTERED,
)


def repeated(
    probe: Callable[[int], Report], seeds: Seeds, ignores: Sequence[Ignore] = ()
) -> Report:
    """The typical one of the reports that ``probe`` gives on each seed, and what became of all.

    Args:
        probe: from a seed to its report.
        seeds: which; the last ones are left out where they are ``auto`` and the verdict is settled.
        ignores: the target's own.
    """
    reports: list[Report] = []
    for seed in seeds.seeds:
        reports.append(probe(seed))
        if seeds.auto and len(reports) >= AUTO_SEEDS[0] and settled(reports):
            break
    shown = typical(reports)
    findings = (*shown.findings, *diagnose_seeds(reports, ignores))
    findings = tuple(sorted(findings, key=lambda finding: -finding.severity))
    return replace(shown, findings=findings, repeats=repeats(reports, seeds.seeds[: len(reports)]))


def repeats(reports: Sequence[Report], seeds: Sequence[int]) -> Repeats:
    """What became of each seed."""
    trainings = [report.training for report in reports]
    return Repeats(
        seeds=tuple(seeds),
        verdicts=tuple(report.verdict for report in reports),
        reaches=tuple(report.reach for report in reports),
        probabilities=tuple(training and training.probability for training in trainings),
        settled=settled(reports),
    )


def typical(reports: Sequence[Report]) -> Report:
    """Of the reports with the most common verdict, the graver one of equals, the median reach's."""
    verdict = next(iter(tally(report.verdict for report in reports)))
    alike = [report for report in reports if report.verdict is verdict]
    alike.sort(key=lambda r: math.inf if (reach := finite(r.reach)) is None else reach)
    return alike[(len(alike) - 1) // 2]


def settled(reports: Sequence[Report]) -> bool:
    """Whether it is 99 % sure that more than half of all seeds give the most common verdict."""
    return sure([report.verdict for report in reports], [margin(report) for report in reports])


def sure(verdicts: Sequence[Verdict], margins: Sequence[float | None]) -> bool:
    """``settled``, from the verdict and the ``margin`` of each seed."""
    counts = list(tally(verdicts).values())
    if majority(counts[0], len(verdicts)) >= SURE:
        return True
    measured = [value for value in margins if value is not None]
    return len(counts) == 1 and len(measured) == len(margins) and clear(measured)


def margin(report: Report) -> float | None:
    """How far the nearest other verdict is: in the score, or the natural logarithm of the reach.

    Both spread to either side alike over seeds; the odds of what fails do not. ``None`` where the
    verdict follows from neither.
    """
    limits, training, reach = report.config.get("thresholds"), report.training, report.reach
    if report.trial and (report.trial.learned or report.trial.failed):
        return None
    if report.verdict not in _MEASURED or not isinstance(limits, Mapping):
        return None
    if training and decides(training, limits):
        return outlook(training.probability, minus_log_log).margin if training.probability else None
    if not reach or not math.isfinite(reach):
        return None
    ends = [limits[key] for key in THRESHOLDS if limits[key]]  # of a band from 0 on the other
    return min((abs(math.log(reach) - math.log(end)) for end in ends), default=None)


def clear(margins: Sequence[float]) -> bool:
    """Whether the one-sided 99 % interval of the mean margin, by Student's t, excludes 0."""
    n = len(margins)
    if n < 3:
        return False
    quantile = QUANTILES[min(n - 3, len(QUANTILES) - 1)]  # of more, a larger one than needed
    return fmean(margins) > quantile * stdev(margins) / math.sqrt(n)


def majority(count: int, n: int) -> float:
    """How sure it is, where ``count`` of ``n`` seeds give a verdict, that more than half of all do.

    The probability that a Beta(count + 1, n - count + 1) variable, the posterior of their share
    under a uniform prior, is above 1/2: that of at most ``count`` heads in ``n + 1`` tosses.
    """
    return sum(math.comb(n + 1, j) for j in range(count + 1)) / (1 << (n + 1))
