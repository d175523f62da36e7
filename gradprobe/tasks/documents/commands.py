"""The JSON of ``check``, ``paths``, ``sweep`` and ``fix``; that of a report is ``report.py``'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from msgspec import UNSET, Meta, UnsetType

from gradprobe.measure.blocks.profile import BlockProfile, PathProfile
from gradprobe.tasks.check.result import CheckResult, Diagnostic, Outcome
from gradprobe.tasks.curves import Point, Sweep, fit, greatest_healthy
from gradprobe.tasks.documents.base import (
    SCHEMA_VERSION,
    Code,
    Count,
    Document,
    Number,
    Position,
    SeverityWord,
    Version,
    Versions,
)
from gradprobe.tasks.documents.report import JacobianDocument, ReportDocument
from gradprobe.tasks.fix.trials import Fix, Trial
from gradprobe.verdict.report import Verdict
from gradprobe.verdict.rules.rule import Rule
from gradprobe.worker.exchange import encode

# ---- check: every target with its report and its diagnostics, and a summary


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
    certainty: Literal["certain", "likely", "possible", ""] = ""  # of a note nothing

    @classmethod
    def of(cls, diagnostic: Diagnostic) -> Self:
        severity, certainty = str(diagnostic.severity), diagnostic.certainty
        return cls.taken(diagnostic, severity=severity, certainty=certainty)


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


class PartDocument(Document):
    """Of a check of one shard: ``result`` is for ``gradprobe merge``, and is no public format."""

    number: Position
    count: Position
    targets: str  # the same in all parts of one check
    result: str

    @classmethod
    def of(cls, result: CheckResult) -> Self | UnsetType:
        if result.part is None:
            return UNSET
        return cls.taken(result.part, result=encode(replace(result, part=None)))


class CheckDocument(Document):
    schema_version: Version
    gradprobe: str
    exit_code: Code
    summary: SummaryDocument
    targets: list[TargetDocument]
    part: PartDocument | UnsetType = UNSET  # with --shard

    @classmethod
    def of(cls, result: CheckResult) -> Self:
        return cls.taken(
            result,
            part=PartDocument.of(result),
            schema_version=SCHEMA_VERSION,
            gradprobe=result.version,
            summary=SummaryDocument.taken(result.counts, targets=len(result.outcomes)),
            targets=[TargetDocument.of(outcome) for outcome in result.outcomes],
        )


# ---- paths: how much of the gradient comes through paths of each length


class GroupDocument(Document):
    branches: Count
    paths: Count
    norm: Number
    share: Number


class PathsDocument(Document):
    schema_version: Version
    target: str
    row: str
    blocks: Count
    gradient_norm: Number
    mean_length: Number
    effective: Annotated[list[Count], Meta(min_length=2, max_length=2)] | None
    error: Number
    left_out: Number
    groups: list[GroupDocument]
    versions: Versions

    @classmethod
    def of(cls, paths: PathProfile, target: str, versions: Mapping[str, str]) -> Self:
        return cls.taken(
            paths,
            schema_version=SCHEMA_VERSION,
            target=target,
            gradient_norm=paths.total,
            effective=list(paths.effective) if paths.effective else None,
            groups=[
                GroupDocument(branches, paths.paths(branches), norm, share)
                for branches, (norm, share) in enumerate(
                    zip(paths.norms, paths.shares, strict=True)
                )
            ],
            versions=dict(versions),
        )


# ---- block: one block with its real numbers


class BranchLayerDocument(Document):
    name: str
    kind: str
    rms: Number


class BlockDocument(Document):
    schema_version: Version
    target: str
    name: str
    kind: str
    residual: bool
    skip_scale: Number
    branch_scale: Number
    shortcut: bool
    layers: list[BranchLayerDocument]
    input_rms: Number
    branch_rms: Number
    skip_rms: Number
    output_rms: Number
    arriving: Number
    skip_part: Number
    branch_part: Number
    total: Number
    angle: Number
    error: Number
    jacobian: JacobianDocument | None
    versions: Versions

    @classmethod
    def of(cls, block: BlockProfile, target: str, versions: Mapping[str, str]) -> Self:
        return cls.taken(
            block,
            schema_version=SCHEMA_VERSION,
            target=target,
            layers=[BranchLayerDocument.taken(layer) for layer in block.layers],
            jacobian=JacobianDocument.of(block.jacobian) if block.jacobian else None,
            versions=dict(versions),
        )


# ---- rules: what each is about


class RuleDocument(Document):
    code: Annotated[str, Meta(pattern="^GP[0-9]{3}$")]
    name: str
    severity: SeverityWord
    explanation: str


class RulesDocument(Document):
    schema_version: Version
    rules: list[RuleDocument]

    @classmethod
    def of(cls, rules: Sequence[Rule]) -> Self:
        each = [RuleDocument.taken(rule, severity=str(rule.severity)) for rule in rules]
        return cls(SCHEMA_VERSION, each)


# ---- sweep: a curve a target

# A point has the values of the axes, as text, under their names: no class has such fields.
_POINT: dict[str, Any] = {
    "properties": {
        "depth": {"type": "integer", "minimum": 0},
        "reach": {"type": ["number", "null"]},
        "theory": {"type": ["number", "null"]},
        "verdict": {"enum": [str(verdict) for verdict in Verdict]},
    },
    "required": ["depth", "reach", "verdict"],
    "additionalProperties": {"type": "string"},
}


class FitDocument(Document):
    kind: Literal["exponential", "polynomial", "flat", "none"]
    factor: Number
    power: Number


class CurveDocument(Document, kw_only=True):
    target: str
    points: list[Annotated[dict[str, Any], Meta(extra_json_schema=_POINT)]]
    edges: dict[str, float] | UnsetType = UNSET  # with --theory
    healthy_up_to: int | None
    fit: FitDocument | None

    @classmethod
    def of(cls, sweep: Sweep, target: str) -> Self:
        curve = sweep.curve(target)
        over_depth = sweep.over_depth
        edges = {value: edge for (of, value), edge in sweep.edges.items() if of == target}
        return cls(
            target=target,
            points=[_point(sweep, point) for point in curve],
            edges=edges if sweep.edges else UNSET,
            healthy_up_to=greatest_healthy(curve) if over_depth else None,
            fit=FitDocument.taken(fit(curve)) if over_depth else None,
        )


class SweepDocument(Document):
    schema_version: Version
    curves: list[CurveDocument]
    versions: Versions

    @classmethod
    def of(cls, sweep: Sweep, versions: Mapping[str, str]) -> Self:
        curves = [CurveDocument.of(sweep, target) for target in sweep.targets]
        return cls(SCHEMA_VERSION, curves, dict(versions))


def _point(sweep: Sweep, point: Point) -> dict[str, Any]:
    return {
        **dict(zip([axis for axis, _ in sweep.axes], point.at, strict=True)),
        "depth": point.depth,
        "reach": point.reach,
        **({"theory": point.theory} if sweep.theory else {}),
        "verdict": str(point.verdict),
    }


# ---- fix: the network as it came, every change that was tried, and what came of it


class MeasuredDocument(Document):
    verdict: Verdict
    reach: Number
    input_dependence: Number


class TrialDocument(Document):
    name: str
    sound: bool
    doubt: str | None
    learned: str | None  # at which rate it learned one batch by heart, where that was tried
    measured: list[MeasuredDocument]

    @classmethod
    def of(cls, trial: Trial) -> Self:
        return cls.taken(
            trial,
            doubt=trial.doubt or None,
            learned=trial.learned or None,
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
