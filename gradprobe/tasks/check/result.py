"""What ``gradprobe check`` found in many targets: the one value that every output format reads."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from gradprobe.errors import ExitCode
from gradprobe.verdict.report import Report, Severity


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One line of the check's output: a finding, or why a target has none, at its place.

    ``line`` and ``column`` count from 1 and are 1 where the finding is about the whole network.
    ``fingerprint`` names the finding and not its position: it stays when lines move.
    """

    path: str
    rule: str
    name: str
    severity: Severity
    message: str
    advice: str = ""
    line: int = 1
    column: int = 1
    row: str | None = None
    unit: str = "row"  # what ``row`` names
    excerpt: str = ""  # the line of the file
    certainty: str = ""  # how sure it is, in a word
    ignored: str | None = None  # the reason, where it is to be ignored
    known: bool = False  # the baseline has it
    fingerprint: str = ""

    @property
    def counts(self) -> bool:
        """Whether it may fail the check."""
        return self.ignored is None and not self.known


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one target: its report, or none, and its diagnostics."""

    path: str
    diagnostics: tuple[Diagnostic, ...]
    report: Report | None = None
    exit_code: ExitCode = ExitCode.OK
    fail_on: Severity = Severity.ERROR

    def fails(self, diagnostic: Diagnostic) -> bool:
        """Whether one of its diagnostics makes the check fail."""
        return diagnostic.counts and diagnostic.severity >= self.fail_on


class Counts(NamedTuple):
    """How many diagnostics there are that count, by severity, and how many that do not."""

    errors: int
    warnings: int
    infos: int
    ignored: int
    known: int


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a check a result is: the K-th of N, of one list of targets."""

    number: int
    count: int
    targets: str  # a digest of the whole list, by which parts of one check are known


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Everything that one run of the check found, in the order of the paths."""

    outcomes: tuple[Outcome, ...]
    version: str  # of gradprobe
    part: Part | None = None  # where it is one

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return tuple(d for outcome in self.outcomes for d in outcome.diagnostics)

    @property
    def counts(self) -> Counts:
        counted = Counter(d.severity for d in self.diagnostics if d.counts)
        ignored = sum(d.ignored is not None for d in self.diagnostics)
        known = sum(d.known and d.ignored is None for d in self.diagnostics)
        errors, warnings, infos = (counted[s] for s in sorted(Severity, reverse=True))
        return Counts(errors, warnings, infos, ignored, known)

    @property
    def exit_code(self) -> ExitCode:
        """The highest of the targets' own."""
        return max((outcome.exit_code for outcome in self.outcomes), default=ExitCode.OK)


def with_fingerprints(
    diagnostics: Iterable[Diagnostic], target: str = ""
) -> tuple[Diagnostic, ...]:
    """The diagnostics of one target, each with a hash of the target, or else its path, and of its
    rule, row and number.

    The number counts those that the first three do not tell apart.
    """
    seen: Counter[tuple[str, str, str | None]] = Counter()
    marked = []
    for diagnostic in diagnostics:
        path, rule, row = key = (target or diagnostic.path, diagnostic.rule, diagnostic.row)
        text = "\0".join([path, rule, row or "", str(seen[key])])
        seen[key] += 1
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        marked.append(replace(diagnostic, fingerprint=digest[:32]))
    return tuple(marked)
