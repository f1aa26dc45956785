from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from synalign_agent.embedding.ahead import EmbedAhead


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 200))


async def settle(ahead: EmbedAhead) -> None:
    if ahead._task is not None:
        await asyncio.wait([ahead._task])


def test_blocks_are_embedded_in_order_whatever_ends_first() -> None:
    async def work() -> None:
        done: list[int] = []
        ahead = EmbedAhead()
        ahead.begin({0: {0, 1}, 1: {2}, 2: {3, 4}}, done.append, "plan")
        ahead.ended(1, 2)
        ahead.ended(2, 3)
        ahead.ended(0, 0)
        ahead.ended(0, 0)  # twice: after a replay
        await asyncio.sleep(0)
        assert done == [] and ahead.plan == "plan"
        ahead.ended(0, 1)
        await settle(ahead)
        assert done == [0, 1]
        await ahead.finish()
        ahead.ended(2, 4)
        await settle(ahead)
        assert done == [0, 1] and ahead.plan is None

    run(work())


def test_a_block_is_embedded_while_calls_are_in_flight_and_finish_waits_for_it() -> None:
    async def work() -> None:
        begun, go_on, done = asyncio.Event(), threading.Event(), []
        loop = asyncio.get_running_loop()

        def embed(block: int) -> None:
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(100)
            done.append(block)

        ahead = EmbedAhead()
        ahead.begin({0: {0}, 1: {1}}, embed, None)
        ahead.ended(0, 0)
        await begun.wait()  # the loop is free, although the encoder is busy and a call is open
        assert done == []
        ending = asyncio.create_task(ahead.finish())
        ahead.ended(1, 1)
        go_on.set()
        await ending
        assert done == [0]

    run(work())


def test_an_encoder_that_fails_fails_no_call() -> None:
    async def work() -> None:
        tried: list[int] = []

        def embed(block: int) -> None:
            tried.append(block)
            raise RuntimeError("no memory")

        ahead = EmbedAhead()
        ahead.begin({0: {0}, 1: {1}}, embed, None)
        ahead.ended(0, 0)
        ahead.ended(1, 1)
        await settle(ahead)
        await ahead.finish()
        assert tried == [0, 1]

    run(work())


def test_what_had_ended_before_the_round_was_begun_is_embedded_at_once() -> None:
    async def work() -> None:
        done: list[int] = []
        ahead = EmbedAhead()
        ahead.begin({0: set(), 1: {1}}, done.append, None)
        await settle(ahead)
        assert done == [0]

    run(work())
