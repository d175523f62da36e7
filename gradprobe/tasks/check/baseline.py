"""The findings that are known and pass, and the reaches that may not get worse.

A baseline names a finding by its rule and row, and a target by its path from the baseline's own
directory, so that lines may move and the check may run from anywhere.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gradprobe.errors import InputError
from gradprobe.numbers import finite, from_one, number
from gradprobe.spec.sources.huggingface import PREFIX
from gradprobe.spec.sources.stack import STACKS
from gradprobe.tasks import versioned
from gradprobe.tasks.check.result import CheckResult, Diagnostic, Outcome
from gradprobe.verdict.report import Report
from gradprobe.verdict.rules.rule import Selection
from gradprobe.verdict.rules.table import BY_CODE, BY_NAME

SCHEMA_VERSION = 1
SelectionOf = Callable[[str], Selection]
_OF_BASELINES = frozenset({"GP501", "GP502"})
_NEVER = _OF_BASELINES | {"GP405", "GP901", "GP902"}  # stand in no baseline


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
        path: {"reach": entry.reach, "findings": list(entry.findings)}
        for path, entry in sorted(baseline.targets.items())
    }
    body = {"schema_version": SCHEMA_VERSION, "targets": targets}
    return json.dumps(body, indent=2, allow_nan=False) + "\n"


def of(result: CheckResult, file: str) -> Baseline:
    """A baseline that knows everything that ``result`` found.

    Raises:
        InputError: the result was held to a baseline already.
    """
    if any(d.known or d.rule in _OF_BASELINES for d in result.diagnostics):
        message = "--write-baseline: these findings were held to another baseline"
        raise InputError(message, hint="check without --baseline")
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
    before = baseline.targets.get(baseline.path(outcome.path))
    if before is None or outcome.report is None:
        return outcome.diagnostics
    names = _names(outcome.diagnostics)
    marked = tuple(
        replace(diagnostic, known=name in before.findings)
        for diagnostic, name in zip(outcome.diagnostics, names, strict=True)
    )
    missing = [name for name in before.findings if name not in names]
    stale = [name for name in missing if _looked_for(name, selection, outcome.report)]
    worse = _regression(outcome, outcome.report, before, factor)
    return (*marked, *worse, *(_stale(outcome.path, name) for name in stale))


def gone(baseline: Baseline, file: str) -> tuple[Diagnostic, ...]:
    """A diagnostic for each target of the baseline whose file is not there any more."""
    return tuple(
        _stale(file, f"{path}, which is gone,")
        for path in sorted(baseline.targets)
        if not _there(baseline, path)
    )


def _there(baseline: Baseline, path: str) -> bool:
    """Whether a target is a file that is there, or the name of code, of a model or of a stack."""
    own = path.replace(PREFIX, "", 1) if re.search(rf"(?:^|/){PREFIX}", path) else path
    named = re.search(r"(?:^|/)[\w.]+:", own) or path.rpartition("/")[2] in STACKS
    files = [own, own.partition("(")[0]] if path.endswith(")") else [own]
    return bool(named) or any(os.path.exists(os.path.join(baseline.root, f)) for f in files)


def pruned(baseline: Baseline, result: CheckResult, selection_of: SelectionOf) -> Baseline:
    """Without what was mended, and with the reaches that got better: the ratchet's next tooth.

    ``selection_of`` a target's path: a rule that was not asked has mended nothing.
    """
    targets = {path: entry for path, entry in baseline.targets.items() if _there(baseline, path)}
    for outcome in result.outcomes:
        path = baseline.path(outcome.path)
        if outcome.report is None or path not in targets:
            continue
        now, old = _seen(outcome, outcome.report), targets[path]
        better = from_one(now.reach) < from_one(old.reach)
        selection = selection_of(outcome.path)
        left = tuple(
            name
            for name in old.findings
            if name in now.findings or not _looked_for(name, selection, outcome.report)
        )
        targets[path] = Known(now.reach if better else old.reach, left)
    return replace(baseline, targets=targets)


def _seen(outcome: Outcome, report: Report) -> Known:
    names = [name for name in _names(outcome.diagnostics) if name and name[:5] not in _NEVER]
    return Known(finite(report.reach), tuple(names))


def _names(diagnostics: Iterable[Diagnostic]) -> list[str]:
    """``GP201 1.3``, and ``GP201 1.3 #2`` for a second one; an empty name for what is ignored."""
    seen: Counter[str] = Counter()
    names = []
    for diagnostic in diagnostics:
        name = f"{diagnostic.rule} {diagnostic.row}" if diagnostic.row else diagnostic.rule
        if diagnostic.ignored is not None:
            names.append("")
            continue
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return names


def regression(before: float | None, now: float | None, factor: float) -> float | None:
    """How many times further a reach is from 1 than it was; ``None`` up to ``factor``."""
    old, new = from_one(before), from_one(now)
    if not math.isfinite(old) or new - old <= math.log(factor):
        return None
    return math.exp(min(700.0, new - old)) if math.isfinite(new) else math.inf


def worsened(before: float | None, now: float | None, times: float) -> str:
    """What became of a reach; of one that is 0, or none, no number says how much worse that is."""
    story = f"the reach was {number(before)} and is {'none' if now is None else number(now)}"
    return f"{story}: {number(times)} times further from 1" if math.isfinite(times) else story


def _regression(
    outcome: Outcome, report: Report, entry: Known, factor: float
) -> tuple[Diagnostic, ...]:
    times = regression(entry.reach, report.reach, factor)
    if times is None:
        return ()
    first = report.profile.trunk[0]
    rule = BY_NAME["regression"]
    allowed = f", {number(factor)} are allowed" if math.isfinite(times) else ""
    message = worsened(entry.reach, report.reach, times) + allowed
    advice = "undo what strangles the gradient, or accept it: --write-baseline"
    place = (first.line or 1, first.column or 1, first.name)
    return (Diagnostic(outcome.path, rule.code, rule.name, rule.severity, message, advice, *place),)


def _looked_for(name: str, selection: Selection, report: Report) -> bool:
    """Whether the rule was selected, and what it takes to find it was measured."""
    rule = BY_CODE.get(name[:5])
    measured = rule is None or rule.find or not rule.weigh or report.training
    return rule is None or (selection.holds(rule) and bool(measured))


def _stale(path: str, name: str) -> Diagnostic:
    rule = BY_NAME["stale-baseline"]
    message = f"the baseline knows {name} and it is not there any more"
    return Diagnostic(path, rule.code, rule.name, rule.severity, message, "run --prune-baseline")


def _known(file: str, path: str, entry: Any) -> Known:
    entry = entry if isinstance(entry, dict) else {}
    reach, findings = entry.get("reach"), entry.get("findings")
    is_number = isinstance(reach, float | int) and not isinstance(reach, bool)
    fits = reach is None or (is_number and 0 <= reach <= sys.float_info.max)  # 0: it is dead
    if not fits or not isinstance(findings, list):
        raise InputError(f"{file} is not a baseline: '{path}' needs a reach and findings")
    if not all(isinstance(name, str) for name in findings):
        raise InputError(f"{file} is not a baseline: the findings of '{path}' are not words")
    return Known(reach, tuple(findings))
