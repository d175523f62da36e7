"""The JSON of ``diff``: each target before and after, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from gradprobe.tasks.diff import Difference, RowChange
from gradprobe.tasks.documents.base import SCHEMA_VERSION, Amount, Count, Document, Number, Version
from gradprobe.tasks.documents.report import FindingDocument
from gradprobe.verdict.report import Report, Verdict

What = Literal["added", "removed", "layer", "parameters", "status", "output", "gradient", "reach"]


class SideDocument(Document):
    target: str
    verdict: Verdict
    reach: Number

    @classmethod
    def of(cls, report: Report) -> Self:
        return cls.taken(report)


class RowSideDocument(Document):
    kind: str
    parameters: Count
    reach: Amount | None


class RowChangeDocument(Document):
    name: str
    changed: list[What]
    before: RowSideDocument | None
    after: RowSideDocument | None

    @classmethod
    def of(cls, change: RowChange) -> Self:
        before, after = (
            RowSideDocument(row.kind, row.size, reach) if row else None
            for row, reach in zip((change.before, change.after), change.reaches, strict=True)
        )
        what: list[What] = list(change.what)  # type: ignore[arg-type]
        return cls(name=change.row.name, changed=what, before=before, after=after)


class PartingDocument(Document):
    """The first row that parts: on the way forward, or else on the gradient's way back."""

    row: str
    what: list[What]
    back: bool


class DifferenceDocument(Document):
    before: SideDocument
    after: SideDocument
    worse: list[str]  # why it got worse
    parting: PartingDocument | None
    gone: list[FindingDocument]
    new: list[FindingDocument]
    rows: list[RowChangeDocument]

    @classmethod
    def of(cls, difference: Difference) -> Self:
        parting = difference.parting
        return cls(
            before=SideDocument.of(difference.before),
            after=SideDocument.of(difference.after),
            worse=list(difference.worse),
            parting=PartingDocument.taken(parting, what=list(parting.what)) if parting else None,
            gone=[FindingDocument.of(finding) for finding in difference.gone],
            new=[FindingDocument.of(finding) for finding in difference.new],
            rows=[RowChangeDocument.of(change) for change in difference.rows],
        )


class DiffDocument(Document):
    schema_version: Version
    worse: bool
    differences: list[DifferenceDocument]

    @classmethod
    def of(cls, differences: Sequence[Difference]) -> Self:
        worse = any(difference.worse for difference in differences)
        return cls(SCHEMA_VERSION, worse, [DifferenceDocument.of(each) for each in differences])
