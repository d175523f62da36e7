"""The JSON of ``fix``: the network as it came, every change that was tried, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from gradprobe.tasks.documents.base import (
    SCHEMA_VERSION,
    Count,
    Document,
    Number,
    Version,
    Versions,
)
from gradprobe.tasks.fix.trials import Fix, Trial
from gradprobe.verdict.report import Verdict


class MeasuredDocument(Document):
    verdict: Verdict
    reach: Number
    input_dependence: Number


class TrialDocument(Document):
    name: str
    sound: bool
    doubt: str | None
    measured: list[MeasuredDocument]

    @classmethod
    def of(cls, trial: Trial) -> Self:
        return cls.taken(
            trial,
            doubt=trial.doubt or None,
            measured=[
                MeasuredDocument(probed.verdict, probed.reach, probed.dependence)
                for probed in trial.measured
            ],
        )


class FixDocument(Document):
    schema_version: Version
    target: str
    status: Literal["healthy", "written", "found", "by-hand", "not-found"]
    seeds: list[Count]
    before: TrialDocument
    after: TrialDocument | None
    steps: list[str]
    diff: list[str] | None
    obstacle: str | None
    tried: list[TrialDocument]
    versions: Versions

    @classmethod
    def of(cls, fix: Fix, versions: Mapping[str, str]) -> Self:
        return cls.taken(
            fix,
            schema_version=SCHEMA_VERSION,
            before=TrialDocument.of(fix.before),
            after=TrialDocument.of(fix.after) if fix.after else None,
            diff=fix.diff or None,
            obstacle=fix.obstacle or None,
            tried=[TrialDocument.of(trial) for trial in fix.tried],
            versions=dict(versions),
        )
