"""A report in JSON, as ``probe`` and ``check`` print it → ``Report``, to be compared with others.

It holds what the table shows, not all that was measured: of a row's parameters only their norm.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gradprobe.errors import InputError
from gradprobe.files import read_start
from gradprobe.measure.profile import GradientProfile, ParameterProfile, RowProfile, RowStatus
from gradprobe.tasks import versioned
from gradprobe.verdict.report import Finding, Report, Severity

if TYPE_CHECKING:
    from gradprobe.tasks.documents.report import FindingDocument, ReportDocument, RowDocument

_HINT = "gradprobe probe NET --format json makes one"


def is_report(target: str) -> bool:
    """Whether a target is a report in JSON, and not a spec or a configuration in JSON."""
    try:
        return target.endswith(".json") and b'"schema_version"' in read_start(target, 200)
    except (OSError, ValueError):
        return False


def load(target: str) -> list[Report]:
    """The reports in a file: one of ``probe``, or all of ``compare`` or ``check``.

    Raises:
        InputError: no such file, not a report, or one of a newer gradprobe.
    """
    from msgspec import ValidationError

    from gradprobe.tasks.documents.base import SCHEMA_VERSION

    body = versioned.read(target, "report", SCHEMA_VERSION)
    try:
        documents = _documents(body)
    except ValidationError as error:
        message = f"{target} is not a report of gradprobe: {error}"
        raise InputError(message, hint=_HINT) from error
    if not documents or any(all(row.level for row in each.rows) for each in documents):
        raise InputError(f"{target} holds no report, or one without rows")
    return [_report(document) for document in documents]


def _documents(body: Any) -> list[ReportDocument]:
    """Those in what a file holds; none where it holds an empty list of them."""
    from msgspec import ValidationError, convert

    from gradprobe.tasks.documents.commands import CheckDocument
    from gradprobe.tasks.documents.report import CompareDocument, ReportDocument

    lists = [key for key in ("targets", "reports") if isinstance(body, dict) and key in body]
    if lists and not body[lists[0]]:
        return []
    if lists == ["targets"]:
        targets = convert(body, CheckDocument).targets
        return [target.report for target in targets if target.report]
    if lists:
        return convert(body, CompareDocument).reports
    if isinstance(body, dict) and "rows" not in body:
        raise ValidationError("it has no rows, reports or targets")
    return [convert(body, ReportDocument)]


def _report(document: ReportDocument) -> Report:
    profile = GradientProfile(
        rows=tuple(map(_row, document.rows)),
        parameters=document.parameters,
        loss=_or_nan(document.loss),
        smallest_gradient=0.0,
        unit=document.unit,
    )
    return Report(
        target=document.target,
        profile=profile,
        findings=tuple(map(_finding, document.findings)),
        verdict=document.verdict,
        config=document.config,
        versions=document.versions,
        name=document.name,
    )


def _finding(document: FindingDocument) -> Finding:
    names = (field.name for field in fields(Finding))
    own = {name: getattr(document, name) for name in names if hasattr(document, name)}
    value = math.nan if document.status == "non-finite" else document.value
    return Finding(**{**own, "severity": Severity[document.severity.upper()], "value": value})


def _row(document: RowDocument) -> RowProfile:
    own = ParameterProfile(
        name="",
        size=document.parameters,
        dimensions=0,
        norm=_or_nan(document.weight_norm),
        gradient_norm=document.weight_gradient_norm,
    )
    norm = document.gradient_norm
    infinite = norm is None and document.status is RowStatus.NON_FINITE
    return RowProfile(
        name=document.name,
        kind=document.kind,
        level=document.level,
        line=document.line,
        column=document.column,
        status=document.status,
        size=document.parameters,
        gradient_norm=math.nan if infinite else norm,
        activation_rms=document.activation_rms,
        input_dependence=document.input_dependence,
        zero_fraction=document.zero_fraction,
        parameters=(own,) if document.parameters else (),
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
