"""A value → its JSON: one object, stable bytes, ``null`` for what is missing or not finite.

The documents are imported where one is written: msgspec takes longer to import than ``--help``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradprobe.measure.blocks.profile import BlockProfile
    from gradprobe.tasks.check.result import CheckResult
    from gradprobe.tasks.documents.base import Document
    from gradprobe.verdict.report import Report
    from gradprobe.verdict.rules.rule import Rule


def render_report(report: Report) -> str:
    """The report as one JSON object, with a newline at its end.

    A number is ``null`` where there is none; the ``status`` beside it says why: ``ok``,
    ``no-gradient``, ``zero-gradient``, ``non-finite``, ``no-tensor``, ``not-run``.
    """
    from gradprobe.tasks.documents.report import ReportDocument

    return written(ReportDocument.of(report))


def render_comparison(reports: Sequence[Report]) -> str:
    """Several reports, in the order in which their targets were named."""
    from gradprobe.tasks.documents.report import CompareDocument

    return written(CompareDocument.of(reports))


def render_check(result: CheckResult) -> str:
    """Every target with its report and its diagnostics, and a summary."""
    from gradprobe.tasks.documents.commands import CheckDocument

    return written(CheckDocument.of(result))


def render_lines(result: CheckResult) -> str:
    """One diagnostic a line, as an object of its own."""
    from gradprobe.tasks.documents.commands import DiagnosticDocument

    lines = [written(DiagnosticDocument.of(each), indent=None) for each in result.diagnostics]
    return "".join(lines)


def render_block(block: BlockProfile, target: str, versions: Mapping[str, str]) -> str:
    """One block with its real numbers."""
    from gradprobe.tasks.documents.commands import BlockDocument

    return written(BlockDocument.of(block, target, versions))


def render_rules(rules: Sequence[Rule]) -> str:
    """The rules with their explanations."""
    from gradprobe.tasks.documents.commands import RulesDocument

    return written(RulesDocument.of(rules))


def written(document: Document, indent: int | None = 2) -> str:
    """A document as text."""
    from msgspec import to_builtins

    return dump(to_builtins(document), indent)


def dump(value: Any, indent: int | None = 2) -> str:
    """``value`` as text: the same bytes each time, a newline at the end, and never a NaN."""
    return json.dumps(finite(value), indent=indent, allow_nan=False, ensure_ascii=True) + "\n"


def finite(value: Any) -> Any:
    """``value`` with ``None`` for each number that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inside) for inside in value]
    return value
