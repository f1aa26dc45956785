from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import openai
import pytest

from synalign_agent.errors import EndpointError
from synalign_agent.llm.failures import classify, fatal_error
from synalign_agent.records import UNBILLED

URL = "http://localhost:1/v1"
REQUEST: Any = httpx.Request("POST", f"{URL}/chat/completions")


def response(status: int, **headers: str) -> Any:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=names, request=REQUEST)


def status_error(
    kind: type[openai.APIStatusError], status: int, body: Any = None, **headers: str
) -> openai.APIStatusError:
    return kind("the message", response=response(status, **headers), body=body)


def unreachable() -> openai.APIConnectionError:
    """What a port raises at which nobody listens."""
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = httpx.ConnectError("refused")
    return error


QUOTA = {"code": "insufficient_quota", "message": "You exceeded your current quota"}
FORMAT = {"message": "'response_format.type' must be one of 'json_object', 'text'"}
EXTRA_FIELD = {"message": "extra_forbidden: response_format"}
# The endpoint knows the format, but not what this schema asks for: the schema is to be changed, not the format.
BAD_SCHEMA = {"message": "Invalid schema for response_format 'GeneratedTexts': 'maxLength' is not permitted"}
CASES: list[tuple[Exception, str, bool, bool]] = [
    # error, class, retryable, fatal
    (openai.APITimeoutError(REQUEST), "timeout", True, False),
    (unreachable(), "unreachable", True, False),
    (
        status_error(openai.BadRequestError, 400, {"message": "exceeds the available context size"}),
        "context_overflow",
        False,
        False,
    ),
    (openai.APIConnectionError(request=REQUEST), "connection", True, False),
    (status_error(openai.AuthenticationError, 401), "authentication", False, True),
    (status_error(openai.PermissionDeniedError, 403), "authentication", False, True),
    (status_error(openai.NotFoundError, 404), "not_found", False, True),
    (status_error(openai.APIStatusError, 408), "server_error", True, False),
    (status_error(openai.ConflictError, 409), "server_error", True, False),
    (status_error(openai.RateLimitError, 429), "rate_limit", True, False),
    (status_error(openai.RateLimitError, 429, {"code": "rate_limit_exceeded"}), "rate_limit", True, False),
    (status_error(openai.RateLimitError, 429, QUOTA), "insufficient_quota", False, True),
    (status_error(openai.InternalServerError, 500), "server_error", True, False),
    (status_error(openai.InternalServerError, 503, "<html>overloaded</html>"), "server_error", True, False),
    (status_error(openai.InternalServerError, 529), "server_error", True, False),
    (status_error(openai.BadRequestError, 400), "bad_request", False, True),
    (status_error(openai.APIStatusError, 402), "bad_request", False, True),
    (status_error(openai.UnprocessableEntityError, 422), "bad_request", False, True),
    (status_error(openai.BadRequestError, 400, {"code": "context_length_exceeded"}), "context_overflow", False, False),
    (status_error(openai.BadRequestError, 400, {"code": "content_filter"}), "content_filter", False, False),
    (status_error(openai.BadRequestError, 400, {"code": "content_policy_violation"}), "content_filter", False, False),
    (status_error(openai.BadRequestError, 400, FORMAT), "unsupported_format", False, True),
    (status_error(openai.UnprocessableEntityError, 422, EXTRA_FIELD), "unsupported_format", False, True),
    (status_error(openai.BadRequestError, 400, BAD_SCHEMA), "bad_request", False, True),
    (openai.APIResponseValidationError(response(200), None), "malformed_response", True, False),
    (openai.APIError("no choices", REQUEST, body=None), "malformed_response", True, False),
    (TypeError("'NoneType' object is not subscriptable"), "malformed_response", True, False),
    (KeyError("choices"), "malformed_response", True, False),
]


@pytest.mark.parametrize(("error", "name", "retryable", "fatal"), CASES)
def test_every_error_has_its_class(error: Exception, name: str, retryable: bool, fatal: bool) -> None:
    failure = classify(error, URL)
    assert (failure.error_class, failure.retryable, failure.fatal is not None) == (name, retryable, fatal)
    assert failure.retry_after_seconds is None


@pytest.mark.parametrize(("error", "name", "retryable", "fatal"), CASES)
def test_a_fatal_failure_says_what_to_do_and_where(error: Exception, name: str, retryable: bool, fatal: bool) -> None:
    failure = classify(error, URL)
    assert not (retryable and fatal)
    if failure.fatal is not None:
        raised = fatal_error(failure)
        assert isinstance(raised, EndpointError) and URL in str(raised) and raised.exit_code == 5


def test_calls_that_may_have_been_served_are_charged() -> None:
    # Their answer never came or could not be read, but the endpoint may bill them.
    assert not {"timeout", "connection", "malformed_response"} & UNBILLED
    assert {name for _, name, _, _ in CASES} >= UNBILLED


@pytest.mark.parametrize("name", ["authentication", "not_found", "insufficient_quota", "rate_limit", "bad_request"])
def test_calls_that_were_turned_away_are_free(name: str) -> None:
    assert name in UNBILLED


@pytest.mark.parametrize("kind_and_status", [(openai.RateLimitError, 429), (openai.InternalServerError, 503)])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("-3", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("", None),
        ("soon", None),
    ],
)
def test_retry_after_is_read_in_seconds(
    kind_and_status: tuple[type[openai.APIStatusError], int], header: str, seconds: float | None
) -> None:
    failure = classify(status_error(*kind_and_status, retry_after=header), URL)
    assert failure.retryable and failure.retry_after_seconds == seconds


def test_retry_after_may_be_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    failure = classify(status_error(openai.RateLimitError, 429, retry_after=soon), URL)
    assert 0 < (failure.retry_after_seconds or 0) <= 30


def test_a_refused_request_passes_the_endpoints_words_on() -> None:
    body = {"message": "maxLength is not permitted", "code": None}
    failure = classify(status_error(openai.BadRequestError, 400, body), URL)
    assert "maxLength is not permitted" in str(failure.fatal) and "llm.schema_limits" in str(failure.fatal)
    without = classify(status_error(openai.BadRequestError, 400, ["odd"]), URL)
    assert "the message" in str(without.fatal)
    long = classify(status_error(openai.BadRequestError, 400, {"message": "x" * 10_000}), URL)
    assert len(str(long.fatal)) < 800


def test_a_wrong_key_names_the_option_and_not_the_key() -> None:
    failure = classify(status_error(openai.AuthenticationError, 401, {"message": "Incorrect API key: sk-abc"}), URL)
    assert "llm.api_key_env" in str(failure.fatal) and "sk-abc" not in str(failure.fatal)
