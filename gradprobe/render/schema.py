"""The JSON Schemas (draft-07) of what the commands print as JSON."""

from __future__ import annotations

from typing import Any

from msgspec.json import schema_components

from gradprobe.tasks.documents import commands, diff, report
from gradprobe.tasks.documents.base import Document

# By what ``gradprobe schema`` calls it: the command, or what it prints.
OUTPUTS: dict[str, type[Document]] = {
    "report": report.ReportDocument,  # probe --format json
    "check": commands.CheckDocument,  # check --output-format json
    "diagnostic": commands.DiagnosticDocument,  # one line of check --output-format json-lines
    "compare": report.CompareDocument,  # and of the others --format json
    "diff": diff.DiffDocument,
    "block": commands.BlockDocument,
    "rules": commands.RulesDocument,
    "paths": commands.PathsDocument,
    "sweep": commands.SweepDocument,
    "fix": commands.FixDocument,
}


def output_schema(of: str) -> dict[str, Any]:
    """The schema of one of ``OUTPUTS``. What is printed has no key that it does not name."""
    document = OUTPUTS[of]
    _, definitions = schema_components([document], ref_template="#/definitions/{name}")
    for definition in definitions.values():
        if "properties" in definition:
            definition["additionalProperties"] = False
    body = definitions.pop(document.__name__)
    head = {"$schema": "http://json-schema.org/draft-07/schema#"}
    return {**head, **body, "title": f"gradprobe {of}", "definitions": definitions}
