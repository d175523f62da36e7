"""A report in JSON, as ``probe`` and ``check`` print it → ``Report``, to be compared with others.

It holds what the table shows, not all that was measured: of a row's parameters only their norm.
"""

from __future__ import annotations

import math
from typing import Any

from gradprobe.errors import InputError
from gradprobe.measure.profile import GradientProfile, ParameterProfile, RowProfile, RowStatus
from gradprobe.tasks import versioned
from gradprobe.verdict.report import Finding, Report, Severity, Verdict

SCHEMA_VERSION = 1
_NUMBERS = (
    "gradient_norm weight_norm weight_gradient_norm activation_rms input_dependence zero_fraction"
).split()


def is_report(target: str) -> bool:
    """Whether a target is a report in JSON, and not a spec or a configuration in JSON."""
    try:
        with open(target, "rb") as stream:
            return target.endswith(".json") and b'"schema_version"' in stream.read(200)
    except (OSError, ValueError):
        return False


def load(target: str) -> list[Report]:
    """The reports in a file: one of ``probe``, or all of ``compare`` or ``check``.

    Raises:
        InputError: no such file, not a report, or one of a newer gradprobe.
    """
    body = versioned.read(target, "report", SCHEMA_VERSION)
    try:
        if body["schema_version"] != SCHEMA_VERSION:
            raise KeyError("schema_version")
        reports = [_report(one) for one in _bodies(body)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        hint = "gradprobe probe NET --format json makes one"
        raise InputError(f"{target} is not a report of gradprobe: {error}", hint=hint) from error
    if not reports:
        raise InputError(f"{target} holds no report")
    return reports


def _bodies(body: dict[str, Any]) -> list[dict[str, Any]]:
    if "targets" in body:  # of check
        return [one["report"] for one in body["targets"] if one["report"] is not None]
    if "reports" in body:  # of compare
        return list(body["reports"])
    return [body]


def _report(body: dict[str, Any]) -> Report:
    rows = tuple(map(_row, body["rows"]))
    if not all(isinstance(body[key], str) for key in ("target", "unit")):
        raise ValueError("its target has no name")
    profile = GradientProfile(
        rows=rows,
        parameters=int(body["parameters"]),
        loss=_number(body["loss"]),
        smallest_gradient=0.0,
        unit=body["unit"],
    )
    verdict = Verdict(body["verdict"])
    config, versions = dict(body["config"]), dict(body["versions"])
    findings = tuple(map(_finding, body["findings"]))
    return Report(body["target"], profile, findings, verdict, config, versions, body["name"])


def _finding(body: dict[str, Any]) -> Finding:
    words = ("rule", "name", "message", "advice")
    if not all(isinstance(body[key], str) for key in words):
        raise ValueError("a finding has no name")
    rest = {key: body[key] for key in ("row", "line", "value", "threshold", "ignored", "column")}
    severity = Severity[str(body["severity"]).upper()]
    return Finding(body["rule"], body["name"], severity, body["message"], body["advice"], **rest)


def _row(body: dict[str, Any]) -> RowProfile:
    if not all(isinstance(body[key], str) for key in ("name", "kind")):
        raise ValueError("a row has no name")
    size, status = int(body["parameters"]), RowStatus(body["status"])
    for key in _NUMBERS:
        if not (body[key] is None or type(body[key]) in (int, float)):
            raise ValueError(f"{key} is no number")
    weight, gradient = body["weight_norm"], body["weight_gradient_norm"]
    own = ParameterProfile("", size, 0, _number(weight), gradient)
    norm = body["gradient_norm"]
    return RowProfile(
        name=body["name"],
        kind=body["kind"],
        level=int(body["level"]),
        line=body["line"],
        status=status,
        size=size,
        gradient_norm=math.nan if norm is None and status is RowStatus.NON_FINITE else norm,
        activation_rms=body["activation_rms"],
        input_dependence=body["input_dependence"],
        zero_fraction=body["zero_fraction"],
        parameters=(own,) if size else (),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
