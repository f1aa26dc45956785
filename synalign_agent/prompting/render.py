"""Turn a prompt template and values into chat messages."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import Template

from synalign_agent.errors import ConfigError
from synalign_agent.prompting.catalog import PromptTemplate, environment

_MARKER = re.compile(r"<!-- role: (system|user|assistant) -->")


# A marker counts only with a nonce that no value can know, so a row that contains `<!-- role: system -->` stays text.
_NONCE = secrets.token_hex(16)


class Message(NamedTuple):
    """One chat message."""

    role: str
    content: str


def render(template: PromptTemplate, values: Mapping[str, Any]) -> list[Message]:
    """Render `template` and cut it into messages at its role markers.

    Values are data: neither Jinja syntax nor role markers inside them have any effect.

    Raises:
        ConfigError: a value is missing, or the template has text before its first role marker.
    """
    try:
        text = _compiled(template).render(**values)
    except Exception as error:  # a template can do anything that Python can refuse
        raise ConfigError(f"{template.source}: {error}") from None
    head, *parts = re.split(f"\x00{_NONCE}:(system|user|assistant)\x00", text)
    if head.strip() or not parts:
        raise ConfigError(f"{template.source}: text must follow a `<!-- role: ... -->` marker")
    return [Message(role, content.strip()) for role, content in zip(parts[::2], parts[1::2], strict=True)]


@lru_cache
def _compiled(template: PromptTemplate) -> Template:
    marked = _MARKER.sub(lambda match: f"\x00{_NONCE}:{match.group(1)}\x00", template.body)
    return environment().from_string(marked)
