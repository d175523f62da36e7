"""The JSON of ``paths``: how much of the gradient comes through paths of each length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from msgspec import Meta

from gradprobe.measure.blocks.profile import PathProfile
from gradprobe.tasks.documents.base import (
    SCHEMA_VERSION,
    Count,
    Document,
    Number,
    Version,
    Versions,
)


class GroupDocument(Document):
    branches: Count
    paths: Count
    norm: Number
    share: Number


class PathsDocument(Document):
    schema_version: Version
    target: str
    row: str
    blocks: Count
    gradient_norm: Number
    mean_length: Number
    effective: Annotated[list[Count], Meta(min_length=2, max_length=2)] | None
    error: Number
    left_out: Number
    groups: list[GroupDocument]
    versions: Versions

    @classmethod
    def of(cls, paths: PathProfile, target: str, versions: Mapping[str, str]) -> Self:
        return cls.taken(
            paths,
            schema_version=SCHEMA_VERSION,
            target=target,
            gradient_norm=paths.total,
            effective=list(paths.effective) if paths.effective else None,
            groups=[
                GroupDocument(branches, paths.paths(branches), norm, share)
                for branches, (norm, share) in enumerate(
                    zip(paths.norms, paths.shares, strict=True)
                )
            ],
            versions=dict(versions),
        )
