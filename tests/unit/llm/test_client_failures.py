"""The journalled model and endpoints that fail: what is tried again, how long it waits, when it stops."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from support.chat_server import ChatServer, Reply, sequence
from support.model_bench import KEY, REQUEST, Bench

from synalign_agent.errors import EndpointError, InterruptedByUser
from synalign_agent.records import CallRecord


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
    with pytest.raises(EndpointError, match="has answered no call "):
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
