"""The journalled model against a scripted endpoint: what is written when, what is sent again, what is charged."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.chat_server import ChatServer, Reply, sequence

from synalign_agent.config import LimitsConfig, LLMConfig
from synalign_agent.errors import BudgetExhausted, EndpointError, InterruptedByUser
from synalign_agent.llm.base import CallRequest
from synalign_agent.llm.budget import Budget
from synalign_agent.llm.client import JournaledModel
from synalign_agent.llm.providers import Endpoint
from synalign_agent.prompting.catalog import PromptCatalog, PromptTemplate
from synalign_agent.records import CallRecord
from synalign_agent.schemas import texts_schema
from synalign_agent.stores.memory import MemorySessionStore

PROMPT = PromptCatalog.load()["generate_samples"]
REQUEST = CallRequest(
    node="generate",
    prompt=PROMPT,
    values={
        "task": "notes", "label": None, "attributes": {}, "demonstrations": [["one", "two"]], "guidance": [],
        "layout": "chat", "n": 2, "words": (3, 9),
    },
    schema=texts_schema(2, 80),
    max_tokens=100,
    round=1,
    cluster_id="c",
)  # fmt: skip

KEY = "sk-canary-4711"


class Bench:
    """A model, its store and its server."""

    def __init__(self, server: ChatServer, **llm: Any) -> None:
        limits = llm.pop("limits", LimitsConfig())
        self.store = llm.pop("store", None) or MemorySessionStore()
        config = LLMConfig(model="m", temperature=0.5, extra_body={"min_p": 0.1}, concurrency=4, **llm)
        endpoint = Endpoint(server.base_url, "m", "m", KEY)
        self.model = JournaledModel(endpoint, config, self.store, Budget(limits, self.store.call_totals()), seed=7)

    def call(self, *requests: CallRequest | Callable[[], CallRequest], in_turn: bool = False) -> list[CallRecord]:
        async def run() -> list[CallRecord]:
            try:
                if in_turn:
                    return [await self.model.call(request) for request in requests]
                return list(await asyncio.gather(*(self.model.call(request) for request in requests)))
            finally:
                await self.model.aclose()

        return asyncio.run(run())


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


def test_sends_schema_parameters_and_a_seed(server: ChatServer) -> None:
    [record] = Bench(server).call(REQUEST)
    [body] = server.requests
    assert body["response_format"]["json_schema"]["schema"] == REQUEST.schema
    assert (body["temperature"], body["max_tokens"], body["min_p"], body["seed"]) == (0.5, 100, 0.1, record.seed)
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert json.loads(body["messages"][2]["content"]) == {"texts": ["one", "two"]}
    assert record.state == "done" and len(json.loads(record.content or "")["texts"]) == 2
    assert record.prompt_tokens > 0 and record.completion_tokens > 0 and record.seconds > 0


def test_intent_is_written_before_the_request(server: ChatServer) -> None:
    bench = Bench(server)
    seen: list[str] = []
    server.script = lambda body, number: seen.extend(call.state for call in bench.store.calls())
    bench.call(REQUEST)
    assert seen == ["intended"]
    assert [call.state for call in bench.store.calls()] == ["done"]


def test_a_finished_call_is_answered_from_the_journal(server: ChatServer) -> None:
    bench = Bench(server)
    first, again = bench.call(REQUEST, REQUEST, in_turn=True)
    assert again == first
    assert len(server.requests) == 1


def test_draws_rounds_and_parameters_are_different_calls(server: ChatServer) -> None:
    requests = [REQUEST, replace(REQUEST, draw=1), replace(REQUEST, round=2), replace(REQUEST, max_tokens=90)]
    records = Bench(server).call(*requests)
    assert len({record.key for record in records}) == 4
    assert len({body["seed"] for body in server.requests}) == 3  # max_tokens changes the key, not the draw


@pytest.mark.parametrize(
    "reply",
    [
        Reply(refusal="no"),
        Reply(content="not json"),
        Reply(content="x", finish_reason="content_filter"),
    ],
)
def test_a_bad_reply_is_paid_for_once_and_kept_whole(server: ChatServer, reply: Reply) -> None:
    server.script = lambda body, number: reply
    [record] = Bench(server).call(REQUEST)
    assert len(server.requests) == 1
    assert (record.state, record.finish_reason, record.refusal) == ("done", reply.finish_reason, reply.refusal)
    assert record.content == (reply.content or "")
    assert record.prompt_tokens > 0


def cut_when_short(body: dict[str, Any], number: int) -> Reply | None:
    return Reply(content='{"texts": ["cut', finish_reason="length") if body["max_tokens"] <= 100 else None


def test_a_cut_reply_is_asked_for_once_more_with_twice_the_tokens_and_another_seed(server: ChatServer) -> None:
    server.script = cut_when_short
    bench = Bench(server)
    first, again = bench.call(REQUEST, REQUEST, in_turn=True)
    assert first == again and first.finish_reason == "stop"
    assert [body["max_tokens"] for body in server.requests] == [100, 200]
    assert len({body["seed"] for body in server.requests}) == 2
    # Both are in the journal under keys of their own, as draws of the same call; a replay finds both.
    cut, whole = bench.store.calls()
    assert (cut.state, cut.finish_reason, cut.content) == ("done", "length", '{"texts": ["cut')
    assert cut.key != whole.key and cut.draw == whole.draw and whole == first


def test_a_reply_that_is_cut_again_is_given_up(server: ChatServer) -> None:
    server.script = lambda body, number: Reply(content="{", finish_reason="length")
    [record] = Bench(server).call(REQUEST)
    assert (record.finish_reason, len(server.requests)) == ("length", 2)


def test_a_configured_token_limit_holds_for_the_second_try(server: ChatServer) -> None:
    server.script = lambda body, number: Reply(content="{", finish_reason="length")
    Bench(server, max_tokens=150).call(REQUEST)
    assert [body["max_tokens"] for body in server.requests] == [100, 150]


def test_the_cut_reply_stands_where_the_second_try_fails(server: ChatServer) -> None:
    too_long = Reply(status=400, error_code="context_length_exceeded")
    server.script = lambda body, number: cut_when_short(body, number) or too_long
    bench = Bench(server)
    [record] = bench.call(REQUEST)
    assert (record.state, record.finish_reason) == ("done", "length")
    assert [call.error_class for call in bench.store.calls()] == [None, "context_overflow"]


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
    assert 1 <= len(refused) <= 4  # those that were in flight before the first refusal


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


def test_calls_that_earlier_versions_paid_for_are_found(server: ChatServer) -> None:
    text = "<!-- role: system -->\nBe brief, ü.\n<!-- role: user -->\nWrite {{ n }}."
    prompt = PromptTemplate("p", "1", frozenset({"n"}), "GeneratedTexts", text, "0" * 64, "test")
    schema = {"type": "object", "properties": {"texts": {"type": "array"}}}
    request = CallRequest("generate", prompt, {"n": 2}, schema, max_tokens=100, round=1, cluster_id="c", draw=3)
    server.script = lambda body, number: Reply(content="x")
    [record] = Bench(server).call(request)
    # Computed by the first released version.
    assert (record.key, record.seed) == ("7fe8b69f336a282227b1dc508ce80c1c", 1872224334)


def test_a_wait_that_the_endpoint_asks_for_holds_all_calls(server: ChatServer) -> None:
    asked_at: list[float] = []

    def script(body: dict[str, Any], number: int) -> Reply | None:
        asked_at.append(time.monotonic())
        return Reply(status=429, headers={"Retry-After": "0.4"}) if number == 0 else Reply(delay_seconds=0.05)

    server.script = script
    bench = Bench(server)
    records = bench.call(*(replace(REQUEST, draw=draw) for draw in range(12)))
    assert [record.state for record in records] == ["done"] * 12
    # Three more were on their way when the first was turned away; nothing else is sent in the pause.
    assert sum(at < asked_at[0] + 0.35 for at in asked_at) <= 4


def test_overload_narrows_what_is_in_flight(server: ChatServer) -> None:
    in_flight: list[int] = []

    def script(body: dict[str, Any], number: int) -> Reply | None:
        in_flight.append(server._in_flight)
        full = Reply(status=429, headers={"Retry-After": "0"}, delay_seconds=0.2)
        return full if number < 4 else Reply(delay_seconds=0.02)

    server.script = script
    bench = Bench(server)
    bench.call(*(replace(REQUEST, draw=draw) for draw in range(20)))
    assert max(in_flight[:4]) > 2 and max(in_flight[4:7]) <= 2  # halved once, although four were turned away


def test_a_request_rate_is_kept(server: ChatServer) -> None:
    started = time.monotonic()
    Bench(server, requests_per_minute=1200).call(*(replace(REQUEST, draw=draw) for draw in range(30)))
    assert time.monotonic() - started >= 0.45  # 20 a second, of which the first second's worth is there at once


def test_sessions_share_replies_through_the_cache(server: ChatServer, tmp_path: Path) -> None:
    path = str(tmp_path / "shared" / "replies.sqlite")
    paid = Bench(server, response_cache=path)
    requests = [replace(REQUEST, draw=draw) for draw in range(6)]
    first = paid.call(*requests)
    free = Bench(server, response_cache=path)
    second = free.call(*requests, replace(REQUEST, draw=6))
    assert len(server.requests) == 7
    assert [call.content for call in second[:6]] == [call.content for call in first]
    assert [call.cached for call in second] == [True] * 6 + [False]
    totals = free.store.call_totals()
    assert (totals.done, totals.cached, totals.n_attempts) == (7, 6, 1)
    assert (
        totals.charged_tokens
        == totals.prompt_tokens + totals.completion_tokens
        == sum(call.prompt_tokens + call.completion_tokens for call in second[6:])
    )
    # The journal answers from then on, with or without the cache.
    again = Bench(server, store=free.store)
    assert again.call(*requests) == second[:6] and len(server.requests) == 7


def test_a_cut_reply_from_the_cache_leads_to_the_same_second_try(server: ChatServer, tmp_path: Path) -> None:
    server.script = cut_when_short
    path = str(tmp_path / "replies.sqlite")
    [first] = Bench(server, response_cache=path).call(REQUEST)
    [second] = Bench(server, response_cache=path).call(REQUEST)
    assert second.content == first.content and len(server.requests) == 2


def test_requests_are_made_when_their_turn_comes(server: ChatServer) -> None:
    server.script = lambda body, number: Reply(delay_seconds=0.02)
    bench, waiting = Bench(server), []

    def make(draw: int) -> CallRequest:
        waiting.append(len(server.requests))
        return replace(REQUEST, draw=draw)

    bench.call(*(partial(make, draw) for draw in range(20)))
    assert len(server.requests) == 20
    assert all(made <= sent + 4 for made, sent in enumerate(waiting))


def test_retries_are_separate_attempts_and_wait_as_asked(server: ChatServer) -> None:
    server.script = sequence(
        Reply(status=429, headers={"Retry-After": "0.3"}), Reply(status=500, headers={"Retry-After": "0"})
    )
    bench = Bench(server)
    started = time.monotonic()
    [record] = bench.call(REQUEST)
    assert time.monotonic() - started >= 0.3
    assert [(call.attempt, call.state, call.error_class) for call in bench.store.calls()] == [
        (1, "failed", "rate_limit"),
        (2, "failed", "server_error"),
        (3, "done", None),
    ]
    assert record.attempt == 3


def test_a_call_that_keeps_failing_is_given_up_alone(server: ChatServer) -> None:
    server.script = lambda body, number: Reply(status=500, headers={"Retry-After": "0"}) if number else None
    _, record = Bench(server, max_attempts=2).call(replace(REQUEST, draw=1), REQUEST, in_turn=True)
    assert (record.state, record.error_class, record.attempt) == ("failed", "server_error", 2)


@pytest.mark.parametrize(
    "reply", [Reply(raw_body=b"<html>busy</html>"), Reply(drop=True), Reply(raw_body=b'{"choices": []}')]
)
def test_answers_that_are_no_completion_are_tried_again(server: ChatServer, reply: Reply) -> None:
    server.script = sequence(reply)
    bench = Bench(server)
    [record] = bench.call(REQUEST)
    assert record.state == "done"
    assert [call.state for call in bench.store.calls()] == ["failed", "done"]


def test_a_timeout_is_charged_at_its_upper_bound(server: ChatServer) -> None:
    server.script = lambda body, number: Reply(delay_seconds=1.0)
    bench = Bench(server, timeout_seconds=0.2, max_attempts=1)
    with pytest.raises(EndpointError, match="1 of the last 1 calls"):  # it has not answered once
        bench.call(REQUEST)
    [record] = bench.store.calls()
    assert record.error_class == "timeout"
    totals = bench.store.call_totals()
    assert (totals.prompt_tokens, totals.charged_tokens) == (0, record.bound_tokens)
    assert record.bound_tokens > 100


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_key_that_the_endpoint_repeats_is_not_kept(server: ChatServer, status: int) -> None:
    server.script = lambda body, number: Reply(status=status, content=f"what is {KEY}?")
    bench = Bench(server, max_attempts=1)
    with pytest.raises(EndpointError) as raised:
        bench.call(REQUEST)
    [record] = bench.store.calls()
    assert "what is" in str(record.error) and KEY not in f"{record} {raised.value}"


def test_the_breaker_opens_on_recent_failures_only(server: ChatServer) -> None:
    server.script = lambda body, number: Reply(status=500) if number >= 20 else None
    bench = Bench(server, max_attempts=1)
    with pytest.raises(EndpointError, match="of the last 20 calls"):
        bench.call(*(replace(REQUEST, draw=draw) for draw in range(60)))
    assert 30 < len(server.requests) < 40


def test_a_halted_model_lets_calls_in_flight_finish(server: ChatServer) -> None:
    server.script = lambda body, number: Reply(delay_seconds=0.2)
    bench = Bench(server)

    async def run() -> list[CallRecord | BaseException]:
        tasks = [asyncio.create_task(bench.model.call(replace(REQUEST, draw=draw))) for draw in range(8)]
        await asyncio.to_thread(server.wait_for, 4, 10)
        bench.model.halt(InterruptedByUser("stop"))
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await bench.model.aclose()
        return outcomes

    outcomes = asyncio.run(run())
    assert [isinstance(outcome, InterruptedByUser) for outcome in outcomes] == [False] * 4 + [True] * 4
    assert len(server.requests) == bench.store.call_totals().done == 4


def test_nothing_is_sent_that_could_pass_a_limit(server: ChatServer) -> None:
    bench = Bench(server, limits=LimitsConfig(max_tokens=200))
    with pytest.raises(BudgetExhausted, match=r"limits\.max_tokens"):
        bench.call(REQUEST)
    assert server.requests == [] == bench.store.calls()
