"""Rewound threads: whatever earlier checkpoint a finished session is run from again, no call is made and nothing changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from support.chat_server import ChatServer

from synalign_agent.config import SessionConfig
from synalign_agent.graph import build_graph
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]
pytestmark = pytest.mark.usefixtures("hash_encoder")

_COPY = "__copy__"
"""LangGraph's name for an update that makes an earlier checkpoint the newest one, as it is."""


def on_thread(folder: Path, work: Callable[[Any, dict[str, Any]], Any]) -> Any:
    """Do something with the compiled graph and the thread's config."""

    async def unopened(thread_id: str, context: Any) -> Any:
        raise AssertionError("reading and rewinding a thread opens no session")

    async def run() -> Any:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.sqlite")) as saver:
            graph = build_graph(unopened).compile(checkpointer=saver)
            return await work(graph, {"configurable": {"thread_id": folder.name}})

    return asyncio.run(run())


def history(folder: Path) -> list[tuple[str, tuple[str, ...], int]]:
    """Return (checkpoint id, next nodes, round) of every checkpoint that has something to do next, oldest first."""

    async def read(graph: Any, config: dict[str, Any]) -> list[tuple[str, tuple[str, ...], int]]:
        found = [state async for state in graph.aget_state_history(config)]
        return [
            (state.config["configurable"]["checkpoint_id"], state.next, state.values.get("round", 0))
            for state in reversed(found)
            if state.next and state.next != ("__start__",)
        ]

    return list(on_thread(folder, read))


def rewind(folder: Path, checkpoint_id: str) -> None:
    async def copy(graph: Any, config: dict[str, Any]) -> None:
        await graph.aupdate_state(
            {"configurable": {**config["configurable"], "checkpoint_id": checkpoint_id}}, None, _COPY
        )

    on_thread(folder, copy)


def everything(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Return all that a session shows, but its time."""
    with Session.view(folder.name, runs_dir=folder.parent) as session:
        store = session.store
        rows = {
            "rounds": store.rounds(),
            "samples": store.samples(),
            "rejections": sorted(store.rejections(), key=lambda rejection: rejection.id),
            "calls": store.calls(),
            "clusters": store.clusters(),
            "choices": [store.choices(round) for round in (1, 2)],
        }

    async def read(graph: Any, config: dict[str, Any]) -> Any:
        return (await graph.aget_state(config)).values["history"]

    shown = {key: value for key, value in result.items() if key not in ("seconds", "paths")}
    return {
        **rows,
        "result": shown,
        "history": on_thread(folder, read),
        "dataset": pd.read_parquet(folder / "export" / "dataset.parquet").to_json(),
    }


@pytest.fixture
def finished(make_config: MakeConfig) -> tuple[Path, dict[str, Any]]:
    config = make_config(
        limits__max_rounds=2, target__mmd2=-1.0, limits__patience_rounds=99, round_samples=24, storage__checkpoints_kept=10_000
    )  # fmt: skip
    with Session.create(config, thread_id="t") as session:
        result = session.run()
    assert result["n_rounds"] == 2
    return session.folder, everything(session.folder, result)


def run_again(folder: Path) -> dict[str, Any]:
    with Session.open(folder.name, runs_dir=folder.parent) as session:
        return everything(folder, session.run())


def test_every_earlier_checkpoint_leads_to_the_same_end_without_a_call(
    finished: tuple[Path, dict[str, Any]], chat_server: ChatServer
) -> None:
    folder, before = finished
    n_requests = len(chat_server.requests)
    checkpoints = history(folder)
    assert {round for _, _, round in checkpoints} >= {1, 2}
    for checkpoint_id, nodes, round in checkpoints:
        rewind(folder, checkpoint_id)
        after = run_again(folder)
        assert len(chat_server.requests) == n_requests, (nodes, round)
        for name, value in before.items():
            assert after[name] == value, (nodes, round, name)
    assert before["result"]["calls"]["repeated"] == chat_server.repeated() == 0


def test_a_thread_that_is_told_to_go_on_keeps_its_earlier_rounds(
    finished: tuple[Path, dict[str, Any]], chat_server: ChatServer
) -> None:
    """`update_state` on the end of round 1, as if `align` had just found a reason to go on."""
    folder, before = finished
    n_requests = len(chat_server.requests)
    end_of_1 = next(id for id, nodes, round in history(folder) if nodes == ("explore",) and round == 1)

    async def update(graph: Any, config: dict[str, Any]) -> None:
        rewound = {"configurable": {**config["configurable"], "checkpoint_id": end_of_1, "checkpoint_ns": ""}}
        await graph.aupdate_state(rewound, {"stop_reason": None}, as_node="align")

    on_thread(folder, update)
    assert run_again(folder) == before
    assert len(chat_server.requests) == n_requests


def test_a_thread_that_starts_from_nothing_finds_everything_in_its_stores(
    finished: tuple[Path, dict[str, Any]], chat_server: ChatServer
) -> None:
    folder, before = finished
    n_requests = len(chat_server.requests)
    (folder / "checkpoints.sqlite").unlink()
    assert run_again(folder) == before
    assert len(chat_server.requests) == n_requests
