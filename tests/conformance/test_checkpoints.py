"""Checkpoints in SQLite and PostgreSQL: pruned by policy without a change of state, encrypted, explained when they fail."""

from __future__ import annotations

import asyncio
import base64
import operator
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from synalign_agent.config import StorageConfig
from synalign_agent.errors import ConfigError, SessionError
from synalign_agent.records import content_id
from synalign_agent.stores.checkpoints import FILE, kept, prune_checkpoints
from synalign_agent.stores.folder import open_checkpointer
from synalign_agent.stores.postgres import PostgresSessionStore

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
N_ROUNDS = 6
SECRET = "a value that nobody else may read"
VARIABLE = "SYNALIGN_TEST_KEY"
Open = Callable[..., AbstractAsyncContextManager[Any]]


class Loop(TypedDict, total=False):
    round: int
    names: list[str]
    history: Annotated[list[dict[str, Any]], operator.add]


class Task(TypedDict):
    name: str


def graph(saver: Any, ask: bool = False) -> Any:
    """A loop like the session's: explore, a fan-out, an end of the round that alone writes `history`."""
    built: StateGraph[Loop, None, Loop, Loop] = StateGraph(Loop)

    async def explore(state: Loop) -> Loop:
        return {"round": state.get("round", 0) + 1, "names": ["a", "b", "c"]}

    async def generate(task: Task) -> Loop:
        return {}

    async def align(state: Loop) -> Loop:
        if ask and state["round"] == N_ROUNDS:
            interrupt("go on?")
        return {"history": [{"round": state["round"], "note": SECRET}]}

    def fan_out(state: Loop) -> list[Send]:
        return [Send("generate", {"name": name}) for name in state["names"]]

    def again(state: Loop) -> str:
        return "explore" if state["round"] < N_ROUNDS else END

    built.add_node("explore", explore)
    built.add_node("generate", generate)
    built.add_node("align", align)
    built.add_edge(START, "explore")
    built.add_conditional_edges("explore", fan_out, ["generate"])
    built.add_edge("generate", "align")
    built.add_conditional_edges("align", again, ["explore", END])
    return built.compile(checkpointer=saver)


