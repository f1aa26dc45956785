"""Sessions of a server, without a server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synalign_agent import wiring
from synalign_agent.config.serving import ServingConfig
from synalign_agent.config_file import example_config
from synalign_agent.deps import Deps
from synalign_agent.errors import InputError, SessionError
from synalign_agent.graph import _OpenedSessions
from synalign_agent.serving import sessions
from synalign_agent.serving.sessions import ServedContext, ServedSessions
from synalign_agent.state import Context

SHORT_SECONDS = 0.2


class FakeSessions(ServedSessions):
    """Opens nothing, and keeps what was opened and closed."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.begun, self.may_open, self.may_close = threading.Event(), threading.Event(), threading.Event()
        self.may_open.set()
        self.may_close.set()

    def _open_session(self, thread_id: str, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self.begun.set()
        self.may_open.wait(30)

        async def aclose() -> None:
            self.events.append("model" if asyncio.get_running_loop() is loop else "model on a wrong loop")

        def end(status: str) -> None:
            self._open.pop(thread_id, None)
            self.may_close.wait(30)
            self.events.append(status)

        self.events.append("open")
        deps: Any = SimpleNamespace(model=SimpleNamespace(aclose=aclose), pause=partial(end, "waiting_for_review"))
        self._open[thread_id] = sessions._Opened(deps, end, loop, context)

    async def node(
        self,
        seconds: float = 0.0,
        then: Callable[[Deps], Awaitable[object]] | None = None,
        context: Context = Context(),  # noqa: B008
    ) -> None:
        async with self.around("thread"):
            deps = await self.provide("thread", context)
            await asyncio.sleep(seconds)
            if then is not None:
                await then(deps)

    def wait_for(self, *events: str) -> None:
        for _ in range(1000):
            if self.events == list(events):
                return
            time.sleep(0.01)
        raise AssertionError(self.events)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> FakeSessions:
    monkeypatch.setattr(sessions, "serving_config", ServingConfig)
    return FakeSessions()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have idle sessions closed in no time."""
    monkeypatch.setattr(sessions, "_IDLE_SECONDS", SHORT_SECONDS)


def test_a_run_that_is_cancelled_while_its_session_opens_leaves_nothing_open(served: FakeSessions) -> None:
    async def cancelled() -> None:
        served.may_open.clear()
        run = asyncio.create_task(served.node())
        await asyncio.to_thread(served.begun.wait, 30)
        run.cancel()
        await asyncio.sleep(0)
        served.may_open.set()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(cancelled())
    assert served.events == ["open", "model", "interrupted"]


@pytest.mark.usefixtures("soon")
def test_a_run_that_ends_between_two_nodes_leaves_its_session_for_a_moment_only(served: FakeSessions) -> None:
    async def run() -> None:
        await served.node()
        await asyncio.to_thread(served.wait_for, "open", "model", "interrupted")
        await served.node()  # of a run that goes on
        await asyncio.to_thread(served.wait_for, *["open", "model", "interrupted"] * 2)

    asyncio.run(run())
    assert not served._open and not served._nodes and not served._idle and not served._closing


@pytest.mark.usefixtures("soon")
def test_a_session_stays_open_while_a_node_is_in_it(served: FakeSessions) -> None:
    async def still_open(deps: Deps) -> None:
        assert served.events == ["open"]

    async def run() -> None:
        # Two of one superstep, the first of which leaves long before.
        await asyncio.gather(served.node(), served.node(4 * SHORT_SECONDS, then=still_open))

    asyncio.run(run())


def test_the_next_node_stops_the_timer_of_the_one_before(served: FakeSessions) -> None:
    async def run() -> None:
        await served.node()
        timer = served._idle["thread"]
        assert not timer.finished.is_set()
        await served.node()
        assert timer.finished.is_set() and timer is not served._idle["thread"]
        assert served.events == ["open"]

    asyncio.run(run())


@pytest.mark.usefixtures("soon")
def test_a_node_that_comes_while_its_session_is_closed_waits_and_opens_it_anew(served: FakeSessions) -> None:
    async def run() -> None:
        served.may_close.clear()
        await served.node()
        while not served._closing:
            await asyncio.sleep(0.01)
        nodes = [asyncio.create_task(served.node()) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert served.events == ["open", "model"]
        served.may_close.set()
        await asyncio.gather(*nodes)
        assert served.events[:4] == ["open", "model", "interrupted", "open"]

    asyncio.run(run())


@pytest.mark.usefixtures("soon")
def test_a_timer_that_goes_off_as_a_node_comes_closes_nothing(served: FakeSessions) -> None:
    async def run() -> None:
        await served.node()
        with served._guard:
            time.sleep(2 * SHORT_SECONDS)
            timer = served._idle.pop("thread")  # as a node does that had the guard first
            assert timer.is_alive()
        timer.join(30)
        assert served.events == ["open"] and not served._closing

    asyncio.run(run())


@pytest.mark.usefixtures("soon")
def test_a_session_that_waits_for_a_person_is_left_as_it_is(served: FakeSessions) -> None:
    async def pause(deps: Deps) -> None:
        deps.pause()

    async def run() -> None:
        await served.node(then=pause)
        await asyncio.sleep(2 * SHORT_SECONDS)
        assert served.events == ["open", "waiting_for_review"]

    asyncio.run(run())


def test_a_run_with_another_context_does_not_get_the_session_of_the_run_before(served: FakeSessions) -> None:
    async def run() -> None:
        await served.node(context=ServedContext({"n_samples": 4}))
        await served.node(context=ServedContext({"n_samples": 4}))
        assert served.events == ["open"]
        await served.node(context=ServedContext({"n_samples": 5}))
        assert served.events == ["open", "model", "interrupted", "open"]

    asyncio.run(run())


@pytest.mark.usefixtures("soon")
def test_a_session_is_closed_although_its_event_loop_has_stopped(served: FakeSessions) -> None:
    with closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(served.node())
        served.wait_for("open", "interrupted")
        loop.run_until_complete(asyncio.sleep(0.01))
        assert served.events[2:] == ["model"]  # now its connections are closed
    with closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(served.node())
    served.wait_for("open", "interrupted", "model", "open", "interrupted")


def test_a_session_that_another_event_loop_left_is_opened_anew(served: FakeSessions) -> None:
    with closing(asyncio.new_event_loop()) as first, closing(asyncio.new_event_loop()) as second:
        first.run_until_complete(served.node())
        second.run_until_complete(served.node())
        assert served.events == ["open", "interrupted", "open"]
        first.run_until_complete(asyncio.sleep(0.01))
        assert served.events[3:] == ["model"]


@pytest.mark.parametrize(
    "route", ["route_after_explore", "route_after_summaries", "route_to_generation", "route_after_screen"]
)
def test_a_route_asks_for_handles_as_a_node_does(route: str) -> None:
    """What a route opened would stay open if the run ended there."""
    steps: list[str] = []

    @asynccontextmanager
    async def around(thread_id: str) -> AsyncIterator[None]:
        steps.append("in")
        yield
        steps.append("out")

    async def provide(thread_id: str, context: Context) -> Deps:
        steps.append("handles")
        never = SimpleNamespace(attributes="never", samples="never")
        config = SimpleNamespace(review=never, attributes=SimpleNamespace(enabled=False))
        deps: Any = SimpleNamespace(config=config)
        return deps

    runtime: Any = SimpleNamespace(context=None)
    on: Any = _OpenedSessions(provide, around)
    state = {"limits_hit": ["max_calls"]}
    asyncio.run(getattr(on, route)(state, {"configurable": {"thread_id": "thread"}}, runtime))
    assert steps == ["in", "handles", "out"]


def test_a_session_whose_first_opening_failed_begins_anew(tmp_path: Path) -> None:
    folder = tmp_path / "thread"
    folder.mkdir()
    wiring.open_store(folder).close()
    assert wiring.session_exists(folder)
    serving = ServingConfig(runs_dir=str(tmp_path))
    assert sessions._config(folder, Context(), serving) == sessions._config(tmp_path / "other", Context(), serving)


@pytest.mark.parametrize(
    ("config", "real", "edited", "told"),
    [
        ({"n_samples": 7}, None, False, "n_samples: .*\nLeave the context out to go on with what is stored, or use"),
        ({"seed": 7}, None, False, "seed: .*\nLeave the context out to go on with what is stored, or use another"),
        (None, ["a text", "another"], False, "data.* .*\nLeave the context out to go on"),
        (None, None, True, "prompt .*\nThe operator of this server changed that; use another thread"),
    ],
)
def test_a_client_whose_configuration_is_another_is_told_what_a_client_can_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any] | None,
    real: list[str] | None,
    edited: bool,
    told: str,
) -> None:
    serving = ServingConfig(runs_dir=str(tmp_path), session=example_config().model_dump())
    monkeypatch.setattr(sessions, "serving_config", lambda: serving)
    folder = tmp_path / "thread"
    store = wiring.open_store(folder)
    wiring.keep_config(folder, store, wiring.resolve(sessions._config(folder, Context(), serving)))
    if edited:
        store.set_meta("prompts", '{"generate_samples": "what it was"}')
    store.close()
    if real is not None:  # as the run before gave it, with another configuration
        (folder / "real.jsonl").write_text('{"text": "a text"}\n{"text": "another"}\n')
    with pytest.raises(SessionError, match=f"(?s){told}") as error:
        asyncio.run(ServedSessions().provide("thread", ServedContext(config=config, real=real)))
    assert "--" not in str(error.value)


def test_a_thread_whose_first_context_was_refused_does_not_begin_with_other_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "serving_config", lambda: ServingConfig(runs_dir=str(tmp_path)))
    served = ServedSessions()

    def begin(context: Context) -> str:
        with pytest.raises(InputError) as error:
            asyncio.run(served.provide("thread", context))
        return str(error.value)

    refused = begin(ServedContext(config={"data": {"path": "tickets.jsonl"}}))
    assert "data.path" in refused
    # The example's rows, which a thread that was given nothing begins with, are not what this one asked for.
    told = begin(ServedContext())
    assert "give the context again" in told and refused in told
    assert not wiring.session_exists(tmp_path / "thread")
