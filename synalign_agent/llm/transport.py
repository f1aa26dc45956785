"""The HTTP side of a chat model: one POST, its answer as plain values, its errors as openai's exceptions."""

from __future__ import annotations

import importlib
import json
import math
import os
from typing import Any

import openai
from openai import DefaultAsyncHttpxClient

from synalign_agent.llm.providers import Endpoint

_POOL_CONNECTIONS = 8
"""httpx looks at every connection of a pool before and after each request: 50 of them cost more than the request."""
_ACCOUNT_HEADERS = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
_OF_THE_CLIENT = ("extra_body", "extra_headers", "extra_query", "timeout", "stream")


class Answer:
    """What `with_raw_response` gives: an answer that is yet to be parsed."""

    def __init__(self, value: Any, headers: Any) -> None:
        self._value = value
        self.headers = headers

    def parse(self) -> Any:
        """Return the answer, plain dictionaries and lists."""
        return self._value


class ChatCompletions:
    """Stands where ChatOpenAI has openai's own `chat.completions`, as its `async_client`.

    openai's client builds typed models of the request and the reply, which takes longer than the rest of a call, and refuses
    replies of servers that are almost compatible.
    """

    def __init__(self, endpoint: Endpoint, *, concurrency: int, timeout_seconds: float | None) -> None:
        self._api_key = endpoint.api_key
        # The HTTP library that openai brings: httpx, or its successor.
        self._library = importlib.import_module(DefaultAsyncHttpxClient.__bases__[0].__module__.partition(".")[0])
        self._url = self._library.URL(f"{endpoint.base_url}/chat/completions")
        certificates = self._library.create_ssl_context()  # reading them takes longest: once for all pools
        headers = {
            "authorization": f"Bearer {endpoint.api_key}",
            "content-type": "application/json",
            "accept": "application/json",
            **{name: os.environ[variable] for name, variable in _ACCOUNT_HEADERS.items() if os.environ.get(variable)},
        }
        # Clients of its own for every model: the one that langchain-openai shares keeps connections of an event loop that has
        # ended, and a call on such a connection is answered, paid for, and lost.
        self._pools = [
            DefaultAsyncHttpxClient(verify=certificates, headers=headers, timeout=timeout_seconds)
            for _ in range(math.ceil(concurrency / _POOL_CONNECTIONS))
        ]
        self._in_flight = [0] * len(self._pools)

    @property
    def with_raw_response(self) -> ChatCompletions:
        """Itself: all of its answers are raw."""
        return self

    async def create(self, **payload: Any) -> Answer:
        """Send one request.

        Raises:
            openai.OpenAIError: what openai's client would raise, for one place that sorts the errors of an endpoint.
        """
        body = {name: value for name, value in payload.items() if name not in _OF_THE_CLIENT}
        body |= payload.get("extra_body") or {}
        pool = min(range(len(self._pools)), key=self._in_flight.__getitem__)
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        request = self._pools[pool].build_request("POST", self._url, content=content)
        self._in_flight[pool] += 1
        try:
            response = await self._pools[pool].send(request)
        except self._library.TimeoutException as error:
            raise openai.APITimeoutError(request) from error
        except self._library.RequestError as error:
            raise openai.APIConnectionError(message=str(error) or "connection error", request=request) from error
        finally:
            self._in_flight[pool] -= 1
        # What servers say of an error is kept, in the journal too: it names the parameter or the limit, and at times the key.
        text = response.text if response.is_success else response.text.replace(self._api_key, "(API key)")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = text
        if response.is_success:
            return Answer(_with_refusals_as_parts(answer), response.headers)
        detail = answer.get("error", answer) if isinstance(answer, dict) else answer
        raise openai.APIStatusError(
            f"Error code: {response.status_code} - {text[:500]}", response=response, body=detail
        )

    async def aclose(self) -> None:
        """Close the connections."""
        for pool in self._pools:
            await pool.aclose()


def _with_refusals_as_parts(answer: Any) -> Any:
    """Move refusals into the content, in the shape that they have there: of plain answers LangChain reads the content only."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict) and message.get("refusal"):
            parts = [{"type": "refusal", "refusal": str(message["refusal"])}]
            if isinstance(message.get("content"), str) and message["content"]:
                parts.append({"type": "text", "text": message["content"]})
            message["content"] = parts
    return answer
