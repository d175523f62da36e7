"""``gradprobe schema``: the JSON Schemas of what gradprobe reads and prints."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.output import emit
from gradprobe.render.json import dump
from gradprobe.schema import spec_schema
from gradprobe.schema_output import check_schema, diagnostic_schema, report_schema


class Of(StrEnum):
    SPEC = "spec"
    REPORT = "report"
    CHECK = "check"
    DIAGNOSTIC = "diagnostic"


SCHEMAS = {
    Of.SPEC: spec_schema,
    Of.REPORT: report_schema,
    Of.CHECK: check_schema,
    Of.DIAGNOSTIC: diagnostic_schema,
}


def schema(
    of: Annotated[Of, typer.Argument(help="spec, report, check or diagnostic.")] = Of.SPEC,
    output: o.Output = None,
) -> int:
    """Print a JSON Schema (draft-07): of a spec, for editors to complete and validate with, of the
    JSON of probe (report) and of check, or of a line of check's json-lines (diagnostic)."""
    emit(dump(SCHEMAS[of]()), output)
    return 0
