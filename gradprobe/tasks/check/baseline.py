"""The findings that are known and pass, and the reaches that may not get worse.

A baseline names a finding by its rule and row, and a target by its path from the baseline's own
directory, so that lines may move and the check may run from anywhere.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gradprobe.errors import InputError
from gradprobe.measure.profile import from_one
from gradprobe.numbers import finite, number
from gradprobe.tasks import versioned
from gradprobe.tasks.check.result import CheckResult, Diagnostic, Outcome
from gradprobe.verdict.report import Report
from gradprobe.verdict.rules.rule import Selection
from gradprobe.verdict.rules.table import BY_CODE, BY_NAME

SCHEMA_VERSION = 1
SelectionOf = Callable[[str], Selection]
_NEVER = frozenset({"GP405", "GP501", "GP502", "GP901", "GP902"})  # stand in no baseline


@dataclass(frozen=True, slots=True)
class Known:
    """What a baseline knows of one target."""

    reach: float | None = None
    findings: tuple[str, ...] = ()  # as ``_names`` writes them


@dataclass(frozen=True, slots=True)
class Baseline:
    """The targets by their path from ``root``, the directory of the file."""

    root: str
    targets: Mapping[str, Known] = field(default_factory=dict)

    def path(self, shown: str) -> str:
        """A target's path as the baseline has it."""
        return os.path.relpath(os.path.abspath(shown), self.root).replace(os.sep, "/")


def load(file: str) -> Baseline:
    """Read a baseline.

    Raises:
        InputError: no such file, not a baseline, or one of a newer gradprobe.
    """
    named, hint = f"the baseline {file}", "--write-baseline makes one"
    body = versioned.read(file, "baseline", SCHEMA_VERSION, named=named, hint=hint)
    version = body.get("schema_version") if isinstance(body, dict) else None
    if version != SCHEMA_VERSION or not isinstance(body.get("targets"), dict):
        raise InputError(f"{file} is not a baseline: no schema_version and targets")
    targets = {path: _known(file, path, entry) for path, entry in body["targets"].items()}
    return Baseline(os.path.dirname(os.path.abspath(file)), targets)


def dump(baseline: Baseline) -> str:
    """The baseline as its file's text, sorted, one finding a line: made for a diff."""
    targets = {
        path: {"reach": known.reach, "findings": list(known.findings)}
        for path, known in sorted(baseline.targets.items())
    }
    body = {"schema_version": SCHEMA_VERSION, "targets": targets}
    return json.dumps(body, indent=2, allow_nan=False) + "\n"


def of(result: CheckResult, file: str) -> Baseline:
    """A baseline that knows everything that ``result`` found."""
    empty = Baseline(os.path.dirname(os.path.abspath(file)))
    return replace(
        empty,
        targets={
            empty.path(outcome.path): _seen(outcome, outcome.report)
            for outcome in result.outcomes
            if outcome.report is not None and outcome.path != "-"
        },
    )


def compare(
    outcome: Outcome, baseline: Baseline, factor: float, selection: Selection
) -> tuple[Diagnostic, ...]:
    """The diagnostics of one target in the light of the baseline.

    Known ones are marked, a reach that got worse by more than ``factor`` is one more, and so is
    each known finding that is not there any more, if its rule was asked.
    """
    known = baseline.targets.get(baseline.path(outcome.path))
    if known is None or outcome.report is None:
        return outcome.diagnostics
    names = _names(outcome.diagnostics)
    marked = tuple(
        replace(one, known=name in known.findings)
        for one, name in zip(outcome.diagnostics, names, strict=True)
    )
    missing = [name for name in known.findings if name not in names]
    stale = [name for name in missing if _asked(name, selection, outcome.report)]
    worse = _regression(outcome, outcome.report, known, factor)
    return (*marked, *worse, *(_stale(outcome.path, name) for name in stale))


def gone(baseline: Baseline, file: str) -> tuple[Diagnostic, ...]:
    """A diagnostic for each target of the baseline whose file is not there any more."""
    return tuple(
        _stale(file, f"{path}, which is gone,")
        for path, known in sorted(baseline.targets.items())
        if not os.path.exists(os.path.join(baseline.root, path))
    )


def pruned(baseline: Baseline, result: CheckResult, selection_of: SelectionOf) -> Baseline:
    """Without what was mended, and with the reaches that got better: the ratchet's next tooth.

    ``selection_of`` a target's path: a rule that was not asked has mended nothing.
    """
    targets = {
        path: known
        for path, known in baseline.targets.items()
        if os.path.exists(os.path.join(baseline.root, path))
    }
    for outcome in result.outcomes:
        path = baseline.path(outcome.path)
        if outcome.report is None or path not in targets:
            continue
        now, old = _seen(outcome, outcome.report), targets[path]
        better = from_one(now.reach) < from_one(old.reach)
        asked = selection_of(outcome.path)
        found = now.findings
        left = tuple(n for n in old.findings if n in found or not _asked(n, asked, outcome.report))
        targets[path] = Known(now.reach if better else old.reach, left)
    return replace(baseline, targets=targets)


def _seen(outcome: Outcome, report: Report) -> Known:
    counted = [one for one in outcome.diagnostics if one.ignored is None]
    return Known(finite(report.reach), tuple(n for n in _names(counted) if n[:5] not in _NEVER))


def _names(diagnostics: Iterable[Diagnostic]) -> list[str]:
    """``GP201 1.3``, and ``GP201 1.3 #2`` for a second one; an empty name for what is ignored."""
    seen: Counter[str] = Counter()
    names = []
    for one in diagnostics:
        name = f"{one.rule} {one.row}" if one.row else one.rule
        if one.ignored is not None:
            names.append("")
            continue
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return names


def _regression(
    outcome: Outcome, report: Report, known: Known, factor: float
) -> tuple[Diagnostic, ...]:
    before, now = from_one(known.reach), from_one(report.reach)
    if not math.isfinite(before) or now - before <= math.log(factor):
        return ()
    times = number(math.exp(min(700.0, now - before)))
    first = report.profile.trunk[0]
    rule = BY_NAME["regression"]
    message = (
        f"the reach was {number(known.reach)} and is {number(report.reach)}: {times} times "
        f"further from 1, {number(factor)} are allowed"
    )
    advice = "undo what strangles the gradient, or accept it: --write-baseline"
    place = (first.line or 1, first.column or 1, first.name)
    return (Diagnostic(outcome.path, rule.code, rule.name, rule.severity, message, advice, *place),)


def _asked(name: str, selection: Selection, report: Report) -> bool:
    """Whether the rule was selected, and what it takes to find it was measured."""
    rule = BY_CODE.get(name[:5])
    if rule is None:
        return True
    looked = rule.find or not rule.weigh or report.training
    return selection.holds(rule) and bool(looked)


def _is_reach(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 < value < 1e300


def _stale(path: str, name: str) -> Diagnostic:
    rule = BY_NAME["stale-baseline"]
    message = f"the baseline knows {name} and it is not there any more"
    return Diagnostic(path, rule.code, rule.name, rule.severity, message, "run --prune-baseline")


def _known(file: str, path: str, entry: Any) -> Known:
    reach: Any = entry.get("reach") if isinstance(entry, dict) else ""
    findings = entry.get("findings") if isinstance(entry, dict) else None
    if not (reach is None or _is_reach(reach)) or not isinstance(findings, list):
        raise InputError(f"{file} is not a baseline: '{path}' needs a reach and findings")
    if not all(isinstance(name, str) for name in findings):
        raise InputError(f"{file} is not a baseline: the findings of '{path}' are not words")
    return Known(reach, tuple(findings))
