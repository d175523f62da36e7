"""What a change was measured to do, and whether a network that measures so will train."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gradprobe.errors import GradprobeError
from gradprobe.numbers import from_one
from gradprobe.spec.options import ProbeOptions
from gradprobe.verdict.report import Report, Severity, Verdict

_INFORMING = "GP4"  # the rules below this code make the verdict, the others inform
_SKIPS = frozenset({"residual", "concat", "TransformerEncoderLayer"})  # kinds of layer with one
DEEP = 30  # a stack with more rows of weights without a skip is hard to train
NO_EDIT = "its code is not edited"  # the obstacle of what is no spec
MOST_PLAIN = 50  # a stack with more of them is never called mended


class Bar(NamedTuple):
    """What a healthy network must keep to: its reach, and its input dependence at the top."""

    low: float
    high: float
    dependence: float


# Both are drawn from benchmarks/trainability/outcomes.jsonl, see benchmarks/fix.py. LEFT_ALONE is
# for the network as it came and lets pass what trained; MENDED is stricter.
LEFT_ALONE = {
    "skip": Bar(1e-2, 1e2, 1e-3),
    "plain": Bar(1e-2, 1e2, 1e-2),
    "deep": Bar(0.3, 40, 0.8),
}
MENDED = {"skip": Bar(0.1, 1e2, 0.1), "plain": Bar(0.1, 10, 0.1), "deep": Bar(0.3, 10, 0.9)}


class Probed(NamedTuple):
    """One probe, as far as a fix is judged by it."""

    verdict: Verdict
    reach: float | None
    dependence: float | None  # input dependence of the trunk's last row with weights
    counted: bool  # whether a finding that makes the verdict is not ignored by the spec
    path: str  # a key of the tables of bars
    plain_rows: int


class Trial(NamedTuple):
    """One network, as it came or with a change, probed once for each seed."""

    name: str
    measured: tuple[Probed, ...]
    sound: bool
    doubt: str = ""  # the reason where it is not sound
    learned: str = ""  # of a change that is sound: at which rate it learned one batch by heart

    @property
    def worst(self) -> Probed:
        """The measurement with the gravest verdict; of equals, whose reach is farthest from 1."""
        order = list(Verdict)
        return max(self.measured, key=lambda m: (order.index(m.verdict), from_one(m.reach)))

    @property
    def dependence(self) -> float | None:
        """The least of all seeds."""
        return min((m.dependence for m in self.measured if m.dependence is not None), default=None)


@dataclass(frozen=True, slots=True)
class Fix:
    """What ``gradprobe fix`` found out about one target.

    ``after`` is the trial of the change that was chosen, ``None`` where there was nothing to mend
    or nothing that mended it; ``diff`` is empty where the text could not be edited safely.
    """

    target: str
    seeds: tuple[int, ...]
    before: Trial
    tried: tuple[Trial, ...] = ()
    after: Trial | None = None
    diff: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()  # the change in words, one line each
    text: str = ""  # the whole file as it should be
    obstacle: str = ""  # why there is no diff
    writable: bool = False  # whether there is a file to write to
    written: bool = False

    @property
    def status(self) -> str:
        """``healthy``, ``written``, ``found``, ``by-hand`` or ``not-found``."""
        if self.before.sound:
            return "healthy"
        if self.written:
            return "written"
        if self.after is None:
            return "not-found"
        return "found" if self.text else "by-hand"


def measurement(report: Report) -> Probed:
    """The numbers of a report by which a fix is judged."""
    trunk = report.profile.trunk
    weighty = [row for row in trunk if any(p.dimensions > 1 for p in row.parameters)]
    skips = sum(not _SKIPS.isdisjoint(row.contains) for row in weighty)
    plain = len(weighty) - skips
    path = "skip" if skips > plain else ("deep" if plain > DEEP else "plain")
    dependence = weighty[-1].input_dependence if weighty else None
    grave = [f for f in report.findings if f.severity >= Severity.WARNING and f.rule < _INFORMING]
    counted = any(finding.ignored is None for finding in grave)
    return Probed(report.verdict, report.reach, dependence, counted, path, plain)


def needs_mending(measured: Probed) -> str:
    """Why a network needs mending, or an empty string: findings, or a doubt that rules leave.

    What its author ignores with a reason is left alone.
    """
    if measured.verdict is not Verdict.HEALTHY:
        return str(measured.verdict) if measured.counted else ""
    return doubt(measured, LEFT_ALONE)


def judged(name: str, measured: list[Probed], reason: Callable[[Probed], str]) -> Trial:
    """A trial that is sound where ``reason`` finds none against any of its measurements."""
    doubts = [reason(probed) for probed in measured]
    return Trial(name, tuple(measured), not any(doubts), next(filter(None, doubts), ""))


def tried(
    name: str, probes: Iterable[ProbeOptions], measure: Callable[[ProbeOptions], Probed]
) -> Trial | None:
    """A trial that ends at the first seed that fails; ``None`` where the change does not fit."""
    measured: list[Probed] = []
    for probe in probes:
        try:
            measured.append(measure(probe))
        except GradprobeError:
            return None
        if failing(measured[-1]):
            break
    return judged(name, measured, failing)


def failing(measured: Probed) -> str:
    """Why a change is no fix, or an empty string: healthy, and by the stricter bars as well."""
    healthy = measured.verdict is Verdict.HEALTHY
    return doubt(measured, MENDED) or ("" if healthy else str(measured.verdict))


def doubt(measured: Probed, bars: dict[str, Bar]) -> str:
    """Why a network may not train though its verdict is healthy, or an empty string."""
    bar = bars[measured.path]
    reach, dependence = measured.reach, measured.dependence
    if bars is MENDED and measured.path == "deep" and measured.plain_rows > MOST_PLAIN:
        return f"{measured.plain_rows} rows without a skip"
    if reach is not None and not bar.low <= reach <= bar.high:
        return f"reach outside {bar.low:g} to {bar.high:g}" + _deep(measured)
    if dependence is not None and dependence < bar.dependence:
        return f"input dependence below {bar.dependence:g}" + _deep(measured)
    return ""


def _deep(measured: Probed) -> str:
    return f", with {measured.plain_rows} rows without a skip" if measured.path == "deep" else ""
