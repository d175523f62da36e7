"""The JSON Schemas (draft-07) of what the commands print as JSON."""

from __future__ import annotations

from typing import Any

from gradprobe.measure.profile import RowStatus
from gradprobe.verdict.report import Probability, Severity, Spread, Verdict
from gradprobe.verdict.signals import Signals

_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_NUMBER = {"type": "number"}
_NUMBER_OR_NULL = {"type": ["number", "null"]}  # null: there is none, or it is not finite
_COUNT = {"type": "integer", "minimum": 0}
_PLACE_OR_NULL = {"type": ["integer", "null"], "minimum": 1}
_CODE = {"enum": [0, 1, 2, 3]}
_SEVERITY = {"enum": [str(severity) for severity in Severity]}
_FIRST = {"const": 1}  # version of the schemas
_VERSIONS = {"type": "object", "additionalProperties": _TEXT}
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
    schema_version=_FIRST,
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
    versions=_VERSIONS,
)
_COMPARE = _exactly(schema_version=_FIRST, reports=_list(_REPORT))
_TRIAL = _exactly(
    name=_TEXT,
    sound={"type": "boolean"},
    doubt=_TEXT_OR_NULL,
    measured=_list(
        _exactly(verdict=_VERDICT, reach=_NUMBER_OR_NULL, input_dependence=_NUMBER_OR_NULL)
    ),
)
_FIX = _exactly(
    schema_version=_FIRST,
    target=_TEXT,
    status={"enum": ["healthy", "written", "found", "by-hand", "not-found"]},
    seeds=_list(_COUNT),
    before=_TRIAL,
    after=_or_null(_TRIAL),
    steps=_list(_TEXT),
    diff=_or_null(_list(_TEXT)),
    obstacle=_TEXT_OR_NULL,
    tried=_list(_TRIAL),
    versions=_VERSIONS,
)
_PATHS = _exactly(
    schema_version=_FIRST,
    target=_TEXT,
    row=_TEXT,
    blocks=_COUNT,
    gradient_norm=_NUMBER_OR_NULL,
    mean_length=_NUMBER_OR_NULL,
    effective=_or_null({**_list(_COUNT), "minItems": 2, "maxItems": 2}),
    error=_NUMBER_OR_NULL,
    left_out=_NUMBER_OR_NULL,
    groups=_list(
        _exactly(branches=_COUNT, paths=_COUNT, norm=_NUMBER_OR_NULL, share=_NUMBER_OR_NULL)
    ),
    versions=_VERSIONS,
)
# A point has the values of the axes, as text, under their names.
_POINT = {
    "type": "object",
    "properties": {
        "depth": _COUNT, "reach": _NUMBER_OR_NULL, "theory": _NUMBER_OR_NULL, "verdict": _VERDICT,
    },
    "required": ["depth", "reach", "verdict"],
    "additionalProperties": _TEXT,
}  # fmt: skip
_FIT = _exactly(
    kind={"enum": ["exponential", "polynomial", "flat", "none"]},
    factor=_NUMBER_OR_NULL,
    power=_NUMBER_OR_NULL,
)
_SWEEP = _exactly(
    schema_version=_FIRST,
    curves=_list(
        _exactly(
            {"edges": {"type": "object", "additionalProperties": _NUMBER}},  # with --theory
            target=_TEXT,
            points=_list(_POINT),
            healthy_up_to={"type": ["integer", "null"]},
            fit=_or_null(_FIT),
        )
    ),
    versions=_VERSIONS,
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
    schema_version=_FIRST,
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


# By what ``gradprobe schema`` calls it: the command, or what it prints.
OUTPUTS: dict[str, dict[str, Any]] = {
    "report": _REPORT,  # probe --format json
    "check": _CHECK,  # check --output-format json
    "diagnostic": _DIAGNOSTIC,  # one line of check --output-format json-lines
    "compare": _COMPARE,  # and of the others --format json
    "paths": _PATHS,
    "sweep": _SWEEP,
    "fix": _FIX,
}


def output_schema(of: str) -> dict[str, Any]:
    """The schema of one of ``OUTPUTS``."""
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": f"gradprobe {of}"}
    return {**head, **OUTPUTS[of]}
