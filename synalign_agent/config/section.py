"""What all parts of the configuration have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

# Marks fields that cannot change what is generated or chosen: they may differ between two openings of one session.
OPERATIONAL: dict[str, JsonValue] = {"operational": True}

_BEFORE = "before_added"
SECRET_ERROR = "secret_value"
"""Type of validation errors whose input must not be shown."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

Share = Annotated[float, Field(ge=0.0, le=1.0)]


def added(before: JsonValue) -> dict[str, JsonValue]:
    """Mark a field that is younger than the first sessions, which behave as if it had the value `before`.

    A stored configuration without the field is read with that value, and the fingerprint leaves the field out where it has it.
    """
    return {_BEFORE: before}


class Section(BaseModel):
    """A part of the configuration; unknown fields are refused, so that a typo never passes silently."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


def check_variable(name: str, held: str) -> None:
    """Refuse what cannot be the name of an environment variable: it may be the secret itself.

    Args:
        name: of the variable.
        held: the sentence's end, what belongs in that variable.
    """
    if not _VARIABLE.match(name):
        raise PydanticCustomError(
            SECRET_ERROR, "must be the name of an environment variable; {held} in that variable", {"held": held}
        )


def walk_fields(section: Section, prefix: str = "") -> Iterator[tuple[str, FieldInfo, Any]]:
    """Yield `(dotted name, field info, plain value)` of every leaf field, in declaration order."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from walk_fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info, value


def is_operational(info: FieldInfo) -> bool:
    """Tell whether a field is marked `OPERATIONAL`."""
    return isinstance(info.json_schema_extra, dict) and bool(info.json_schema_extra.get("operational"))


def value_before(info: FieldInfo) -> tuple[JsonValue, ...]:
    """Return the value that sessions from before the field behave by (`added`), or nothing where it was always there."""
    marks = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    return (marks[_BEFORE],) if _BEFORE in marks else ()
