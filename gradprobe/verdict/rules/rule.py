"""What a rule is, what it finds, how rules are chosen, and what the families of rules share."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import NamedTuple

from gradprobe.measure.measurement import Cure, Trial
from gradprobe.measure.profile import GradientProfile, ParameterProfile, RowProfile
from gradprobe.verdict.report import Report, Severity, Training, Verdict

Thresholds = Mapping[str, float]


class Clue(NamedTuple):
    """What a rule found: a finding without the rule's own name, code and severity."""

    message: str
    advice: str | tuple[Cure, ...]  # cures get the words of the target's language
    row: RowProfile | None = None
    value: float | None = None
    threshold: float | None = None


Finder = Callable[[GradientProfile, Thresholds], Iterator[Clue]]


class Rule(NamedTuple):
    """One rule: its code, name, severity, what finds it, and the verdict that it leads to, if any.

    ``find`` reads the profile alone. ``weigh`` finds it instead where the probability of training
    is known, ``tried`` reads a trial that did not learn, or with Adam only, and ``among`` the
    reports of several seeds. The first of these that there is explains the rule to the user by its
    docstring; ``text`` explains a rule that has none of them.
    """

    code: str
    name: str
    severity: Severity
    find: Finder | None = None
    verdict: Verdict | None = None
    weigh: Callable[[GradientProfile, Training], Iterator[Clue]] | None = None
    tried: Callable[[Trial], Iterator[Clue]] | None = None
    among: Callable[[Sequence[Report]], Iterator[Clue]] | None = None
    text: str = ""

    @property
    def explanation(self) -> str:
        """What the rule means and what to do about it, for the user."""
        way = self.find or self.weigh or self.tried or self.among
        return inspect.cleandoc(self.text or (way and way.__doc__) or "")

    def named(self, word: str) -> bool:
        """Whether ``word`` means this rule: its name, its code, or what the code begins with."""
        return word in (self.name, "ALL") or (bool(word) and self.code.startswith(word))


class Selection(NamedTuple):
    """Which rules are asked, by code, name or prefix; the longer word wins, and ``ignore`` a tie.

    As ruff has it: ``select = ["GP1"], ignore = ["GP103"]``.
    """

    select: tuple[str, ...] = ("ALL",)
    ignore: tuple[str, ...] = ()

    def holds(self, rule: Rule) -> bool:
        """Whether the rule is asked."""
        return _closeness(rule, self.select) > _closeness(rule, self.ignore)


def _closeness(rule: Rule, words: Iterable[str]) -> int:
    """How exactly the nearest of ``words`` names the rule; -1 where none does."""
    fitting = [word for word in words if rule.named(word)]
    lengths = [0 if w == "ALL" else 5 if w == rule.name else len(w) for w in fitting]
    return max(lengths, default=-1)


def certainty(severity: Severity, clue: Clue) -> str:
    """How sure a finding is: ``certain`` where nothing was weighed, else by how far it is beyond.

    ``likely`` from a factor of 5 on, of the odds where both are shares; below that ``possible``.
    Notes are no faults and get none.
    """
    value, threshold = clue.value, clue.threshold
    if severity is Severity.INFO:
        return ""
    if value is None or threshold is None or not math.isfinite(value):
        return "certain"
    shares = min(value, threshold) >= 0 and max(value, threshold) <= 1
    value, threshold = (_odds(value), _odds(threshold)) if shares else (value, threshold)
    low, high = sorted((abs(value), abs(threshold)))
    return "likely" if high >= 5 * low else "possible"


def _odds(share: float) -> float:
    return share / (1 - share) if share < 1 else math.inf


# ---- what the families share


def each_tower(find: Finder) -> Finder:
    """A rule on reach, asked of each tower of the network."""

    @wraps(find)
    def found(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
        for part in profile.parts:
            yield from find(part, limits)

    return found


def owners(
    profile: GradientProfile,
) -> Iterator[tuple[RowProfile | None, tuple[ParameterProfile, ...]]]:
    """Each row with its parameters, and those that belong to no row."""
    for row in profile.rows:
        yield row, row.parameters
    yield None, profile.orphans


def listed(names: Iterable[str], most: int = 4) -> str:
    """``a, b, c, d and 3 more``"""
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def at_output(profile: GradientProfile) -> RowProfile | None:
    """The last row that ran; of a scripted model none could be followed."""
    return profile.ran[-1] if profile.ran else None


def ran(profile: GradientProfile) -> tuple[RowProfile, ...]:
    """The rows from the first of the trunk to the last of the network, as far as they ran."""
    rows, trunk = profile.ran, profile.trunk
    return rows[rows.index(trunk[0]) :] if trunk else ()


def cut_row(profile: GradientProfile) -> RowProfile | None:
    """The trunk row that a gradient enters and nothing leaves, if there is one.

    Not where it faded below what its dtype can hold, nor behind a zero-initialised weight that
    wakes up.
    """
    sleeping = any(p.wakes_up for row in profile.rows for p in row.parameters)
    for after, row in _neighbours(ran(profile)):
        if profile.still_zero is None:
            cut = row.gradient_norm == 0 and bool(after.gradient_norm) and not sleeping
        else:
            cut = row.name in profile.still_zero and not _starts_at_zero(profile, row)
        if cut and after.gradient_norm and after.gradient_norm < underflow(profile):
            return None
        if cut:
            return after
    return None


def _starts_at_zero(profile: GradientProfile, row: RowProfile) -> bool:
    """Whether it is a first call that gives nothing but zeros, of a state of zeros.

    Later calls of the same module get a gradient.
    """
    later = [other for other in profile.ran if other.module == row.module and other.call > row.call]
    return row.activation_rms == 0 and any(other.gradient_norm for other in later)


def _neighbours(rows: Sequence[RowProfile]) -> Iterator[tuple[RowProfile, RowProfile]]:
    """Each row, from the last, with each that it reads: that before it, where it is not known."""
    by_name = {row.name: row for row in rows}
    for index in reversed(range(len(rows))):
        row = rows[index]
        if row.feeders is not None:
            yield from ((row, by_name[name]) for name in row.feeders[::-1] if name in by_name)
        elif index:
            yield row, rows[index - 1]


def wakes_later(profile: GradientProfile) -> bool:
    """Whether the trunk's first row gets nothing, and a few steps later it does."""
    if profile.still_zero is None or not profile.trunk:
        return False
    first = profile.trunk[0]
    return first.gradient_norm == 0 and first.name not in profile.still_zero


def underflow(profile: GradientProfile) -> float:
    """Below this norm, a zero one row further on is an underflow and no dead row."""
    return profile.smallest_gradient * 10
