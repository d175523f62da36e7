"""What all documents share: the base class, and the types of their fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from msgspec import Meta, Struct

SCHEMA_VERSION: Literal[1] = 1

Version = Literal[1]
Number = float | None  # null: there is none, or it is not finite
Amount = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Position = Annotated[int, Meta(ge=1)]  # a line or a column
SeverityWord = Literal["info", "warning", "error"]
Code = Literal[0, 1, 2, 3]
Versions = dict[str, str]


class Document(Struct):
    """One JSON object. A field that is ``UNSET`` is left out."""

    @classmethod
    def taken(cls, source: object, /, **others: Any) -> Self:
        """A document of ``others`` and of the attributes of ``source``, each under its own name.

        Fields with a default are taken from ``others`` only.
        """
        required = len(cls.__struct_fields__) - len(cls.__struct_defaults__)
        names = [name for name in cls.__struct_fields__[:required] if name not in others]
        return cls(**{name: getattr(source, name) for name in names}, **others)


def exactly(names: Sequence[str], schema: dict[str, Any]) -> Meta:
    """The schema of an object that has these keys and no other."""
    properties = dict.fromkeys(names, schema)
    return Meta(
        extra_json_schema={
            "properties": properties,
            "required": list(names),
            "additionalProperties": False,
        }
    )
