"""Sort the errors of an endpoint: worth a retry, worth skipping the call, or a reason to stop at once."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp
import openai

from synalign_agent.errors import EndpointError

UNSUPPORTED_FORMAT = "unsupported_format"
"""The error class of a request whose `response_format` the endpoint does not know."""

# What servers call a prompt that is too long: OpenAI, vLLM, llama.cpp and Ollama each in their own words.
_CONTEXT = re.compile(r"context[ _](length|size|window)|too long|exceed\w* .*context", re.IGNORECASE)
_FORMAT = re.compile(r"response_?format|json_schema|json_object|structured[ _]outputs?|guided[ _]", re.IGNORECASE)
_FILTERED = ("content_filter", "content_policy_violation")
_SCHEMA = re.compile(r"invalid .{0,10}schema|schema .{0,40}(invalid|not (valid|permitted))", re.IGNORECASE)


class Failure(NamedTuple):
    """What an exception of the endpoint means."""

    error_class: str
    """A short word that reports count by."""
    retryable: bool
    fatal: str | None
    """What to do, if no call can succeed before somebody does it."""
    retry_after_seconds: float | None = None


def classify(error: Exception, base_url: str) -> Failure:
    """Classify an exception that a chat call raised."""
    if isinstance(error, openai.APITimeoutError):
        return Failure("timeout", True, None)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        # httpx's by name, as openai brings that or its successor.
        refused = isinstance(cause, aiohttp.ClientConnectorError) or type(cause).__name__ == "ConnectError"
        return Failure("unreachable" if refused else "connection", True, None)
    if isinstance(error, openai.APIStatusError):
        return _by_status(error, base_url)
    # A 200 whose body is not a chat completion (HTML of a proxy, no choices) surfaces as whatever the client trips over.
    return Failure("malformed_response", True, None)


def _by_status(error: openai.APIStatusError, base_url: str) -> Failure:
    status = error.status_code
    if status == 429 and error.code == "insufficient_quota":
        return Failure(
            "insufficient_quota", False, f"{base_url} says that the quota is used up; add credit, then resume"
        )
    if status in (401, 403):
        return Failure(
            "authentication",
            False,
            f"{base_url} refused the API key ({status}); set the variable named by llm.api_key_env",
        )
    if status == 404:
        return Failure(
            "not_found", False, f"{base_url} does not know this model or path (404); check llm.model and llm.base_url"
        )
    if status == 429:
        return Failure("rate_limit", True, None, _retry_after(error.response.headers.get("retry-after")))
    if status in (408, 409) or status >= 500:
        return Failure("server_error", True, None, _retry_after(error.response.headers.get("retry-after")))
    message = _message(error)
    if error.code == "context_length_exceeded" or (status in (400, 413) and _CONTEXT.search(message)):
        return Failure("context_overflow", False, None)
    if error.code in _FILTERED:
        return Failure("content_filter", False, None)
    if status in (400, 415, 422) and _FORMAT.search(message) and not _SCHEMA.search(message):
        return Failure(
            UNSUPPORTED_FORMAT,
            False,
            f"{base_url} does not take this response format ({status}): {message}. Set llm.structured_output: auto (or "
            "json_object, or text)",
        )
    return Failure(
        "bad_request",
        False,
        f"{base_url} refused the request ({status}): {message}. If it names the schema, set llm.schema_limits: false, or "
        "llm.structured_output: json_object; if a parameter, see llm.temperature and llm.extra_body",
    )


def fatal_error(failure: Failure) -> EndpointError:
    """Return the exception that stops the run."""
    return EndpointError(str(failure.fatal))


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:  # "-0000": a date without a zone is UTC
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _message(error: openai.APIStatusError) -> str:
    body: Any = error.body
    text = body.get("message") if isinstance(body, dict) else None
    return str(text or error.message)[:300]
