"""One chat completion: what is asked, and what came back, whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from synalign_agent.config import LLMConfig
from synalign_agent.llm.providers import Endpoint
from synalign_agent.llm.transport import ChatCompletions
from synalign_agent.prompting.render import Message


class ChatReply(NamedTuple):
    """What the endpoint answered."""

    content: str
    finish_reason: str | None
    refusal: str | None
    prompt_tokens: int
    completion_tokens: int


class ChatClient:
    """LangChain's chat model of an endpoint, without retries: those are the journal's business."""

    def __init__(self, endpoint: Endpoint, config: LLMConfig) -> None:
        self._extra_body = config.extra_body or {}
        self._temperature = config.temperature
        self._hosted_by_openai = endpoint.hosted_by_openai
        self._completions = ChatCompletions(endpoint, timeout_seconds=config.timeout_seconds)
        self._chat = ChatOpenAI(
            model=endpoint.model,
            base_url=endpoint.base_url,
            api_key=SecretStr(endpoint.api_key),
            temperature=config.temperature,
            max_retries=0,
            use_responses_api=False,
            async_client=self._completions,
            client=self._completions,  # never used: without one, a client for blocking calls would be made
        )

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        seed: int,
        max_tokens: int,
        temperature: float | None,
        response_format: Mapping[str, Any] | None,
    ) -> ChatReply:
        """Send one request.

        Raises:
            Exception: the request failed, or the answer is no chat completion; see `llm/failures.py`.
        """
        # The format travels in `extra_body`: given as `response_format`, langchain-openai parses the reply itself and raises
        # for cut and refused ones, and what was paid for is lost. Here the whole reply reaches the journal.
        body: dict[str, Any] = dict(self._extra_body)
        if response_format is not None:
            body["response_format"] = response_format
        # Sent as `max_tokens`, which every compatible server knows; the client would rename it.
        limit = {"max_tokens": max_tokens}
        asked: dict[str, Any] = (
            {"extra_body": body, **limit} if self._hosted_by_openai else {"extra_body": {**body, **limit}}
        )
        if temperature != self._temperature:  # Where it is the usual one, LangChain knows which models refuse it.
            asked["temperature"] = temperature
        reply = await self._chat.ainvoke([(message.role, message.content) for message in messages], seed=seed, **asked)
        parts = [{"text": reply.content}] if isinstance(reply.content, str) else reply.content
        content = "".join(part.get("text", "") for part in parts if isinstance(part, dict))
        refusal = "".join(part.get("refusal", "") for part in parts if isinstance(part, dict))
        usage = reply.usage_metadata
        return ChatReply(
            _storable(content),
            reply.response_metadata.get("finish_reason"),
            _storable(refusal) or None,
            usage["input_tokens"] if usage else 0,
            usage["output_tokens"] if usage else 0,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._completions.aclose()


def _storable(text: str) -> str:
    """Replace halves of surrogate pairs: the reply is paid for, so it must reach the journal whatever it holds."""
    return text.encode("utf-8", "replace").decode()
