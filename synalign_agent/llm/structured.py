"""Read a structured reply: valid data, or a reason why it is none. Nothing is repaired or guessed."""

from __future__ import annotations

import json
import re
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

Parsed = TypeVar("Parsed", bound=BaseModel)

_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)


class ReplyProblem(NamedTuple):
    """Why a reply is not data."""

    reason: str
    """`length_cut`, `refused`, `empty_reply`, `malformed` or `off_schema`."""
    detail: str


def parse_reply(
    content: str | None, finish_reason: str | None, refusal: str | None, schema: type[Parsed]
) -> Parsed | ReplyProblem:
    """Validate a reply against `schema`.

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
