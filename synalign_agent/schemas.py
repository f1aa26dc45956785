"""What the LLM must answer: pydantic models that own the output schemas, named by the prompts' front matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator

MAX_ATTRIBUTE_CHARACTERS = 80


class GeneratedTexts(BaseModel):
    """New texts written by the generator."""

    texts: list[str] = Field(min_length=1)


class AttributeValues(RootModel[dict[str, str]]):
    """One value per attribute dimension."""


class Dimension(BaseModel):
    """An attribute along which the texts vary."""

    name: str = Field(min_length=1, max_length=40)
    description: str = Field(min_length=1, max_length=200)

    @field_validator("name")
    @classmethod
    def _as_key(cls, name: str) -> str:
        return "_".join(name.lower().split())


class ProposedDimensions(BaseModel):
    """Attribute dimensions, proposed once per session."""

    dimensions: list[Dimension] = Field(min_length=1)


class LabelJudgement(BaseModel):
    """Which label a text carries, as the judge sees it."""

    model_config = ConfigDict(extra="ignore")
    label: str


OUTPUT_SCHEMAS: Mapping[str, type[BaseModel]] = {
    model.__name__: model for model in (GeneratedTexts, AttributeValues, ProposedDimensions, LabelJudgement)
}


def texts_schema(n: int, max_characters: int | None) -> dict[str, Any]:
    """Return the JSON Schema for exactly `n` texts of at most `max_characters` (None: no limit in the schema)."""
    text: dict[str, Any] = {"type": "string"}
    if max_characters is not None:
        text["maxLength"] = max_characters
    return _object({"texts": {"type": "array", "items": text, "minItems": n, "maxItems": n}})


def attributes_schema(dimensions: Sequence[str], *, limits: bool) -> dict[str, Any]:
    """Return the JSON Schema for one short value per dimension."""
    value: dict[str, Any] = {"type": "string"}
    if limits:
        value["maxLength"] = MAX_ATTRIBUTE_CHARACTERS
    return _object({name: value for name in dimensions})


def dimensions_schema(n: int, *, limits: bool) -> dict[str, Any]:
    """Return the JSON Schema for `n` named dimensions."""
    name, description = ({"type": "string", "maxLength": 40}, {"type": "string", "maxLength": 120}) if limits else (
        {"type": "string"}, {"type": "string"})  # fmt: skip
    item = _object({"name": name, "description": description})
    return _object({"dimensions": {"type": "array", "items": item, "minItems": n, "maxItems": n}})


def judgement_schema(labels: Sequence[str]) -> dict[str, Any]:
    """Return the JSON Schema for one of `labels`."""
    return _object({"label": {"type": "string", "enum": list(labels)}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