@pytest.fixture(params=["sqlite", "postgres"])
def checkpointer(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    url = None
    folder = tmp_path / f"thread-{content_id(str(tmp_path))}"
    folder.mkdir()
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        PostgresSessionStore(url, folder.name).close()  # makes the schema

    def open_it(**fields: Any) -> AbstractAsyncContextManager[Any]:
        return open_checkpointer(folder, StorageConfig(url=url, **fields))

    return open_it


async def run(opened: AbstractAsyncContextManager[Any], given: Any, ask: bool = False) -> tuple[Any, list[Any]]:
    """Run the loop, and return its state and history from new to old."""
    config = {"configurable": {"thread_id": "t"}}
    async with opened as saver:
        looped = graph(saver, ask)
        await looped.ainvoke(given, config, durability="sync")
        state = await looped.aget_state(config)
        return state, [snapshot async for snapshot in looped.aget_state_history(config)]


def test_the_newest_and_each_rounds_end_are_kept() -> None:
    found = [("0", None), ("1", None), ("2", "v1"), ("3", "v1"), ("4", "v2"), ("5", "v2"), ("6", "v2"), ("7", "v2")]
    assert kept(found, 1) == ["2", "4", "7"]
    assert kept(found, 2) == ["2", "4", "6", "7"]
    assert kept(found, 100) == [id for id, _ in found] and kept([], 1) == []


def test_pruning_keeps_the_newest_every_rounds_end_and_the_state(checkpointer: Open) -> None:
    async def check() -> None:
        whole, all_of_it = await run(checkpointer(checkpoints_kept=None), {})
        ends = [one for one in all_of_it if one.next == ("explore",) and one.values.get("history")] + all_of_it[:1]
        assert len(ends) == N_ROUNDS and len(all_of_it) > 3 * N_ROUNDS
        config = {"configurable": {"thread_id": "t"}}
        async with checkpointer(checkpoints_kept=None) as saver:
            assert await prune_checkpoints(saver, "t", 4) > 0
            assert await prune_checkpoints(saver, "t", 4) == 0
            assert await prune_checkpoints(saver, "other", 1) == 0
            looped = graph(saver)
            state = await looped.aget_state(config)
            left = [one async for one in looped.aget_state_history(config)]
            assert state.values == whole.values and state.next == whole.next
            ids = {one.config["configurable"]["checkpoint_id"]: one.values for one in all_of_it}
            for one in left:  # what is left is what it was
                assert ids[one.config["configurable"]["checkpoint_id"]] == one.values
            rounds = [len(one.values.get("history", [])) for one in left]
            assert rounds == sorted(rounds, reverse=True) and set(rounds) == set(range(1, N_ROUNDS + 1))
            assert len(left) == 4 + N_ROUNDS - 2  # the last 4 hold two ends of rounds
            # A kept end of a round can be continued from, as a fork of the thread does.
            end = next(one for one in left if len(one.values["history"]) == 2)
            again = await looped.ainvoke(None, end.config)
            assert [one["round"] for one in again["history"]] == list(range(1, N_ROUNDS + 1))

    asyncio.run(check())


def test_a_running_loop_prunes_itself_at_each_end_of_a_round(checkpointer: Open) -> None:
    async def check() -> None:
        state, history = await run(checkpointer(checkpoints_kept=2), {})
        assert [one["round"] for one in state.values["history"]] == list(range(1, N_ROUNDS + 1))
        assert len(history) == 2 + N_ROUNDS - 1

    asyncio.run(check())


def test_a_question_that_waits_survives_pruning(checkpointer: Open) -> None:
    async def check() -> None:
        config = {"configurable": {"thread_id": "t"}}
        await run(checkpointer(checkpoints_kept=1), {}, ask=True)
        async with checkpointer(checkpoints_kept=1) as saver:
            await prune_checkpoints(saver, "t", 1)
            looped = graph(saver, ask=True)
            assert (await looped.aget_state(config)).interrupts[0].value == "go on?"
            result = await looped.ainvoke(Command(resume="yes"), config)
            assert len(result["history"]) == N_ROUNDS

    asyncio.run(check())


def stored(url: str | None, folder: Path) -> bytes:
    if url is None:
        return b"".join(file.read_bytes() for file in folder.rglob("checkpoints.sqlite*"))
    import psycopg

    tables = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
    with psycopg.connect(url) as connection:
        schema = connection.execute(
            "SELECT schemaname FROM pg_tables WHERE tablename = 'checkpoints' AND schemaname LIKE %s",
            (f"%{content_id(str(folder))}",),
        ).fetchone()
        assert schema is not None
        rows = [connection.execute(f'SELECT * FROM "{schema[0]}".{table}').fetchall() for table in tables]  # type: ignore[arg-type]
    return repr(rows).encode()


def test_an_encrypted_state_is_not_in_the_database_and_needs_its_key(
    checkpointer: Open, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_server = "postgres" in request.node.callspec.id
    url = request.getfixturevalue("postgres_url") if on_server else None
    monkeypatch.setenv(VARIABLE, base64.b64encode(os.urandom(32)).decode())

    async def check() -> None:
        await run(checkpointer(encryption_key_env=VARIABLE), {})
        assert b"history" in stored(url, tmp_path) and SECRET.encode() not in stored(url, tmp_path)
        async with checkpointer(encryption_key_env=VARIABLE) as saver:
            state = await graph(saver).aget_state({"configurable": {"thread_id": "t"}})
            assert state.values["history"][0]["note"] == SECRET
        monkeypatch.setenv(VARIABLE, base64.b64encode(os.urandom(32)).decode())
        with pytest.raises(SessionError, match="cannot be read with this key"):
            await run(checkpointer(encryption_key_env=VARIABLE), None)
        monkeypatch.delenv(VARIABLE)
        with pytest.raises(ConfigError, match=VARIABLE):
            await run(checkpointer(encryption_key_env=VARIABLE), None)

    asyncio.run(check())


def test_without_encryption_the_state_is_there_to_read(
    checkpointer: Open, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue("postgres_url") if "postgres" in request.node.callspec.id else None
    asyncio.run(run(checkpointer(), {}))
    assert SECRET.encode().hex().encode() in stored(url, tmp_path) or SECRET.encode() in stored(url, tmp_path)


def test_a_full_disk_is_a_session_error_and_what_was_kept_stays(tmp_path: Path) -> None:
    config = {"configurable": {"thread_id": "t"}}

    async def check() -> None:
        async with open_checkpointer(tmp_path, StorageConfig(checkpoints_kept=None)) as saver:
            looped = graph(saver)
            await looped.ainvoke({}, config, interrupt_before=["align"], durability="sync")
            async with saver.conn.execute("PRAGMA page_count") as cursor:
                (pages,) = await cursor.fetchone()
            await saver.conn.execute(f"PRAGMA max_page_count = {pages}")
            before = (await looped.aget_state(config)).values
            with pytest.raises(SessionError, match="free disk space"):
                await looped.ainvoke(None, config, durability="sync")
            await saver.conn.rollback()
        async with open_checkpointer(tmp_path, StorageConfig()) as saver:
            looped = graph(saver)
            state = await looped.aget_state(config)
            assert state.values["round"] >= before["round"]
            assert len((await looped.ainvoke(None, config))["history"]) == N_ROUNDS

    asyncio.run(check())


@pytest.mark.parametrize("damage", ["garbage", "cut"])
def test_damaged_checkpoints_are_refused_with_advice(tmp_path: Path, damage: str) -> None:
    asyncio.run(run(open_checkpointer(tmp_path, StorageConfig()), {}))
    intact = (tmp_path / FILE).read_bytes()
    garbage = b"this is no database, and longer than the header of one would be " * 20
    (tmp_path / FILE).write_bytes(garbage if damage == "garbage" else intact[: len(intact) // 2 + 7])
    with pytest.raises(SessionError, match=r"checkpoints\.sqlite: not readable .* move it away and resume"):
        asyncio.run(run(open_checkpointer(tmp_path, StorageConfig()), {}))
