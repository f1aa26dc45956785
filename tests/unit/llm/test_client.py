"""The journalled model against a scripted endpoint: what is written when, what is sent again, what is charged."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.chat_server import ChatServer, Reply, sequence

from synalign_agent.config import LimitsConfig, LLMConfig
from synalign_agent.errors import BudgetExhausted, EndpointError, InterruptedByUser
from synalign_agent.llm.base import CallRequest
from synalign_agent.llm.budget import Budget
from synalign_agent.llm.client import JournaledModel
from synalign_agent.llm.providers import Endpoint
from synalign_agent.prompting.catalog import PromptCatalog
from synalign_agent.records import CallRecord
from synalign_agent.schemas import texts_schema
from synalign_agent.stores.memory import MemorySessionStore

PROMPT = PromptCatalog.load()["generate_samples"]
REQUEST = CallRequest(
    node="generate",
    prompt=PROMPT,
    values={
        "task": "notes", "label": None, "attributes": {}, "demonstrations": [["one", "two"]], "layout": "chat", "n": 2,
        "words": (3, 9),
    },
    schema=texts_schema(2, 80),
    max_tokens=100,
    round=1,
    cluster_id="c",
)  # fmt: skip


class Bench:
    """A model, its store and its server."""

    def __init__(self, server: ChatServer, **llm: Any) -> None:
        limits = llm.pop("limits", LimitsConfig())
        self.store = MemorySessionStore()
        config = LLMConfig(model="m", temperature=0.5, extra_body={"min_p": 0.1}, concurrency=4, **llm)
        endpoint = Endpoint(server.base_url, "m", "m", "key")
        self.model = JournaledModel(endpoint, config, self.store, Budget(limits, self.store.call_totals()), seed=7)

    def call(self, *requests: CallRequest, in_turn: bool = False) -> list[CallRecord]:
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
        Reply(content='{"texts": ["cut', finish_reason="length"),
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
