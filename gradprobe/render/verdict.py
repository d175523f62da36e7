"""Report → its verdict in a sentence, for who has never seen the words, and its reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.text import Text

from gradprobe.measure.profile import GradientProfile
from gradprobe.numbers import fraction, number, plural
from gradprobe.render.canvas import BAD, FAINT, VERDICT_COLOURS, Style, folded, wrapped
from gradprobe.verdict.calibration import contributions, outlook
from gradprobe.verdict.causes import CAUSES
from gradprobe.verdict.diagnose import decides
from gradprobe.verdict.report import Probability, Report, Verdict
from gradprobe.verdict.signals import Signals

_FAR = 1000.0  # the calibration has not seen enough to tell larger factors of the odds apart
_WEIGHTY = -0.5  # of log odds: what takes less is not told
_INDENT = 8

_REACH_ALONE = "that is by reach alone, --deep says how likely it trains"

# What a verdict means, where that is not how much of the gradient arrives.
_MEANINGS = {
    Verdict.UNMEASURED: "nothing was seen to judge it by",
    Verdict.SHATTERED: "a gradient arrives, and hardly a step along it helps",
    Verdict.DOES_NOT_LEARN: "no rate brings it to learn one batch by heart",
    Verdict.DEAD: "somewhere the gradient is exactly zero",
    Verdict.DISCONNECTED: "some of its weights cannot learn",
    Verdict.NON_FINITE: "there is NaN or infinity in it",
}


def verdict_lines(report: Report, style: Style) -> list[Text]:
    """The verdict, what it means, and how likely such a network is to train."""
    verdict, story = str(report.verdict), verdict_story(report)
    whole = f"{verdict}: {story}" if story else verdict
    head, *rest = folded(whole, style.width, later=" " * _INDENT)
    colour = VERDICT_COLOURS.get(report.verdict, BAD)
    first = Text.assemble((verdict, f"bold {colour}"), head[len(verdict) :])
    return [first, *map(Text, rest)]


def verdict_story(report: Report) -> str:
    """``the gradient that reaches the first layer is 0.48 of what leaves the last one, …``"""
    if report.verdict is Verdict.UNMEASURED:
        return _MEANINGS[report.verdict]
    chance = report.training.probability if report.training else None
    parts = [
        _MEANINGS.get(report.verdict, ""),
        ", ".join(filter(None, (_arrival(report.profile), _course(report.profile)))),
        _chance(chance) if chance else "",
        _REACH_ALONE if _is_weak_by_reach(report) else "",
    ]
    return "; ".join(filter(None, parts))


def _is_weak_by_reach(report: Report) -> bool:
    found = any(finding.name == "weak" for finding in report.findings)
    return report.verdict is Verdict.WEAK and not report.training and found


def _arrival(profile: GradientProfile) -> str:
    """How much of the gradient comes from one end of the trunk to the other."""
    reach = profile.reach
    if reach is None or not math.isfinite(reach) or not profile.steps:
        return ""
    first = f"first {'layer' if profile.unit == 'row' else profile.unit}"
    if reach == 0:
        return f"nothing of the gradient reaches the {first}"
    size = number(reach)
    share = "as large as" if float(size.replace(",", "")) == 1 else f"{size} of"
    share = f"{size} times" if share.endswith("of") and reach > 1 else share
    return f"the gradient that reaches the {first} is {share} what leaves the last one"


def _course(profile: GradientProfile) -> str:
    """``×0.577 per row over 50 rows, halving every 1.26 rows``"""
    decay, half_life, unit = profile.decay, profile.half_life, profile.unit
    if not decay or decay == 1 or profile.steps < 2:
        return ""
    story = f"×{number(decay)} per {unit} over {plural(profile.steps, unit)}"
    if half_life and abs(half_life) < 1000:
        verb = "halving" if half_life > 0 else "doubling"
        story += f", {verb} every {number(abs(half_life))} {unit}s"
    return story


def _chance(chance: Probability) -> str:
    sgd, adam = map(fraction, chance)
    story = f"{sgd} of small networks like it train"
    return story if sgd == adam else f"{story} with SGD, {adam} with SGD or Adam"


def training_lines(report: Report, style: Style) -> list[Text]:
    """With --deep: what weighs against it, where it is not said to train; or why nobody can say."""
    training = report.training
    if training is None:
        return []
    if training.probability is None or training.signals is None:
        if any(finding.name == "unweighed" for finding in report.findings):
            return []
        notes, indent = [f"no probability that it trains: {training.reason}"], 0
    else:
        limits = report.config.get("thresholds")
        notes, indent = [], _INDENT
        if isinstance(limits, Mapping) and not decides(training, limits):
            notes.append("how likely it is to train does not decide here: a threshold was set")
        notes += _reasons(training.probability, training.signals, style.verbose)
    return [
        Text(line, FAINT) for note in notes for line in wrapped(style.safe(note), style, indent)
    ]


def _reasons(chance: Probability, signals: Signals, verbose: bool) -> list[str]:
    """What takes most from the odds; ``verbose``: also of what trains, and how near another is."""
    _, trains, margin = outlook(chance)
    against = _against(signals) if verbose or not trains else []
    reasons = [f"against it: {', '.join(against)}"] if against else []
    if verbose:
        factor = math.exp(margin)
        far = number(factor) if factor < _FAR else f"{_FAR:g} or more"
        reasons.append(f"odds ×{far} from the nearest other verdict")
    return reasons


def _against(signals: Signals) -> list[str]:
    """What takes most from the odds under SGD, in words, the worst first.

    Shattering is the coherence weighed by the skips: they are told as one.
    """
    added = contributions(signals)
    taken = {cause: added[cause][0] for cause in CAUSES}
    taken["coherence"] += taken.pop("shattering")
    worst = sorted((cause for cause in taken if taken[cause] <= _WEIGHTY), key=taken.__getitem__)
    return [CAUSES[cause].short(getattr(signals, cause)) for cause in worst]
