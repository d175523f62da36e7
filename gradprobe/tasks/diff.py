"""Two reports of one network → what changed between them, and whether it got worse."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple

from gradprobe.errors import InputError
from gradprobe.measure.profile import GradientProfile, RowProfile, RowStatus
from gradprobe.tasks.check.baseline import regression, worsened
from gradprobe.verdict.report import Finding, Report, Severity, Verdict

ADDED, REMOVED = "added", "removed"
_NOISE = 1e-3  # relative: what another machine's order of summation stays below
_FORWARD = ("activation_rms", "input_dependence", "zero_fraction")
_ORDER = list(Verdict)


class RowChange(NamedTuple):
    """One row before and after; ``what`` names the things that are not as they were."""

    before: RowProfile | None
    after: RowProfile | None
    reaches: tuple[float | None, float | None]
    what: tuple[str, ...] = ()

    @property
    def row(self) -> RowProfile:
        """The row as it is, or as it was where it is gone."""
        row = self.after or self.before
        assert row is not None
        return row


class Parting(NamedTuple):
    """Where two networks part first: on the way forward, or else on the gradient's way back."""

    row: str
    what: tuple[str, ...]
    back: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed from one report to the other."""

    before: Report
    after: Report
    rows: tuple[RowChange, ...]  # of level 0, those that did not change too
    parting: Parting | None
    gone: tuple[Finding, ...]
    new: tuple[Finding, ...]
    worse: tuple[str, ...]  # why it got worse, a sentence each

    @property
    def changed(self) -> tuple[RowChange, ...]:
        return tuple(change for change in self.rows if change.what)


def differences(
    before: Sequence[Report], after: Sequence[Report], factor: float
) -> tuple[Difference, ...]:
    """The difference of each pair: of the only two, or of those of the same target.

    Args:
        factor: by how much a reach may get further from 1.

    Raises:
        InputError: no target is on both sides, or one stands twice on a side.
    """
    if len(before) == len(after) == 1:
        return (difference(before[0], after[0], factor),)
    sides = [{report.target: report for report in reports} for reports in (before, after)]
    if len(sides[0]) < len(before) or len(sides[1]) < len(after):
        raise InputError("a target stands twice on one side")
    if sides[0].keys() != sides[1].keys():
        alone = min(sides[0].keys() ^ sides[1].keys())
        hint = "both sides hold the same targets, or one each"
        raise InputError(f"{alone} is on one side alone", hint=hint)
    old, new = sides
    return tuple(difference(old[target], new[target], factor) for target in old)


def difference(before: Report, after: Report, factor: float) -> Difference:
    """What changed from ``before`` to ``after``."""
    rows = tuple(_rows(before.profile, after.profile))
    gone, new = _unmatched(before, after), _unmatched(after, before)
    return Difference(
        before=before,
        after=after,
        rows=rows,
        parting=_parting(rows),
        gone=gone,
        new=new,
        worse=tuple(_worse(before, after, new, factor)),
    )


def _rows(before: GradientProfile, after: GradientProfile) -> Iterator[RowChange]:
    old = [row for row in before.rows if row.level == 0]
    new = [row for row in after.rows if row.level == 0]
    matcher = SequenceMatcher(None, [r.name for r in old], [r.name for r in new], autojunk=False)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            for a, b in zip(old[i:i_end], new[j:j_end], strict=True):
                reaches = (before.reach_of(a), after.reach_of(b))
                yield RowChange(a, b, reaches, tuple(_changes(a, b, reaches)))
            continue
        for a in old[i:i_end]:
            yield RowChange(a, None, (before.reach_of(a), None), (REMOVED,))
        for b in new[j:j_end]:
            yield RowChange(None, b, (None, after.reach_of(b)), (ADDED,))


def _changes(
    before: RowProfile, after: RowProfile, reaches: tuple[float | None, float | None]
) -> Iterator[str]:
    if before.kind != after.kind:
        yield "layer"
    if before.size != after.size:
        yield "parameters"
    if before.status is not after.status:
        yield "status"
    if any(_apart(getattr(before, name), getattr(after, name)) for name in _FORWARD):
        yield "output"
    if _apart(before.gradient_norm, after.gradient_norm):
        yield "gradient"
    if _apart(*reaches):
        yield "reach"


def _apart(before: float | None, after: float | None) -> bool:
    """Whether two numbers differ by more than noise; one that is not finite equals its like."""
    if before is None or after is None:
        return before is not after
    if not (math.isfinite(before) and math.isfinite(after)):
        return math.isfinite(before) or math.isfinite(after)
    return abs(before - after) > _NOISE * max(abs(before), abs(after))


def _parting(rows: Sequence[RowChange]) -> Parting | None:
    for change in rows:
        forward = tuple(
            what
            for what in change.what
            if what not in ("gradient", "reach", "status") or _stops(change, what)
        )
        if forward:
            return Parting(change.row.name, forward, back=False)
    back = next((change for change in reversed(rows) if change.what), None)
    return Parting(back.row.name, back.what, back=True) if back else None


def _stops(change: RowChange, what: str) -> bool:
    """Whether a row of another status was not called, before or after: that is seen forward."""
    statuses = [row.status for row in (change.before, change.after) if row]
    return what == "status" and RowStatus.NOT_RUN in statuses


def _unmatched(report: Report, other: Report) -> tuple[Finding, ...]:
    """The findings that count and that the other report has not, by rule and row."""
    known = {(finding.rule, finding.row) for finding in other.findings if finding.ignored is None}
    return tuple(
        finding
        for finding in report.findings
        if finding.ignored is None and (finding.rule, finding.row) not in known
    )


def _worse(before: Report, after: Report, new: Sequence[Finding], factor: float) -> Iterator[str]:
    graver = _ORDER.index(after.verdict) > _ORDER.index(before.verdict)
    if graver:
        yield f"the verdict was {before.verdict} and is {after.verdict}"
    if times := regression(before.reach, after.reach, factor):
        yield worsened(before.reach, after.reach, times)
    rules = {finding.rule for finding in before.findings}
    for finding in () if graver else new:
        if finding.severity is Severity.ERROR and finding.rule not in rules:
            yield f"{finding.rule} {finding.name} was not there"
