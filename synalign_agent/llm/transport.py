"""The HTTP side of a chat model: one POST, its answer as plain values, its errors as openai's exceptions.

ChatOpenAI sends through openai's own client by default, which spends more on typed models of request and reply, and on HTTP in
pure Python, than all the rest of a call takes. CPU of a call through ChatOpenAI, 50 in parallel, on one core:

| beneath ChatOpenAI | ms |
|---|---|
| openai's client on httpx | 3.7 |
| openai's client on aiohttp (its extra) | 2.4 |
| this module | 0.7 |
| nothing: LangChain's own share | 0.5 |

At 3.7 ms one core serves 270 calls a second, which 50 calls in flight at an endpoint that answers in 100 ms exceed.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import openai

from synalign_agent.llm.providers import Endpoint

_ACCOUNT_HEADERS = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
_SECRET_CHARACTERS = 8
"""Shorter keys are stand-ins, `none` or `EMPTY`, for servers that ask for none: words that errors hold for other reasons."""
_OF_THE_CLIENT = ("extra_body", "extra_headers", "extra_query", "timeout", "stream")


class Answer:
    """What `with_raw_response` gives: an answer that is yet to be parsed."""

    def __init__(self, value: Any, headers: Mapping[str, str]) -> None:
        self._value = value
        self.headers = headers

    def parse(self) -> Any:
        """Return the answer, plain dictionaries and lists."""
        return self._value


class ChatCompletions:
    """Stands where ChatOpenAI has openai's own `chat.completions`, as its `async_client`.

    Besides its cost, openai's client refuses replies of servers that are almost compatible.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_seconds: float | None) -> None:
        self._url = f"{endpoint.base_url}/chat/completions"
        self._api_key = endpoint.api_key
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        # The HTTP library of openai's exceptions, httpx or its successor, which also finds the certificates.
        self._library = importlib.import_module(
            openai.DefaultAsyncHttpxClient.__bases__[0].__module__.partition(".")[0]
        )
        self._certificates = self._library.create_ssl_context()
        self._session: aiohttp.ClientSession | None = None

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
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        try:
            async with self._connected().post(self._url, data=content) as response:
                status, headers = response.status, response.headers
                text = (await response.read()).decode("utf-8", "replace")
        except TimeoutError as error:
            raise openai.APITimeoutError(self._request()) from error
        except aiohttp.ClientError as error:
            raise openai.APIConnectionError(
                message=str(error) or "connection error", request=self._request()
            ) from error
        succeeded = 200 <= status < 300
        if not succeeded and len(self._api_key) >= _SECRET_CHARACTERS:
            # What servers say of an error is kept, in the journal too: it names the parameter or the limit, and at times the key.
            text = text.replace(self._api_key, "(API key)")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = text
        if succeeded:
            return Answer(_with_refusals_as_parts(answer), headers)
        detail = answer.get("error", answer) if isinstance(answer, dict) else answer
        response = self._library.Response(status, headers=list(headers.items()), request=self._request())
        raise openai.APIStatusError(f"Error code: {status} - {text[:500]}", response=response, body=detail)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _connected(self) -> aiohttp.ClientSession:
        # A session of its own for every model: one that models share keeps connections of an event loop that has ended, and a
        # call on such a connection is answered, paid for, and lost.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, ssl=self._certificates
                ),  # `llm/traffic.py` limits what is in flight
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={
                    "authorization": f"Bearer {self._api_key}",
                    "content-type": "application/json",
                    "accept": "application/json",
                    **{
                        name: os.environ[variable]
                        for name, variable in _ACCOUNT_HEADERS.items()
                        if os.environ.get(variable)
                    },
                },
                timeout=self._timeout,
                proxy=_proxy_of(self._url),  # once: `trust_env` reads the environment, and the disk, for every request
            )
        return self._session

    def _request(self) -> Any:
        return self._library.Request("POST", self._url)


def _proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for `url`, as openai's client would use it."""
    parts = urlsplit(url)
    proxies = getproxies()
    return None if proxy_bypass(parts.hostname or "") else proxies.get(parts.scheme) or proxies.get("all")


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
