"""``gradprobe schema``: the JSON Schemas of what gradprobe reads and prints."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gradprobe.cli.flatten import Fields, flattened
from gradprobe.cli.output import OutputOptions
from gradprobe.render.json import dump
from gradprobe.spec.schema import spec_schema
from gradprobe.verdict.rules.table import RULE_WORDS


class Of(StrEnum):
    SPEC = "spec"
    REPORT = "report"
    CHECK = "check"
    DIAGNOSTIC = "diagnostic"
    COMPARE = "compare"
    DIFF = "diff"
    PATHS = "paths"
    BLOCK = "block"
    RULES = "rules"
    SWEEP = "sweep"
    FIX = "fix"


@flattened()
def schema(
    of: Annotated[Of, typer.Argument(help="What to describe.")] = Of.SPEC,
    *,
    output: Annotated[OutputOptions, Fields("output")],
) -> int:
    """Print a JSON Schema (draft-07) of a spec or of an output.

    Of a spec, for editors to complete and validate with; of the JSON of probe (report), check,
    compare, diff, block, paths, sweep, fix or rules; or of a line of check's json-lines
    (diagnostic).
    """
    if of is Of.SPEC:
        output.emit(dump(spec_schema(RULE_WORDS)))
        return 0
    from gradprobe.render.schema import output_schema  # msgspec: the spec's does without

    output.emit(dump(output_schema(of)))
    return 0
