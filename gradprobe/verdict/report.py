"""What is said of a profile, as values: findings, verdict, report. No torch, no formatting."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from html import escape
from importlib import import_module
from statistics import median_low
from typing import TYPE_CHECKING, NamedTuple

from gradprobe.measure.measurement import Cure, Trial
from gradprobe.measure.profile import GradientProfile, RowProfile
from gradprobe.theory.moments import Theory
from gradprobe.verdict.signals import Signals

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes


class Verdict(StrEnum):
    """What becomes of the gradient, worst last."""

    HEALTHY = "healthy"
    WEAK = "weak"
    UNMEASURED = "unmeasured"  # nothing was seen by which it could be judged
    VANISHING = "vanishing"
    EXPLODING = "exploding"
    SHATTERED = "shattered"  # only a second look tells
    DOES_NOT_LEARN = "does-not-learn"  # only a trial tells
    DEAD = "dead"
    DISCONNECTED = "disconnected"
    NON_FINITE = "non-finite"


class Severity(IntEnum):
    """How much a finding matters; the order is what ``--fail-on`` compares."""

    INFO = 0
    WARNING = 1
    ERROR = 2

    def __str__(self) -> str:
        return self.name.lower()


class Probability(NamedTuple):
    """That a network trains, under SGD and under the better of SGD and Adam."""

    sgd: float
    adam: float


class Training(NamedTuple):
    """Whether the network will train: the calibrated verdict, or the reason why there is none."""

    signals: Signals | None = None
    probability: Probability | None = None
    margin: float | None = None  # natural log of the odds from the nearest other verdict
    reason: str | None = None
    failed: bool = False  # the second look itself: another run may get further
    after_trial: Probability | None = None  # by the second model, where there was a whole trial


class Spread(NamedTuple):
    """Of what was measured at several seeds; the median is one of the values."""

    median: float
    low: float
    high: float


class Repeats(NamedTuple):
    """What became of one target at several seeds, in the order in which they were probed."""

    seeds: tuple[int, ...]
    verdicts: tuple[Verdict, ...]
    reaches: tuple[float | None, ...]
    probabilities: tuple[Probability | None, ...]  # that it trains, on request
    settled: bool  # whether further seeds would hardly change the most common verdict

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many seeds gave each verdict, as ``tally``."""
        return tally(self.verdicts)

    @property
    def stability(self) -> float:
        """The share of the most common verdict."""
        return max(self.counts.values()) / len(self.seeds)

    @property
    def reach(self) -> Spread | None:
        """Of the finite reaches; ``None`` where there are none."""
        return spread(self.reaches)

    @property
    def chances(self) -> tuple[Spread, Spread] | None:
        """Of the probabilities that it trains: under SGD, and under the better of SGD and Adam."""
        present = [p for p in self.probabilities if p is not None]
        sgd, adam = spread([p.sgd for p in present]), spread([p.adam for p in present])
        return (sgd, adam) if sgd and adam else None


def tally(verdicts: Iterable[Verdict]) -> dict[Verdict, int]:
    """How often each verdict is there, the most common first; of equals the graver."""
    order = list(Verdict)
    counts = Counter(verdicts)
    common = sorted(counts, key=lambda verdict: (counts[verdict], order.index(verdict)))
    return {verdict: counts[verdict] for verdict in reversed(common)}


def spread(values: Sequence[float | None]) -> Spread | None:
    """Median, least and greatest of the finite values."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return Spread(median_low(finite), min(finite), max(finite)) if finite else None


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule has to say about one row, or (``row`` is ``None``) about the network."""

    rule: str
    name: str
    severity: Severity
    message: str
    advice: str
    row: str | None = None
    line: int | None = None
    value: float | None = None
    threshold: float | None = None
    ignored: str | None = None  # the reason given, where the rule is to be ignored
    column: int | None = None
    certainty: str = ""  # how sure it is, in a word; of notes nothing
    cures: tuple[Cure, ...] = ()  # what the advice is about, where that can be told by kind


@dataclass(frozen=True, slots=True)
class Report:
    """Profile, findings and verdict: the one object that every renderer reads."""

    target: str
    profile: GradientProfile
    findings: tuple[Finding, ...]
    verdict: Verdict
    config: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None  # what the spec calls the network
    theory: Theory | None = None  # on request
    training: Training | None = None  # on request
    trial: Trial | None = None  # on request
    repeats: Repeats | None = None  # on request

    @property
    def rows(self) -> tuple[RowProfile, ...]:
        """The profile's rows, in the order of the calls."""
        return self.profile.rows

    @property
    def reach(self) -> float | None:
        """The profile's reach: 1 at the top; ``None`` where undefined."""
        return self.profile.reach

    @property
    def decay(self) -> float | None:
        """The profile's decay: the factor per row, going back."""
        return self.profile.decay

    @property
    def healthy(self) -> bool:
        """Whether no finding that counts is an error."""
        return not self.fails(Severity.ERROR)

    def fails(self, fail_on: Severity) -> bool:
        """Whether a finding that is not ignored is at or above ``fail_on``."""
        return any(f.severity >= fail_on and f.ignored is None for f in self.findings)

    def to_html(self) -> str:
        """The page that ``gradprobe probe --html FILE`` writes: one file that needs no network."""
        # The renderers stand on a floor above, and are looked up where one is wanted.
        page = import_module("gradprobe.render.html.page").report_page(self)
        return str(page)

    def to_pandas(self) -> pandas.DataFrame:
        """A table of pandas, a line a row: the columns of ``--format csv``, and of ``blocks=True``.

        Raises:
            InputError: pandas is missing.
        """
        frame: pandas.DataFrame = import_module("gradprobe.render.frame").render_frame(self)
        return frame

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the reach over the rows into ``ax``, or into new axes of matplotlib's pyplot.

        Raises:
            InputError: matplotlib is missing.
        """
        axes: Axes = import_module("gradprobe.render.figure").plot([self], ax)
        return axes

    def _repr_html_(self) -> str:
        """What a notebook shows: the page in a frame, whose style and script stay inside."""
        frame = 'width="100%" height="640" frameborder="0" sandbox="allow-scripts"'
        return f'<iframe {frame} srcdoc="{escape(self.to_html())}"></iframe>'

    def __str__(self) -> str:
        head = f"{self.target}: {self.verdict}"
        lines = [f"  {f.rule} {f.name}: {f.message} {f.advice}" for f in self.findings]
        return "\n".join([head, *lines])
