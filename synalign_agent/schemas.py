"""What the LLM must answer: pydantic models that own the output schemas, named by the prompts' front matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel, field_validator, model_validator
from typing_extensions import TypedDict

MAX_ATTRIBUTE_CHARACTERS = 80
"""Of a value that the model writes, where the endpoint enforces limits."""
MAX_DIMENSION_CHARACTERS = 40
MAX_MEANING_CHARACTERS = 120
"""Of a dimension's name and description that the model writes, where the endpoint enforces limits."""
_MAX_REVIEWED_CHARACTERS = 400


class GeneratedTexts(BaseModel):
    """New texts written by the generator."""

    texts: list[str] = Field(min_length=1)


class AttributeValues(RootModel[dict[str, str]]):
    """One value per attribute dimension."""


class Dimension(BaseModel):
    """An attribute along which the texts vary."""

    # No upper limits: an answer that has been paid for is not thrown away because one sentence of it is long.
    name: str
    description: str = Field(min_length=1)

    @field_validator("name")
    @classmethod
    def _as_key(cls, name: str) -> str:
        if not (key := "_".join(name.lower().split())):
            raise ValueError("a dimension needs a name")
        return key


class ProposedDimensions(BaseModel):
    """Attribute dimensions, proposed once per session."""

    dimensions: list[Dimension] = Field(min_length=1)


class LabelJudgement(BaseModel):
    """Which label a text carries, as the judge sees it."""

    model_config = ConfigDict(extra="ignore")
    label: str


class ActionRequest(TypedDict):
    """One item that waits for a person."""

    name: str
    args: dict[str, Any]
    description: str


class ReviewRules(TypedDict):
    """What may be answered to the items of one name."""

    action_name: str
    allowed_decisions: list[str]


class ReviewRequest(TypedDict):
    """What an interrupt shows, in the shape of LangChain's HITLRequest, which front ends know."""

    action_requests: list[ActionRequest]
    review_configs: list[ReviewRules]


class EditedAction(BaseModel):
    """The item as it should be: `args` holds the new `text`, or all `attributes`."""

    model_config = ConfigDict(extra="forbid")
    name: str = ""
    args: dict[str, JsonValue]


class ReviewDecision(BaseModel):
    """What a person decided about one item; the first three fields are LangChain's."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["approve", "edit", "reject"]
    edited_action: EditedAction | None = Field(None, description="Needed by `edit`.")
    message: str | None = Field(None, description="The reason, needed by `reject`.")
    item_id: str | None = Field(None, description="Which item; without it decisions go by the order of the items.")
    reviewer: str = Field("api", min_length=1, description="Who decided.")
    decided_at: str | None = Field(None, description="When, ISO 8601 (null = when the answer arrives).")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "edit" and self.edited_action is None:
            raise ValueError("`edit` needs `edited_action`, with the item's new content in its `args`")
        if self.type == "reject" and not (self.message or "").strip():
            raise ValueError("`reject` needs `message`, the reason: it guides what is written next")
        return self


class ReviewAnswer(BaseModel):
    """What resumes a review: a decision for each item."""

    model_config = ConfigDict(extra="forbid")
    decisions: list[ReviewDecision] = Field(min_length=1)


def clean_attributes(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return attributes as a person gave them, without those that were left empty.

    Raises:
        ValueError: a name or a value cannot be an attribute; the message says which.
    """
    kept: dict[str, str] = {}
    for name, value in attributes.items():
        if not isinstance(value, str):
            raise ValueError(f"attribute {name!r}: the value must be text, not {value!r}")
        name, value = " ".join(name.split()), " ".join(value.split())
        if not name or max(len(name), len(value)) > _MAX_REVIEWED_CHARACTERS:
            raise ValueError(f"attribute {name!r}: name and value may have 1 to {_MAX_REVIEWED_CHARACTERS} characters")
        if value:
            kept[name] = value
    return kept


def texts_schema(n: int, max_characters: int | None) -> dict[str, Any]:
    """Return the JSON Schema for exactly `n` texts of at most `max_characters` (None: no limit in the schema)."""
    return _object({"texts": {"type": "array", "items": _text(max_characters), "minItems": n, "maxItems": n}})


def attributes_schema(dimensions: Sequence[str], max_characters: int | None) -> dict[str, Any]:
    """Return the JSON Schema for one value of at most `max_characters` (None: no limit in the schema) per dimension."""
    return _object({name: _text(max_characters) for name in dimensions})


def dimensions_schema(n: int, *, limits: bool) -> dict[str, Any]:
    """Return the JSON Schema for `n` named dimensions."""
    name, meaning = (MAX_DIMENSION_CHARACTERS, MAX_MEANING_CHARACTERS) if limits else (None, None)
    item = _object({"name": _text(name), "description": _text(meaning)})
    return _object({"dimensions": {"type": "array", "items": item, "minItems": n, "maxItems": n}})


def judgement_schema(labels: Sequence[str]) -> dict[str, Any]:
    """Return the JSON Schema for one of `labels`."""
    return _object({"label": {"type": "string", "enum": list(labels)}})


def _text(max_characters: int | None) -> dict[str, Any]:
    return {"type": "string"} if max_characters is None else {"type": "string", "maxLength": max_characters}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
