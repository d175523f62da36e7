"""Report → JSON: one object, stable bytes, ``null`` for what is missing or not finite."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from gradprobe.measure.profile import GradientProfile, RowProfile, RowStatus
from gradprobe.numbers import finite
from gradprobe.tasks.check.result import CheckResult, Diagnostic
from gradprobe.verdict.report import Finding, Probability, Repeats, Report, Training

SCHEMA_VERSION = 1


def render_report(report: Report) -> str:
    """The report as one JSON object, with a newline at its end.

    A number is ``null`` where there is none; the ``status`` beside it says why: ``ok``,
    ``no-gradient``, ``zero-gradient``, ``non-finite``, ``no-tensor``, ``not-run``.
    """
    return dump(report_object(report))


def render_comparison(reports: Sequence[Report]) -> str:
    """Several reports, in the order in which their targets were named."""
    body = {"schema_version": SCHEMA_VERSION, "reports": [report_object(r) for r in reports]}
    return dump(body)


def report_object(report: Report) -> dict[str, Any]:
    """The report as plain Python values that JSON can hold."""
    profile = report.profile
    with_jacobian = any(row.jacobian is not None for row in report.rows)
    return {
        "schema_version": SCHEMA_VERSION,
        "target": report.target,
        "name": report.name,
        "verdict": str(report.verdict),
        "status": _status(report),
        "reach": finite(report.reach),
        "decay": finite(report.decay),
        "half_life": finite(profile.half_life),
        "steps": profile.steps,
        "parameters": profile.parameters,
        "loss": finite(profile.loss),
        "trunk": [profile.trunk[0].name, profile.trunk[-1].name] if profile.trunk else None,
        "unit": profile.unit,
        **({"theory": _theory(report)} if report.theory else {}),
        **({"training": _training(report.training)} if report.training else {}),
        **({"seeds": _seeds(report.repeats)} if report.repeats else {}),
        "rows": [
            {
                **_row(row, profile.reach_of(row), with_jacobian),
                **(_factors(profile, row) if report.theory else {}),
            }
            for row in report.rows
        ],
        "findings": [_finding(finding) for finding in report.findings],
        "config": dict(report.config),
        "versions": dict(report.versions),
    }


def render_check(result: CheckResult) -> str:
    """Every target with its report and its diagnostics, and a summary."""
    counts = result.counts
    return dump(
        {
            "schema_version": SCHEMA_VERSION,
            "gradprobe": result.version,
            "exit_code": int(result.exit_code),
            "summary": {"targets": len(result.outcomes), **counts._asdict()},
            "targets": [
                {
                    "path": outcome.path,
                    "exit_code": int(outcome.exit_code),
                    "diagnostics": [_diagnostic(one) for one in outcome.diagnostics],
                    "report": report_object(outcome.report) if outcome.report else None,
                }
                for outcome in result.outcomes
            ],
        }
    )


def render_lines(result: CheckResult) -> str:
    """One diagnostic a line, as an object of its own."""
    lines = [json.dumps(_diagnostic(one), allow_nan=False) for one in result.diagnostics]
    return "".join(f"{line}\n" for line in lines)


def _diagnostic(one: Diagnostic) -> dict[str, Any]:
    return {
        "path": one.path,
        "line": one.line,
        "column": one.column,
        "rule": one.rule,
        "name": one.name,
        "severity": str(one.severity),
        "row": one.row,
        "message": one.message,
        "advice": one.advice,
        "ignored": one.ignored,
        "known": one.known,
        "fingerprint": one.fingerprint,
    }


def _status(report: Report) -> str:
    """Why ``reach`` is a number, or is not."""
    trunk = report.profile.trunk
    ends = [trunk[0].gradient_norm, trunk[-1].gradient_norm] if trunk else [None]
    if any(end is None for end in ends):
        return str(RowStatus.NO_GRADIENT)
    if report.reach is None:
        return "zero-gradient"
    return str(RowStatus.OK if math.isfinite(report.reach) else RowStatus.NON_FINITE)


def _row(row: RowProfile, reach: float | None, with_jacobian: bool) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "level": row.level,
        "line": row.line,
        "column": row.column,
        "status": str(row.status),
        "parameters": row.size,
        "gradient_norm": finite(row.gradient_norm),
        "reach": finite(reach),
        "weight_gradient_norm": finite(row.weight_gradient_norm),
        "weight_norm": finite(row.weight_norm),
        "activation_rms": finite(row.activation_rms),
        "input_dependence": finite(row.input_dependence),
        "zero_fraction": finite(row.zero_fraction),
        **({"jacobian": _jacobian(row)} if with_jacobian else {}),
    }


def _theory(report: Report) -> dict[str, Any]:
    """Mean-field theory's reach and factor per row; ``deviation`` is ln(reach)'s around it."""
    profile, theory = report.profile, report.theory
    assert theory is not None
    return {
        "reach": finite(profile.predicted_reach),
        "decay": finite(profile.predicted_decay),
        "deviation": finite(profile.predicted_deviation),
        "agrees": None if profile.predicted_reach is None else profile.disagreement() is None,
        **theory._asdict(),
    }


def _training(training: Training) -> dict[str, Any] | None:
    """Probabilities, margin and signals; ``null`` where there is nothing to weigh."""
    if training.probability is None or training.signals is None:
        return None
    return {
        **training.probability._asdict(),
        "margin": training.margin,
        "signals": training.signals._asdict(),
    }


def _seeds(repeats: Repeats) -> dict[str, Any]:
    """Each seed with its verdict and reach, and the median and range of all."""
    chances = repeats.chances
    named = zip(Probability._fields, chances, strict=True) if chances else None
    return {
        "seeds": list(repeats.seeds),
        "verdicts": [str(verdict) for verdict in repeats.verdicts],
        "reach": repeats.reach._asdict() if repeats.reach else None,
        "reaches": [finite(reach) for reach in repeats.reaches],
        "probability": {name: one._asdict() for name, one in named} if named else None,
        "stability": repeats.stability,
        "settled": repeats.settled,
    }


def _factors(profile: GradientProfile, row: RowProfile) -> dict[str, Any]:
    """The measured factor across a row, theory's, and the reason where theory has none."""
    return {
        "factor": finite(profile.factors.get(row.name)),
        "theory": finite(row.theory.factor) if row.theory else None,
        "theory_reason": row.theory.reason if row.theory else None,
    }


def _jacobian(row: RowProfile) -> dict[str, Any] | None:
    """The block's Jacobian; ``null`` where the row does not keep its input's shape."""
    if row.jacobian is None:
        return None
    return {
        name: {"value": finite(estimate.value), "error": finite(estimate.error)}
        for name, estimate in row.jacobian._asdict().items()
    }


def _finding(finding: Finding) -> dict[str, Any]:
    value_ok = finding.value is None or math.isfinite(finding.value)
    return {
        "rule": finding.rule,
        "name": finding.name,
        "severity": str(finding.severity),
        "row": finding.row,
        "line": finding.line,
        "column": finding.column,
        "message": finding.message,
        "advice": finding.advice,
        "value": finite(finding.value),
        "threshold": finite(finding.threshold),
        "status": "ok" if value_ok else "non-finite",
        "ignored": finding.ignored,
    }


def dump(value: dict[str, Any] | list[Any]) -> str:
    """``value`` as text: the same bytes each time, a newline at the end, and never a NaN."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=True) + "\n"
