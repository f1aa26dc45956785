"""The journalled model against a scripted endpoint: what is written when, what is sent again, what is charged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.chat_server import ChatServer, Reply
from support.model_bench import REQUEST, Bench

from synalign_agent.config import LimitsConfig
from synalign_agent.errors import BudgetExhausted
from synalign_agent.llm.base import CallRequest
from synalign_agent.prompting.catalog import PromptTemplate


def test_sends_schema_parameters_and_a_seed(server: ChatServer) -> None:
    [record] = Bench(server).call(REQUEST)
    [body] = server.requests
    assert body["response_format"]["json_schema"]["schema"] == REQUEST.schema
    assert (body["temperature"], body["max_tokens"], body["min_p"], body["seed"]) == (0.5, 100, 0.1, record.seed)
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert json.loads(body["messages"][2]["content"]) == {"texts": ["one", "two"]}
    assert record.state == "done" and len(json.loads(record.content or "")["texts"]) == 2
    assert record.prompt_tokens > 0 and record.completion_tokens > 0 and record.seconds > 0


def test_what_reads_texts_is_asked_at_its_own_temperature_where_there_is_one(server: ChatServer) -> None:
    reading = replace(REQUEST, is_reading=True)
    bench = Bench(server, reading_temperature=0.1)
    written, read = bench.call(REQUEST, reading, in_turn=True)
    assert [body["temperature"] for body in server.requests] == [0.5, 0.1]
    assert written.key != read.key  # the temperature is part of what was asked
    Bench(server).call(reading)
    assert server.requests[-1]["temperature"] == 0.5


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


def test_calls_that_earlier_versions_paid_for_are_found(server: ChatServer) -> None:
    text = "<!-- role: system -->\nBe brief, ü.\n<!-- role: user -->\nWrite {{ n }}."
    prompt = PromptTemplate("p", "1", frozenset({"n"}), "GeneratedTexts", text, "0" * 64, "test")
    schema = {"type": "object", "properties": {"texts": {"type": "array"}}}
    request = CallRequest("generate", prompt, {"n": 2}, schema, max_tokens=100, round=1, cluster_id="c", draw=3)
    server.script = lambda body, number: Reply(content="x")
    [record] = Bench(server).call(request)
    # Computed by the first released version.
    assert (record.key, record.seed) == ("7fe8b69f336a282227b1dc508ce80c1c", 1872224334)


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


def test_nothing_is_sent_that_could_pass_a_limit(server: ChatServer) -> None:
    bench = Bench(server, limits=LimitsConfig(max_tokens=200))
    with pytest.raises(BudgetExhausted, match=r"limits\.max_tokens"):
        bench.call(REQUEST)
    assert server.requests == [] == bench.store.calls()
