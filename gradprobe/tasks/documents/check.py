"""The JSON of ``check``: every target with its report and its diagnostics, and a summary."""

from __future__ import annotations

from typing import Annotated, Self

from msgspec import Meta

from gradprobe.tasks.check.result import CheckResult, Diagnostic, Outcome
from gradprobe.tasks.documents.base import (
    SCHEMA_VERSION,
    Code,
    Count,
    Document,
    Position,
    SeverityWord,
    Version,
)
from gradprobe.tasks.documents.report import ReportDocument


class DiagnosticDocument(Document):
    path: str
    line: Position
    column: Position
    rule: Annotated[str, Meta(pattern="^GP[0-9]{3}$")]
    name: str
    severity: SeverityWord
    row: str | None
    message: str
    advice: str
    ignored: str | None
    known: bool
    fingerprint: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]

    @classmethod
    def of(cls, diagnostic: Diagnostic) -> Self:
        return cls.taken(diagnostic, severity=str(diagnostic.severity))


class SummaryDocument(Document):
    targets: Count
    errors: Count
    warnings: Count
    infos: Count
    ignored: Count
    known: Count


class TargetDocument(Document):
    path: str
    exit_code: Code
    diagnostics: list[DiagnosticDocument]
    report: ReportDocument | None

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        return cls.taken(
            outcome,
            diagnostics=[DiagnosticDocument.of(diagnostic) for diagnostic in outcome.diagnostics],
            report=ReportDocument.of(outcome.report) if outcome.report else None,
        )


class CheckDocument(Document):
    schema_version: Version
    gradprobe: str
    exit_code: Code
    summary: SummaryDocument
    targets: list[TargetDocument]

    @classmethod
    def of(cls, result: CheckResult) -> Self:
        return cls.taken(
            result,
            schema_version=SCHEMA_VERSION,
            gradprobe=result.version,
            summary=SummaryDocument.taken(result.counts, targets=len(result.outcomes)),
            targets=[TargetDocument.of(outcome) for outcome in result.outcomes],
        )
