"""The shared gate, on a clock that the test moves: no test waits for more than a few milliseconds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from synalign_agent.llm.traffic import EndpointTraffic, Rules, traffic_for

T = TypeVar("T")


class Clock:
    """Time that stands still."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 200))


async def settled(*tasks: asyncio.Task[float | None]) -> list[bool]:
    for _ in range(5):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


def admit(traffic: EndpointTraffic, owner: object, tokens: int = 1) -> asyncio.Task[float | None]:
    return asyncio.create_task(traffic.admit(owner, tokens))


def test_places_are_given_in_order_and_given_again() -> None:
    async def work() -> None:
        traffic = EndpointTraffic(Clock())
        traffic.join("a", Rules(concurrency=2))
        tasks = [admit(traffic, "a") for _ in range(4)]
        assert await settled(*tasks) == [True, True, False, False]
        traffic.release(reserved_tokens=1, used_tokens=1)
        assert await settled(*tasks) == [True, True, True, False]
        traffic.withdraw("a")
        assert await settled(*tasks) == [True] * 4
        assert [task.result() for task in tasks] == [100.0, 100.0, 100.0, None]

    run(work())


def test_two_models_share_the_widest_concurrency_and_the_tightest_rate() -> None:
    async def work() -> None:
        clock = Clock()
        traffic = EndpointTraffic(clock)
        traffic.join("a", Rules(concurrency=3, requests_per_minute=600))
        traffic.join("b", Rules(concurrency=2, requests_per_minute=120))
        tasks = [admit(traffic, owner) for owner in "ababab"]
        assert await settled(*tasks) == [True, True, False, False, False, False]  # two a second
        clock.now += 1
        traffic.release(reserved_tokens=1, used_tokens=1)
        assert await settled(*tasks) == [True, True, True, True, False, False]  # three places
        traffic.leave("b")
        assert await settled(tasks[5]) == [True] and tasks[5].result() is None
        assert await settled(tasks[4]) == [False]
        traffic.leave("a")
        await settled(tasks[4])

    run(work())


def test_a_rate_goes_with_the_models_that_asked_for_it_and_stays_with_those_that_ask_again() -> None:
    async def work() -> None:
        traffic = EndpointTraffic(Clock())
        for owner, rate, goes_at_once in (("a", 60.0, True), ("b", 60.0, False), ("c", None, True)):
            traffic.join(owner, Rules(concurrency=9, requests_per_minute=rate))
            call = admit(traffic, owner)
            # The call of `a` empties the bucket, and `b` finds it so; `c` asked for no limit.
            assert await settled(call) == [goes_at_once], owner
            traffic.leave(owner)

    run(work())


def test_tokens_are_reserved_and_the_rest_given_back() -> None:
    async def work() -> None:
        clock = Clock()
        traffic = EndpointTraffic(clock)
        traffic.join("a", Rules(concurrency=9, tokens_per_minute=60_000))
        tasks = [admit(traffic, "a", 3_000), admit(traffic, "a", 3_000)]
        assert await settled(*tasks) == [True, False]
        traffic.release(reserved_tokens=3_000, used_tokens=0)
        assert await settled(*tasks) == [True, True]

    run(work())


def test_a_pause_holds_everybody_and_the_timer_ends_it() -> None:
    async def work() -> None:
        traffic = EndpointTraffic()
        for owner in "ab":
            traffic.join(owner, Rules(concurrency=8))
        started = asyncio.get_running_loop().time()
        traffic.overloaded(sent_at=started, pause_seconds=0.05)
        await asyncio.gather(*(traffic.admit(owner, 1) for owner in "abab"))
        assert asyncio.get_running_loop().time() - started >= 0.05

    run(work())


def test_an_overload_narrows_the_window_for_all() -> None:
    async def work() -> None:
        traffic = EndpointTraffic(Clock())
        traffic.join("a", Rules(concurrency=8))
        traffic.join("b", Rules(concurrency=8))
        for _ in range(8):
            traffic.overloaded(sent_at=99.0, pause_seconds=None)
        assert traffic.limit == 4
        tasks = [admit(traffic, owner) for owner in "abababab"]
        assert sum(await settled(*tasks)) == 4
        traffic.leave("a")
        traffic.leave("b")
        await asyncio.gather(*tasks)

    run(work())


@pytest.mark.parametrize("admitted", [True, False])
def test_a_cancelled_call_leaves_no_hole(admitted: bool) -> None:
    async def work() -> None:
        traffic = EndpointTraffic(Clock())
        traffic.join("a", Rules(concurrency=1))
        first, second, third = (admit(traffic, "a") for _ in range(3))
        await settled(first)
        if admitted:  # its place was given, but it has not run since
            traffic.release(reserved_tokens=1, used_tokens=1)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        if not admitted:
            assert await settled(third) == [False]
            traffic.release(reserved_tokens=1, used_tokens=1)
        assert await settled(third) == [True]

    run(work())


def test_models_of_two_event_loops_wait_for_each_other() -> None:
    traffic = EndpointTraffic()
    traffic.join("a", Rules(concurrency=1))
    traffic.join("b", Rules(concurrency=1))
    most, inside, lock = 0, 0, threading.Lock()

    async def work(owner: str) -> None:
        nonlocal most, inside
        for _ in range(20):
            assert await traffic.admit(owner, 1) is not None
            with lock:
                inside += 1
                most = max(most, inside)
            await asyncio.sleep(0.001)
            with lock:
                inside -= 1
            traffic.release(reserved_tokens=1, used_tokens=1)

    threads = [threading.Thread(target=run, args=(work(owner),)) for owner in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
        assert not thread.is_alive()
    assert (most, inside) == (1, 0)


def test_a_queue_left_by_an_ended_loop_holds_nobody_up() -> None:
    traffic = EndpointTraffic()
    traffic.join("a", Rules(concurrency=1))
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(traffic.admit("a", 1)) for _ in range(2)]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    traffic.release(reserved_tokens=1, used_tokens=1)
    assert run(traffic.admit("a", 1)) is not None
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_one_gate_per_model_and_endpoint() -> None:
    assert traffic_for("http://x/v1", "m") is traffic_for("http://x/v1", "m")
    assert traffic_for("http://x/v1", "m") is not traffic_for("http://x/v1", "n")
