"""``gradprobe schema``: the JSON Schemas of what gradprobe reads and prints."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.output import emit
from gradprobe.render.json import dump
from gradprobe.spec.schema import spec_schema
from gradprobe.verdict.rules.table import RULE_WORDS


class Of(StrEnum):
    SPEC = "spec"
    REPORT = "report"
    CHECK = "check"
    DIAGNOSTIC = "diagnostic"
    COMPARE = "compare"
    PATHS = "paths"
    SWEEP = "sweep"
    FIX = "fix"


def schema(
    of: Annotated[Of, typer.Argument(help="What to describe.")] = Of.SPEC,
    output: o.Output = None,
) -> int:
    """Print a JSON Schema (draft-07): of a spec, for editors to complete and validate with; of the
    JSON of probe (report), check, compare, paths, sweep or fix; or of a line of check's json-lines
    (diagnostic)."""
    if of is Of.SPEC:
        emit(dump(spec_schema(RULE_WORDS)), output)
        return 0
    from gradprobe.render.schema import output_schema  # msgspec: the spec's does without

    emit(dump(output_schema(of)), output)
    return 0
