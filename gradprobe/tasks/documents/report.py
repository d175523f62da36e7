"""The JSON of a report: ``probe`` prints it, ``compare`` prints several and reads them back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from msgspec import UNSET, Meta, UnsetType

from gradprobe.measure.blocks.profile import JacobianProfile
from gradprobe.measure.measurement import Outcome, Trial
from gradprobe.measure.profile import RowProfile, RowStatus
from gradprobe.numbers import all_finite
from gradprobe.tasks.documents.base import (
    SCHEMA_VERSION,
    Amount,
    Count,
    Document,
    Number,
    Position,
    SeverityWord,
    Share,
    Version,
    Versions,
    exactly,
)
from gradprobe.verdict.report import Finding, Repeats, Report, Spread, Training, Verdict
from gradprobe.verdict.signals import Signals

Setting = bool | int | float | str | None


class EstimateDocument(Document):
    value: Number
    error: Number


class JacobianDocument(Document):
    highway: EstimateDocument
    branch: EstimateDocument
    gain: EstimateDocument

    @classmethod
    def of(cls, jacobian: JacobianProfile) -> Self:
        highway, branch, gain = map(EstimateDocument.taken, jacobian)
        return cls(highway=highway, branch=branch, gain=gain)


class AttentionDocument(Document):
    entropy: Share | None
    similarity: Number


class PrecisionDocument(Document):
    float16: Share  # of the gradient's entries that are not 0, what lies below its smallest number
    bfloat16: Share
    float8: Share  # e5m2
    scale: Amount | None  # of the loss, that float16 needs; null: it would overflow
    ceiling: Amount  # beyond which float16 overflows
    entries: Count


class RowDocument(Document):
    name: str
    kind: str
    level: Count
    line: Position | None
    column: Position | None
    status: RowStatus  # why a number is there, or is not
    parameters: Count
    gradient_norm: Amount | None
    reach: Amount | None
    weight_gradient_norm: Amount | None
    weight_norm: Amount | None
    activation_rms: Number
    input_dependence: Number
    zero_fraction: Number
    # With --blocks; null where the row does not keep its input's shape.
    jacobian: JacobianDocument | UnsetType | None = UNSET
    attention: AttentionDocument | UnsetType = UNSET  # with --attention, where there is some
    precision: PrecisionDocument | UnsetType = UNSET  # with --precision, and in float16
    # With --theory: the measured factor across the row, theory's, and why theory has none.
    factor: Number | UnsetType = UNSET
    theory: Number | UnsetType = UNSET
    theory_reason: str | UnsetType | None = UNSET

    @classmethod
    def of(cls, row: RowProfile, report: Report, with_jacobian: bool) -> Self:
        profile, jacobian = report.profile, row.jacobian
        optional: dict[str, object] = {}
        if with_jacobian:
            optional["jacobian"] = JacobianDocument.of(jacobian) if jacobian else None
        if row.attention:
            optional["attention"] = AttentionDocument.taken(row.attention)
        if row.precision:
            optional["precision"] = PrecisionDocument.taken(row.precision)
        if report.theory:
            optional["factor"] = profile.factors.get(row.name)
            optional["theory"] = row.theory.factor if row.theory else None
            optional["theory_reason"] = row.theory.reason if row.theory else None
        return cls.taken(row, parameters=row.size, reach=profile.reach_of(row), **optional)


class FindingDocument(Document):
    rule: str
    name: str
    severity: SeverityWord
    row: str | None
    line: Position | None
    column: Position | None
    message: str
    advice: str
    value: Number
    threshold: Number
    status: Literal["ok", "non-finite"]  # of the value
    ignored: str | None
    certainty: Literal["certain", "likely", "possible", ""] = ""  # of a note nothing

    @classmethod
    def of(cls, finding: Finding) -> Self:
        status = "ok" if all_finite(finding.value) else "non-finite"
        certainty: Any = finding.certainty
        severity: Any = str(finding.severity)
        return cls.taken(finding, severity=severity, status=status, certainty=certainty)


class TheoryDocument(Document):
    """Mean-field theory's reach and factor per row; ``deviation`` is ln(reach)'s around it."""

    reach: Number
    decay: Number
    deviation: Number
    agrees: bool | None
    about: str
    alternative: str | None
    alternative_decay: Number

    @classmethod
    def of(cls, report: Report) -> Self:
        profile = report.profile
        reach = profile.predicted_reach
        return cls.taken(
            report.theory,
            reach=reach,
            decay=profile.predicted_decay,
            deviation=profile.predicted_deviation,
            agrees=None if reach is None else profile.disagreement() is None,
        )


class ProbabilityDocument(Document):
    sgd: Share
    adam: Share


class TrainingDocument(Document):
    """The probabilities that it trains, their margin, and the signals that they follow from."""

    sgd: Share
    adam: Share
    margin: Amount
    signals: Annotated[dict[str, float], exactly(Signals._fields, {"type": "number", "minimum": 0})]
    after_trial: ProbabilityDocument | UnsetType = UNSET  # by prediction and trial together

    @classmethod
    def of(cls, training: Training) -> Self | None:
        """``None`` where there is nothing to weigh."""
        if training.probability is None or training.signals is None:
            return None
        signals = training.signals._asdict()
        after = training.after_trial
        return cls.taken(
            training.probability,
            margin=training.margin,
            signals=signals,
            after_trial=ProbabilityDocument.taken(after) if after else UNSET,
        )


class CourseDocument(Document):
    """The losses of one rate, before the first step and after each; null where not finite."""

    optimizer: Literal["SGD", "Adam"]
    rate: float
    outcome: Outcome
    steps: Count
    losses: list[Number]


class TrialDocument(Document):
    """Whether it learned one batch by heart, at which rate, and every rate that was tried."""

    learned: bool | None  # null: time ran out, nothing was tried, or it is on its way
    optimizer: Literal["SGD", "Adam"] | None
    rate: Number
    largest_stable_rate: Number
    samples: Count
    own: bool  # loss and data are the user's
    cut: bool  # time ran out
    baseline: Number  # what the best constant output gets by the user's own loss
    reason: str | None  # why nothing was tried
    courses: list[CourseDocument]

    @classmethod
    def of(cls, trial: Trial) -> Self:
        learned, largest = trial.learned, trial.largest
        return cls.taken(
            trial,
            learned=True if learned else False if trial.failed else None,
            optimizer=learned.optimizer if learned else None,
            rate=learned.rate if learned else None,
            largest_stable_rate=largest.rate if largest else None,
            courses=[CourseDocument.taken(c, losses=list(c.losses)) for c in trial.courses],
        )


class SpreadDocument(Document):
    median: float
    low: float
    high: float


class ChanceDocument(Document):
    median: Share
    low: Share
    high: Share


class ChancesDocument(Document):
    sgd: ChanceDocument
    adam: ChanceDocument

    @classmethod
    def of(cls, chances: tuple[Spread, Spread]) -> Self:
        sgd, adam = map(ChanceDocument.taken, chances)
        return cls(sgd=sgd, adam=adam)


class SeedsDocument(Document):
    """Each seed with its verdict and reach, and the median and range of all."""

    seeds: Annotated[list[Count], Meta(min_length=1)]
    verdicts: Annotated[list[Verdict], Meta(min_length=1)]
    reach: SpreadDocument | None
    reaches: Annotated[list[Number], Meta(min_length=1)]
    probability: ChancesDocument | None
    stability: Share
    settled: bool

    @classmethod
    def of(cls, repeats: Repeats) -> Self:
        return cls.taken(
            repeats,
            reach=SpreadDocument.taken(repeats.reach) if repeats.reach else None,
            probability=ChancesDocument.of(repeats.chances) if repeats.chances else None,
        )


class ReportDocument(Document, kw_only=True):
    """A number is null where there is none; the ``status`` beside it says why."""

    schema_version: Version
    target: str
    name: str | None
    verdict: Verdict
    status: Literal["ok", "no-gradient", "zero-gradient", "non-finite"]  # of the reach
    reach: Number
    decay: Number
    half_life: Number
    steps: Count
    parameters: Count
    loss: Number
    trunk: Annotated[list[str], Meta(min_length=2, max_length=2)] | None
    unit: Literal["row", "position"]
    theory: TheoryDocument | UnsetType = UNSET  # with --theory
    training: TrainingDocument | UnsetType | None = UNSET  # with --deep
    trial: TrialDocument | UnsetType = UNSET  # with --overfit
    seeds: SeedsDocument | UnsetType = UNSET  # with --seeds
    rows: list[RowDocument]
    findings: list[FindingDocument]
    config: dict[str, Setting | dict[str, Setting]]
    versions: Versions

    @classmethod
    def of(cls, report: Report) -> Self:
        profile = report.profile
        config: Any = dict(report.config)
        unit: Any = profile.unit
        with_jacobian = any(row.jacobian is not None for row in report.rows)
        return cls(
            schema_version=SCHEMA_VERSION,
            target=report.target,
            name=report.name,
            verdict=report.verdict,
            status=_status(report),
            reach=report.reach,
            decay=report.decay,
            half_life=profile.half_life,
            steps=profile.steps,
            parameters=profile.parameters,
            loss=profile.loss,
            trunk=[profile.trunk[0].name, profile.trunk[-1].name] if profile.trunk else None,
            unit=unit,
            theory=TheoryDocument.of(report) if report.theory else UNSET,
            training=TrainingDocument.of(report.training) if report.training else UNSET,
            trial=TrialDocument.of(report.trial) if report.trial else UNSET,
            seeds=SeedsDocument.of(report.repeats) if report.repeats else UNSET,
            rows=[RowDocument.of(row, report, with_jacobian) for row in report.rows],
            findings=[FindingDocument.of(finding) for finding in report.findings],
            config=config,
            versions=dict(report.versions),
        )


class CompareDocument(Document):
    """Several reports, in the order in which their targets were named."""

    schema_version: Version
    reports: list[ReportDocument]

    @classmethod
    def of(cls, reports: Sequence[Report]) -> Self:
        return cls(SCHEMA_VERSION, [ReportDocument.of(report) for report in reports])


def _status(report: Report) -> Literal["ok", "no-gradient", "zero-gradient", "non-finite"]:
    """Why ``reach`` is a number, or is not."""
    trunk = report.profile.trunk
    ends = [trunk[0].gradient_norm, trunk[-1].gradient_norm] if trunk else [None]
    if any(end is None for end in ends):
        return "no-gradient"
    if report.reach is None:
        return "zero-gradient"
    return "ok" if math.isfinite(report.reach) else "non-finite"
