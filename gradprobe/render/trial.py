"""A trial → its line: the rate, the first loss, a small curve, the last loss and the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from gradprobe.measure.measurement import STEPS, Course, Outcome, Trial, rate_of
from gradprobe.numbers import fraction, number, plural
from gradprobe.render.canvas import BAD, DOUBTFUL, FAINT, GOOD, Style, wrapped
from gradprobe.verdict.report import Report

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.:-=+*#"
_WIDTH = 8


def trial_lines(report: Report, style: Style, everything: bool = False) -> list[Text]:
    """``tried   SGD 0.03  2.30 ▇▆▅▄▃▂▁▁ 0.01 in 34 steps``, and what it means.

    Args:
        everything: a line for each of the other rates too, with what became of it.
    """
    trial = report.trial
    if trial is None:
        return []
    if trial.reason:
        story = f"not tried: {trial.reason}"
        return [Text(line, style=FAINT) for line in wrapped(style.safe(story), style, 0)]
    best = trial.best or trial.courses[0]
    lines = [Text(line) for line in wrapped(_course(best, style), style, 8)]
    lines[0] = Text("tried   ", style=f"bold {_colour(trial)}") + lines[0][8:]
    others = [course for course in trial.courses if course is not best] if everything else []
    notes = [f"{_course(course, style)}: {course.outcome}" for course in others]
    notes += [_outcome(report, trial), _rates(trial)]
    faint = [line for note in notes if note for line in wrapped(style.safe(note), style, 8)]
    return lines + [Text(line, style=FAINT) for line in faint]


def _course(course: Course, style: Style) -> str:
    first, last = course.losses[0], course.losses[-1]
    bars = curve(course.losses, _ASCII_BARS if style.ascii else _BARS)
    end = f"{number(last)} in {plural(course.steps, 'step')}"
    return f"{rate_of(course)}  {number(first)} {bars} {end}"


def curve(losses: Sequence[float], bars: str = _BARS) -> str:
    """The losses in at most 8 characters from ``bars``, the lowest of which is 0."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    most = max(finite, default=0.0) or 1.0
    count = min(_WIDTH, len(finite))
    picked = [finite[round(i * (len(finite) - 1) / max(1, count - 1))] for i in range(count)]
    return "".join(bars[min(len(bars) - 1, int(max(0.0, x) / most * len(bars)))] for x in picked)


def _outcome(report: Report, trial: Trial) -> str:
    """``predicted 6 %, tried: learns (SGD 0.03, 21 steps); 31 % by both``"""
    chance = report.training.probability if report.training else None
    predicted = f"predicted {fraction(chance.sgd)}, " if chance else ""
    if trial.learned:
        only = "only Adam learns" if trial.only_adam else "learns"
        what = f"{only} ({rate_of(trial.learned)}, {plural(trial.learned.steps, 'step')})"
    elif trial.cut:
        what = "time ran out, so the prediction stands"
    elif not trial.failed:
        what = f"not learned within {STEPS} steps, though the loss falls: the prediction stands"
    else:
        what = f"does not learn at any of {len(trial.courses)} rates"
    after = report.training.after_trial if report.training else None
    together = f"; {fraction(after.sgd)} by both" if after else ""
    return f"{predicted}tried: {what}{together}"


def _rates(trial: Trial) -> str:
    """Which rates work, with the batch that they hold for."""
    worked, largest = trial.learned, trial.largest
    batch = f"{'your own' if trial.own else 'a'} batch of {trial.samples}"
    told = [f"rate that worked: {rate_of(worked)}"] if worked else []
    if largest:
        told.append(f"largest that did not diverge: {rate_of(largest)}")
    elif all(course.outcome is Outcome.DIVERGED for course in trial.courses):
        told.append("every rate diverged")
    return f"{'; '.join(told)} (of {batch})" if told else ""


def _colour(trial: Trial) -> str:
    if trial.learned:
        return DOUBTFUL if trial.only_adam else GOOD
    return DOUBTFUL if trial.cut else BAD
