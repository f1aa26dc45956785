"""What all parts of the configuration have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import PydanticCustomError

# Marks fields that cannot change what is generated or chosen: they may differ between two openings of one session.
OPERATIONAL: dict[str, JsonValue] = {"operational": True}
# Marks fields that are younger than the first sessions and change nothing at their default: the fingerprint counts them only
# elsewhere, so that a configuration from before keeps the one it had.
NEUTRAL_DEFAULT: dict[str, JsonValue] = {"neutral_default": True}

SECRET_ERROR = "secret_value"
"""Type of validation errors whose input must not be shown."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

Share = Annotated[float, Field(ge=0.0, le=1.0)]


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


def walk_fields(section: Section, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield `(dotted name, field info, plain value)` of every leaf field, in declaration order."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from walk_fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info, value
