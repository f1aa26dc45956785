"""From a request to what is sent: messages, limits, the seed, and the key under which the journal finds the call again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from synalign_agent.config import LLMConfig
from synalign_agent.llm.base import CallRequest
from synalign_agent.llm.budget import Amount, cost_usd, prompt_token_bound
from synalign_agent.llm.providers import Endpoint
from synalign_agent.llm.structured import OutputFormat, instruct, response_format
from synalign_agent.prompting.render import Message, render
from synalign_agent.records import CallRecord


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call, ready to be sent."""

    planned: CallRecord
    messages: Sequence[Message]
    response_format: dict[str, Any] | None
    output_format: OutputFormat
    max_tokens: int
    temperature: float | None


class Preparer:
    """Renders the calls of one session to one endpoint."""

    def __init__(self, endpoint: Endpoint, config: LLMConfig, seed: int) -> None:
        self._endpoint = endpoint
        self._config = config
        self._seed = seed

    def prepare(self, request: CallRequest, output_format: OutputFormat, *, after_cut: bool) -> Prepared:
        """Render a request; `after_cut` asks for more tokens, with another seed, as the first reply was cut."""
        messages = render(request.prompt, request.values)
        schema_text = json.dumps(request.schema, sort_keys=True, ensure_ascii=False)
        if output_format != "json_schema":
            messages = instruct(messages, schema_text)
        max_tokens = self._more_tokens(request.max_tokens) if after_cut else request.max_tokens
        identity = [
            self._seed,
            request.node,
            request.round,
            request.cluster_id,
            request.draw,
            self._endpoint.identity,
            messages,
            schema_text,
        ]
        # Marks are added only where something differs from a plain call, so that calls of earlier versions are found.
        if after_cut:
            identity.append("after a cut")
        if output_format != "json_schema":
            identity.append(output_format)
        identity_text = _canonical(identity)
        seed = int.from_bytes(_sha256(identity_text)[:4], "big") >> 1
        temperature = self._config.temperature
        if request.is_reading and self._config.reading_temperature is not None:
            temperature = self._config.reading_temperature
        parameters = _canonical([temperature, max_tokens, self._config.extra_body, seed])
        bound = self._bound(messages, schema_text, max_tokens)
        planned = CallRecord(
            key=_sha256(f"[{identity_text}, {parameters}]").hex()[:32], attempt=0, state="intended", node=request.node,
            round=request.round, cluster_id=request.cluster_id, draw=request.draw, prompt=request.prompt.name,
            prompt_version=request.prompt.version, prompt_sha256=request.prompt.sha256, model=self._endpoint.identity,
            seed=seed, bound_tokens=bound.tokens, bound_usd=bound.usd,
        )  # fmt: skip
        asked = response_format(output_format, request.prompt.output_schema, request.schema)
        return Prepared(planned, messages, asked, output_format, max_tokens, temperature)

    def _more_tokens(self, max_tokens: int) -> int:
        allowed = self._config.max_tokens
        return 2 * max_tokens if allowed is None else max(max_tokens, min(2 * max_tokens, allowed))

    def _bound(self, messages: Sequence[Message], schema_text: str, max_tokens: int) -> Amount:
        prompt_tokens = prompt_token_bound(messages, schema_text)
        return Amount(prompt_tokens + max_tokens, cost_usd(self._config.prices, prompt_tokens, max_tokens))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
