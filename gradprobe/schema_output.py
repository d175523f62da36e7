"""The JSON Schemas (draft-07) of what ``probe`` and ``check`` print as JSON."""

from __future__ import annotations

from typing import Any

from gradprobe.report import Probability, RowStatus, Severity, Signals, Spread, Verdict

_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_NUMBER = {"type": "number"}
_NUMBER_OR_NULL = {"type": ["number", "null"]}  # null: there is none, or it is not finite
_COUNT = {"type": "integer", "minimum": 0}
_PLACE_OR_NULL = {"type": ["integer", "null"], "minimum": 1}
_CODE = {"enum": [0, 1, 2, 3]}
_SEVERITY = {"enum": [str(severity) for severity in Severity]}
_ESTIMATE = {"value": _NUMBER_OR_NULL, "error": _NUMBER_OR_NULL}


def _exactly(optional: dict[str, Any] | None = None, /, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties | (optional or {}),
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_JACOBIAN = _exactly(
    highway=_exactly(**_ESTIMATE), branch=_exactly(**_ESTIMATE), gain=_exactly(**_ESTIMATE)
)
_ROW = _exactly(
    {
        "jacobian": _or_null(_JACOBIAN),  # with --blocks
        "factor": _NUMBER_OR_NULL,  # with --theory, as are the next two
        "theory": _NUMBER_OR_NULL,
        "theory_reason": _TEXT_OR_NULL,
    },
    name=_TEXT,
    kind=_TEXT,
    level=_COUNT,
    line=_PLACE_OR_NULL,
    column=_PLACE_OR_NULL,
    status={"enum": [str(status) for status in RowStatus]},
    parameters=_COUNT,
    gradient_norm=_NUMBER_OR_NULL,
    reach=_NUMBER_OR_NULL,
    weight_gradient_norm=_NUMBER_OR_NULL,
    weight_norm=_NUMBER_OR_NULL,
    activation_rms=_NUMBER_OR_NULL,
    input_dependence=_NUMBER_OR_NULL,
    zero_fraction=_NUMBER_OR_NULL,
)
_FINDING = _exactly(
    rule=_TEXT,
    name=_TEXT,
    severity=_SEVERITY,
    row=_TEXT_OR_NULL,
    line=_PLACE_OR_NULL,
    column=_PLACE_OR_NULL,
    message=_TEXT,
    advice=_TEXT,
    value=_NUMBER_OR_NULL,
    threshold=_NUMBER_OR_NULL,
    status={"enum": ["ok", "non-finite"]},
    ignored=_TEXT_OR_NULL,
)
_THEORY = _exactly(
    reach=_NUMBER_OR_NULL,
    decay=_NUMBER_OR_NULL,
    deviation=_NUMBER_OR_NULL,
    agrees={"type": ["boolean", "null"]},
    about=_TEXT,
    alternative=_TEXT_OR_NULL,
    alternative_decay=_NUMBER_OR_NULL,
)
_SIGNALS = _exactly(**{key: {"type": "number", "minimum": 0} for key in Signals._fields})
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_TRAINING = _exactly(
    **dict.fromkeys(Probability._fields, _SHARE),
    margin={"type": "number", "minimum": 0},
    signals=_SIGNALS,
)
_VERDICT = {"enum": [str(verdict) for verdict in Verdict]}
_SPREAD = dict.fromkeys(Spread._fields, _NUMBER)
_CHANCES = _exactly(
    **dict.fromkeys(Probability._fields, _exactly(**dict.fromkeys(_SPREAD, _SHARE)))
)
_SEEDS = _exactly(
    seeds={**_list(_COUNT), "minItems": 1},
    verdicts={**_list(_VERDICT), "minItems": 1},
    reach=_or_null(_exactly(**_SPREAD)),
    reaches={**_list(_NUMBER_OR_NULL), "minItems": 1},
    probability=_or_null(_CHANCES),
    stability=_SHARE,
    settled={"type": "boolean"},
)
_REPORT = _exactly(
    # With --theory, with --deep, with --seeds.
    {"theory": _THEORY, "training": _or_null(_TRAINING), "seeds": _SEEDS},
    schema_version={"const": 1},
    target=_TEXT,
    name=_TEXT_OR_NULL,
    verdict=_VERDICT,
    status={"enum": ["ok", "no-gradient", "zero-gradient", "non-finite"]},
    reach=_NUMBER_OR_NULL,
    decay=_NUMBER_OR_NULL,
    half_life=_NUMBER_OR_NULL,
    steps=_COUNT,
    parameters=_COUNT,
    loss=_NUMBER_OR_NULL,
    trunk={"anyOf": [{"type": "null"}, {**_list(_TEXT), "minItems": 2, "maxItems": 2}]},
    unit={"enum": ["row", "position"]},
    rows=_list(_ROW),
    findings=_list(_FINDING),
    config={"type": "object"},
    versions={"type": "object", "additionalProperties": _TEXT},
)
_DIAGNOSTIC = _exactly(
    path=_TEXT,
    line={"type": "integer", "minimum": 1},
    column={"type": "integer", "minimum": 1},
    rule={"type": "string", "pattern": "^GP[0-9]{3}$"},
    name=_TEXT,
    severity=_SEVERITY,
    row=_TEXT_OR_NULL,
    message=_TEXT,
    advice=_TEXT,
    ignored=_TEXT_OR_NULL,
    known={"type": "boolean"},
    fingerprint={"type": "string", "pattern": "^[0-9a-f]{32}$"},
)
_CHECK = _exactly(
    schema_version={"const": 1},
    gradprobe=_TEXT,
    exit_code=_CODE,
    summary=_exactly(
        targets=_COUNT, errors=_COUNT, warnings=_COUNT, infos=_COUNT, ignored=_COUNT, known=_COUNT
    ),
    targets=_list(
        _exactly(
            path=_TEXT,
            exit_code=_CODE,
            diagnostics=_list(_DIAGNOSTIC),
            report=_or_null(_REPORT),
        )
    ),
)


def _titled(title: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": title, **body}


def report_schema() -> dict[str, Any]:
    """Of ``probe --format json``."""
    return _titled("gradprobe report", _REPORT)


def check_schema() -> dict[str, Any]:
    """Of ``check --output-format json``."""
    return _titled("gradprobe check", _CHECK)


def diagnostic_schema() -> dict[str, Any]:
    """Of one line of ``check --output-format json-lines``."""
    return _titled("gradprobe diagnostic", _DIAGNOSTIC)
