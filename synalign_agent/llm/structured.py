"""Ask for a structured reply, and read it: valid data, or a reason why it is none. Nothing is repaired or guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from synalign_agent.prompting.render import Message

Parsed = TypeVar("Parsed", bound=BaseModel)

OutputFormat = Literal["json_schema", "json_object", "text"]
FORMATS: tuple[OutputFormat, ...] = ("json_schema", "json_object", "text")
"""How an endpoint is made to answer with JSON, the strictest way first."""

_MOST_OPENINGS = 50
_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)


def response_format(format: OutputFormat, name: str, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the `response_format` of a request, or None where the prompt alone asks for JSON."""
    if format == "json_schema":
        return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}
    return {"type": "json_object"} if format == "json_object" else None


def instruct(messages: Sequence[Message], schema_text: str) -> list[Message]:
    """Write the schema into the first message, for endpoints that enforce none.

    It stands in front of all that differs between calls, where an endpoint's prefix cache keeps it.
    """
    rule = (
        "Answer with one JSON object and nothing else: no explanation, no Markdown. "
        f"It must fit this JSON Schema:\n{schema_text}"
    )
    head, *rest = messages
    if head.role != "system":
        return [Message("system", rule), *messages]
    return [Message("system", f"{head.content}\n\n{rule}"), *rest]


class ReplyProblem(NamedTuple):
    """Why a reply is not data."""

    reason: str
    """`length_cut`, `refused`, `empty_reply`, `malformed` or `off_schema`."""
    detail: str


def parse_reply(
    content: str | None, finish_reason: str | None, refusal: str | None, schema: type[Parsed], *, lenient: bool = False
) -> Parsed | ReplyProblem:
    """Validate a reply against `schema`; `lenient` looks for a valid JSON object in whatever text there is around it.

    A reply that was cut by the token limit is refused even if what came happens to parse: its last text may be half a text.
    A Markdown code fence around the JSON is tolerated, as models add it where no grammar stops them.
    """
    if refusal:
        return ReplyProblem("refused", refusal)
    if finish_reason == "content_filter":
        return ReplyProblem("refused", "stopped by the endpoint's content filter")
    if finish_reason == "length":
        return ReplyProblem("length_cut", "the reply reached max_tokens")
    if content is None or not content.strip():
        return ReplyProblem("empty_reply", "")
    strict = _parse(content, schema)
    if not lenient or not isinstance(strict, ReplyProblem):
        return strict
    found = (_parse(part, schema) for part in _objects(content))
    return next((parsed for parsed in found if not isinstance(parsed, ReplyProblem)), strict)


def _objects(content: str) -> Iterator[str]:
    """Yield the JSON objects in a text, the last first: a model that thinks aloud ends with its answer."""
    decoder, found, at = json.JSONDecoder(), [], content.find("{")
    for _ in range(_MOST_OPENINGS):
        if at < 0:
            break
        try:
            _, end = decoder.raw_decode(content, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            found.append(content[at:end])
        at = content.find("{", end)
    return reversed(found)


def _parse(content: str, schema: type[Parsed]) -> Parsed | ReplyProblem:
    fenced = _FENCE.match(content)
    try:
        value = json.loads(fenced.group(1) if fenced else content)
    except json.JSONDecodeError as error:
        return ReplyProblem("malformed", f"{error.msg} at character {error.pos}")
    except (RecursionError, ValueError) as error:  # brackets without end; a number with more digits than Python reads
        return ReplyProblem("malformed", str(error))
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return ReplyProblem("malformed", "holds half of a surrogate pair, which no file can store")
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return ReplyProblem("off_schema", f"{where}: {first['msg']}" if where else first["msg"])
