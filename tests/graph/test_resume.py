"""Interruptions: crashes after every node's writes, requests to stop, changed configurations. Nothing is paid for twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from support.chat_server import ChatServer

from synalign_agent import graph as graph_module
from synalign_agent.config import SessionConfig
from synalign_agent.errors import InterruptedByUser, SessionError
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]
pytestmark = pytest.mark.usefixtures("hash_encoder")

ONCE = ("propose_dimensions", "finish")
REPEATEDLY = ("explore", "summarize_attributes", "generate", "screen", "align")
CRASHES = [(node, 1) for node in ONCE + REPEATEDLY] + [(node, 2) for node in REPEATEDLY]


def crash_after(monkeypatch: pytest.MonkeyPatch, name: str, nth: int) -> None:
    """Let a node do its work, writes included, and then die before LangGraph can checkpoint it, on its nth call."""
    original = getattr(graph_module, name)
    calls = {"n": 0}

    def due() -> bool:
        calls["n"] += 1
        return calls["n"] == nth

    async def async_node(task: Any, deps: Any) -> Any:
        result = await original(task, deps)
        if due():
            raise RuntimeError("power cut")
        return result

    def sync_node(state: Any, deps: Any) -> Any:
        result = original(state, deps)
        if due():
            raise RuntimeError("power cut")
        return result

    monkeypatch.setattr(graph_module, name, async_node if asyncio.iscoroutinefunction(original) else sync_node)


def texts_of(result: dict[str, Any]) -> list[str]:
    return sorted(pd.read_parquet(result["paths"]["pool"])["text"])


@pytest.mark.parametrize(("node", "nth"), CRASHES)
def test_a_crash_after_any_node_changes_nothing(
    make_config: MakeConfig, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, node: str, nth: int
) -> None:
    config = make_config(attributes__n_dimensions=2, limits__max_rounds=3, target__mmd2=-1.0)
    config = config.model_copy(update={"attributes": config.attributes.model_copy(update={"dimensions": None})})
    with Session.create(config, thread_id="undisturbed") as session:
        undisturbed = session.run()
    n_requests = len(chat_server.requests)
    with monkeypatch.context() as patch:
        crash_after(patch, node, nth)
        with Session.create(config, thread_id="crashed") as session, pytest.raises(RuntimeError, match="power cut"):
            session.run()
    with Session.open("crashed", runs_dir=config.runs_dir) as session:
        resumed = session.run()
    assert resumed["calls"]["repeated"] == 0
    assert resumed["n_selected"] == undisturbed["n_selected"] == 24
    assert resumed["mmd2"] == undisturbed["mmd2"]
    assert resumed["rejections"] == undisturbed["rejections"]
    assert texts_of(resumed) == texts_of(undisturbed)
    # A call in flight when its sibling dies is lost, sent or about to be; a finished one is never sent again.
    n_sent = len(chat_server.requests) - n_requests
    assert n_requests <= n_sent <= n_requests + resumed["calls"]["in_flight_lost"]


def test_stop_keeps_calls_in_flight_and_resume_goes_on(make_config: MakeConfig, chat_server: ChatServer) -> None:
    config = make_config()

    async def stop_half_way(session: Session) -> None:
        running = asyncio.create_task(session.arun())
        while len(chat_server.requests) < 15:
            await asyncio.sleep(0.005)
        session.stop()
        with pytest.raises(InterruptedByUser):
            await running

    with Session.create(config, thread_id="t") as session:
        asyncio.run(stop_half_way(session))
        stopped = session.summary()
        assert stopped["status"] == "interrupted"
        assert stopped["calls"]["done"] == len(chat_server.requests)
    with Session.open("t", runs_dir=config.runs_dir) as session:
        result = session.run()
    assert result["n_selected"] == 24
    assert result["calls"]["repeated"] == result["calls"]["in_flight_lost"] == chat_server.repeated() == 0


def test_a_finished_session_is_not_run_again(make_config: MakeConfig, chat_server: ChatServer) -> None:
    config = make_config()
    with Session.create(config, thread_id="t") as session:
        first = session.run()
    n_requests = len(chat_server.requests)
    with Session.create(config, thread_id="t") as session:
        assert session.resumed
        again = session.run()
    assert len(chat_server.requests) == n_requests
    assert again["mmd2"] == first["mmd2"]


def test_another_configuration_is_refused_with_its_differences_and_continues_if_accepted(
    make_config: MakeConfig, chat_server: ChatServer
) -> None:
    with Session.create(make_config(limits__max_calls=9), thread_id="t") as session:
        limited = session.run()
    assert limited["stop_reason"] == "max_calls"
    raised = make_config(limits__max_calls=200)
    with pytest.raises(SessionError, match=r"limits\.max_calls: 9 -> 200"):
        Session.create(raised, thread_id="t")
    with Session.create(raised, thread_id="t", accept_changes=True) as session:
        result = session.run()
    assert result["n_selected"] == 24
    assert result["calls"]["repeated"] == chat_server.repeated() == 0


def test_operational_fields_may_differ(make_config: MakeConfig) -> None:
    with Session.create(make_config(limits__max_rounds=1), thread_id="t") as session:
        session.run()
    with Session.create(make_config(limits__max_rounds=1, llm__concurrency=2), thread_id="t") as session:
        assert session.resumed


def test_vectors_are_rebuilt_if_they_are_lost(make_config: MakeConfig) -> None:
    config = make_config()
    with Session.create(config, thread_id="t") as session:
        before = session.run()
        for file in (session.folder / "vectors").iterdir():
            file.unlink()
        after = session.export()
    assert after["n_selected"] == before["n_selected"]


def test_a_kill_after_the_last_write_of_a_step_is_not_taken_for_the_end(
    make_config: MakeConfig, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step's writes are saved and its checkpoint is not: LangGraph's `next` is empty then, as it is at the end."""
    config = make_config(limits__max_rounds=1)
    with monkeypatch.context() as patch:
        put = AsyncSqliteSaver.aput
        n_checkpoints = {"n": 0}

        async def dies(self: Any, *arguments: Any) -> Any:
            n_checkpoints["n"] += 1
            if n_checkpoints["n"] == 4:
                raise RuntimeError("power cut")
            return await put(self, *arguments)

        patch.setattr(AsyncSqliteSaver, "aput", dies)
        with Session.create(config, thread_id="t") as session, pytest.raises(RuntimeError, match="power cut"):
            session.run()
    with Session.open("t", runs_dir=config.runs_dir) as session:
        result = session.run()
    assert (result["status"], result["n_rounds"]) == ("finished", 1)
    assert result["n_selected"] > 0 and result["calls"]["repeated"] == 0
