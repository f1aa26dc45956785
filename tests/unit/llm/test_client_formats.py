"""The journalled model and endpoints that take no JSON schema: the format is found out, remembered, and part of the key."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.chat_server import ChatServer, Reply
from support.model_bench import REQUEST, Bench

from synalign_agent.errors import EndpointError


def only(*formats: str | None) -> Any:
    """Return a script of a server that takes these response formats alone."""

    def script(body: dict[str, Any], number: int) -> Reply | None:
        asked = body.get("response_format", {}).get("type")
        if asked not in formats:
            return Reply(status=400, content=f"response_format {asked} is not supported")
        return None if asked == "json_schema" else Reply(content='Sure: {"texts": ["a", "b"]}')

    return script


@pytest.mark.parametrize(
    ("formats", "asked"),
    [
        (["json_schema"], ["json_schema"]),
        (["json_object", None], ["json_schema", "json_object"]),
        ([None], ["json_schema", "json_object", None]),
    ],
)
def test_the_first_calls_find_the_output_format_and_the_session_remembers_it(
    server: ChatServer, formats: list[str | None], asked: list[str | None]
) -> None:
    server.script = only(*formats)
    bench = Bench(server)
    [record] = bench.call(REQUEST)
    assert [body.get("response_format", {}).get("type") for body in server.requests] == asked
    assert record.state == "done" and bench.model.lenient == (formats != ["json_schema"])
    # What was refused is in the journal, cost nothing, and the answered call alone is paid for.
    calls = bench.store.calls()
    assert [call.error_class for call in calls] == ["unsupported_format"] * (len(asked) - 1) + [None]
    assert bench.store.call_totals().charged_tokens == record.prompt_tokens + record.completion_tokens
    # A resume neither probes nor pays again.
    resumed = Bench(server, store=bench.store)
    assert resumed.call(REQUEST) == [record] and len(server.requests) == len(asked)
    another = Bench(server, store=bench.store)
    another.call(replace(REQUEST, draw=9))
    assert len(server.requests) == len(asked) + 1


def test_calls_in_flight_together_all_find_the_format(server: ChatServer) -> None:
    server.script = only("json_object")
    bench = Bench(server)
    records = bench.call(*(replace(REQUEST, draw=draw) for draw in range(12)))
    assert [record.state for record in records] == ["done"] * 12
    refused = [call for call in bench.store.calls() if call.error_class == "unsupported_format"]
    assert 1 <= len(refused) <= 8  # those that were in flight, or stood at the gate, before the first refusal


def test_without_a_schema_the_prompt_carries_it(server: ChatServer) -> None:
    server.script = only(None)
    bench = Bench(server, structured_output="text")
    bench.call(REQUEST)
    [body] = server.requests
    assert "response_format" not in body
    assert json.dumps(REQUEST.schema, sort_keys=True) in body["messages"][0]["content"]
    assert bench.model.lenient


def test_a_chosen_format_that_is_refused_stops_the_run(server: ChatServer) -> None:
    server.script = only(None)
    with pytest.raises(EndpointError, match=r"llm\.structured_output"):
        Bench(server, structured_output="json_schema").call(REQUEST)
    assert len(server.requests) == 1


def test_a_schema_that_is_refused_for_what_it_says_is_not_worked_around(server: ChatServer) -> None:
    message = "Invalid schema for response_format: 'maxLength' is not permitted"
    server.script = lambda body, number: Reply(status=400, content=message)
    with pytest.raises(EndpointError, match=r"llm\.schema_limits"):
        Bench(server).call(REQUEST)
    assert len(server.requests) == 1
