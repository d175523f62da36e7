"""The JSON of ``sweep``: a curve a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from msgspec import UNSET, Meta, UnsetType

from gradprobe.tasks.curves import Point, Sweep, fit, greatest_healthy
from gradprobe.tasks.documents.base import SCHEMA_VERSION, Document, Number, Version, Versions
from gradprobe.verdict.report import Verdict

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
        over_depth = sweep.axes[0][0] == "depth" and len(sweep.axes) == 1
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
