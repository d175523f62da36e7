"""``gradprobe schema``: the JSON Schema of a spec."""

from __future__ import annotations

import json

from gradprobe.cli import options as o
from gradprobe.cli.output import emit
from gradprobe.schema import spec_schema


def schema(output: o.Output = None) -> int:
    """Print the JSON Schema (draft-07) of a spec, for editors to complete and validate with."""
    emit(json.dumps(spec_schema(), indent=2) + "\n", output)
    return 0
