"""``gradprobe schema``: the JSON Schema of a spec."""

from __future__ import annotations

from gradprobe.cli import options as o
from gradprobe.cli.output import emit
from gradprobe.render.json import dump
from gradprobe.schema import spec_schema


def schema(output: o.Output = None) -> int:
    """Print the JSON Schema (draft-07) of a spec, for editors to complete and validate with."""
    emit(dump(spec_schema()), output)
    return 0
