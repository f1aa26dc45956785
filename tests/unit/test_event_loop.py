"""Work that blocks is seen to its end, however often whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from synalign_agent.event_loop import to_its_end

NAME = contextvars.ContextVar("NAME", default="")


@pytest.mark.parametrize("n_cancellations", [1, 3])
def test_a_cancelled_wait_ends_after_the_work(n_cancellations: int) -> None:
    go_on, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    async def main() -> None:
        waiting = asyncio.create_task(to_its_end(work))
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(n_cancellations):
            waiting.cancel()
            await asyncio.sleep(0.01)
            assert not waiting.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert ended.is_set()

    asyncio.run(main())


def test_the_work_of_a_loop_that_shuts_down_is_seen_to_its_end() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        threading.Event().wait(0.1)
        ended.set()

    after: list[bool] = []

    async def user() -> None:
        try:
            await to_its_end(work)
        finally:
            after.append(ended.is_set())

    async def main() -> None:
        left = asyncio.create_task(user())
        await asyncio.to_thread(begun.wait, 10)
        assert not left.done()

    asyncio.run(main())  # cancels what is left
    assert after == [True]


def test_results_errors_and_context_come_through() -> None:
    def fail() -> None:
        raise ValueError("bad")

    async def main() -> None:
        NAME.set("here")
        assert await to_its_end(NAME.get) == "here"
        assert await to_its_end(int, "11", base=2) == 3
        with pytest.raises(ValueError, match="bad"):
            await to_its_end(fail)

    asyncio.run(main())
