"""Forks: what is shared is never called again, what differs is, and the old session stays as it is."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
from support.chat_server import ChatServer
from support.forks import Original, wherever_parents_are_kept
from support.postgres import wherever_kept

from synalign_agent.config import SessionConfig
from synalign_agent.fork import fork_session
from synalign_agent.report.summary import read_ledger
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]
pytestmark = pytest.mark.usefixtures("hash_encoder")

NEVER = {"target__mmd2": -1.0, "limits__patience_rounds": 99}
"""A target that is never met: the session makes all its rounds."""


@pytest.fixture
def chat_server(original: Original) -> ChatServer:
    """Return the endpoint as it was when the original session was finished."""
    server, _, answered, _ = original
    server.answered[:] = answered
    server.requests.clear()
    return server


def finished(config: SessionConfig) -> Path:
    with Session.create(config, thread_id="parent") as session:
        session.run()
        return session.folder


def run(folder: Path) -> dict[str, Any]:
    with Session.open(folder.name, runs_dir=folder.parent) as session:
        return session.run()


def pool(folder: Path, *, before_round: int | None = None) -> list[tuple[Any, ...]]:
    frame = pd.read_parquet(folder / "export" / "pool.parquet")
    if before_round is not None:
        frame = frame[frame["round"] < before_round]
    return [tuple(row) for row in frame[["sample_id", "text", "round"]].itertuples(index=False)]


def content(folder: Path) -> dict[str, str]:
    """Hash every table of a session in PostgreSQL, and every file but SQLite's shared memory and empty log of a reader."""
    return tables(folder) | {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.endswith("-shm")
        and not (path.name.endswith("-wal") and path.stat().st_size == 0)
    }


def tables(folder: Path) -> dict[str, str]:
    url = SessionConfig.load(folder / "config.yaml", resolve_paths=False).storage.url
    if url is None:
        return {}
    with psycopg.connect(url) as connection:
        names = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'synalign_parent'"
        )
        return {
            name: repr(
                sorted(connection.execute(f"SELECT * FROM synalign_parent.{name}".encode()).fetchall(), key=repr)
            )
            for (name,) in names.fetchall()
        }


@wherever_parents_are_kept
def test_a_fork_that_changes_nothing_makes_no_call_and_the_same_dataset(parent: Path, chat_server: ChatServer) -> None:
    n_requests = len(chat_server.requests)
    fork = fork_session(parent, from_round=2, thread_id="same")
    result = run(fork)
    assert len(chat_server.requests) == n_requests
    assert result["n_rounds"] == 4
    assert pool(fork) == pool(parent)
    before, after = (json.loads((folder / "report.json").read_text()) for folder in (parent, fork))
    for name in ("mmd2", "n_eq", "n_selected", "rejections", "per_label", "tokens", "cost_usd"):
        # A database adds costs up in any order.
        expected = pytest.approx(before[name]) if name == "cost_usd" else before[name]
        assert after[name] == expected, name
    assert after["calls"] == before["calls"]
    assert after["ledger"]["calls"]["inherited"] == after["ledger"]["calls"]["done"]
    assert after["ledger"]["inherited_cost_usd"] == pytest.approx(before["cost_usd"])


def test_only_what_differs_is_called(parent: Path, chat_server: ChatServer) -> None:
    n_requests = len(chat_server.requests)
    fork = fork_session(parent, from_round=3, overrides={"llm.temperature": 0.3}, thread_id="warmer")
    result = run(fork)
    with Session.view("warmer", runs_dir=parent.parent) as session:
        calls = session.store.calls()
        ledger = read_ledger(session.store)
    new = [call for call in calls if call.round >= 3]
    assert len(chat_server.requests) - n_requests == len(new) > 0
    assert {body["temperature"] for body in chat_server.requests[n_requests:]} == {0.3}
    assert chat_server.repeated() == result["calls"]["repeated"] == 0
    # The parent's replies of the same rounds, from clusters with the same ids, did not slip in.
    assert pool(fork, before_round=3) == pool(parent, before_round=3)
    assert not {text for _, text, round in pool(fork) if round >= 3} & {
        text for _, text, round in pool(parent) if round >= 3
    }
    assert ledger["calls"]["inherited"] == len(calls) - len(new)


@wherever_parents_are_kept
def test_the_old_session_stays_as_it_is(parent: Path) -> None:
    before = content(parent)
    fork = fork_session(parent, from_round=2, overrides={"target.mmd2": 0.5}, thread_id="easier")
    assert content(parent) == before
    run(fork)
    assert content(parent) == before


@wherever_kept
def test_a_running_session_can_be_forked(make_config: MakeConfig, chat_server: ChatServer) -> None:
    config = make_config(limits__max_rounds=4, **NEVER)
    with Session.create(config, thread_id="undisturbed") as session:
        undisturbed = session.run()
    n_requests = len(chat_server.requests)
    made: list[Path] = []

    async def fork_meanwhile(session: Session) -> dict[str, Any]:
        running = asyncio.create_task(session.arun())
        while len(session.store.rounds()) < 2:
            await asyncio.sleep(0.002)
        made.append(await asyncio.to_thread(fork_session, session.folder, from_round=2, thread_id="fork"))
        return await running

    with Session.create(config, thread_id="busy") as session:
        result = asyncio.run(fork_meanwhile(session))
    assert result["mmd2"] == undisturbed["mmd2"]
    assert len(chat_server.requests) == 2 * n_requests
    forked = run(made[0])
    assert forked["mmd2"] == undisturbed["mmd2"]
    assert pool(made[0]) == pool(session.folder)
    # It has what was answered when it was made, and asks for the rest.
    assert 2 * n_requests <= len(chat_server.requests) < 3 * n_requests


def test_a_finished_session_with_another_target_goes_on(make_config: MakeConfig, chat_server: ChatServer) -> None:
    chat_server.answered.clear()  # The original session has another task, which the prompt for attributes does not hold.
    folder = finished(make_config(target__mmd2=10.0, limits__max_rounds=5, limits__patience_rounds=99))
    assert json.loads((folder / "report.json").read_text())["stop_reason"] == "target_reached"
    n_requests, n_rounds = len(chat_server.requests), json.loads((folder / "report.json").read_text())["n_rounds"]
    assert n_rounds < 5
    result = run(fork_session(folder, overrides={"target.mmd2": -1.0}, thread_id="harder"))
    assert (result["n_rounds"], result["stop_reason"]) == (5, "max_rounds")
    assert result["mmd2"]["target"] == -1.0
    with Session.view("harder", runs_dir=folder.parent) as session:
        assert len(chat_server.requests) - n_requests == len([c for c in session.store.calls() if c.round > n_rounds])
    assert result["calls"]["repeated"] == chat_server.repeated() == 0


def test_from_round_1_shares_the_journal_alone(parent: Path, chat_server: ChatServer) -> None:
    n_requests = len(chat_server.requests)
    fork = fork_session(parent, from_round=1, overrides={"align.lengthscale_multipliers": [1.0]}, thread_id="fork")
    with Session.view("fork", runs_dir=parent.parent) as session:
        assert session.status() == "new"
        assert (
            session.store.rounds() == session.store.samples() == session.store.calls() == session.store.clusters() == []
        )
        assert session.summary()["seconds"] == 0
    result = run(fork)
    assert result["n_rounds"] == 4
    # The first round asks what the parent asked; the witness of another kernel then leads elsewhere.
    assert len(chat_server.requests) - n_requests < result["calls"]["done"]
    assert chat_server.repeated() == 0


@wherever_parents_are_kept
def test_a_fork_of_a_fork_keeps_what_both_were_answered(parent: Path, chat_server: ChatServer) -> None:
    first = fork_session(parent, from_round=3, overrides={"llm.temperature": 0.3}, thread_id="first")
    run(first)
    n_requests = len(chat_server.requests)
    back = fork_session(first, from_round=2, overrides={"llm.temperature": None}, thread_id="back")
    result = run(back)  # what the grandparent was answered in rounds 3 and 4 is still at hand
    assert pool(back) == pool(parent)
    assert len(chat_server.requests) == n_requests
    again = fork_session(first, from_round=2, thread_id="again")
    run(again)
    # Round 2 is new at this temperature; round 3 and on start from other samples.
    assert {call["temperature"] for call in chat_server.requests[n_requests:]} == {0.3}
    assert [fork["parent"] for fork in result["lineage"]] == ["parent", "first"]
    assert [fork["from_round"] for fork in result["lineage"]] == [3, 2]
    assert chat_server.repeated() == 0


def test_a_session_that_was_stopped_in_a_round_forks_from_that_round(
    make_config: MakeConfig, chat_server: ChatServer
) -> None:
    config = make_config(limits__max_rounds=3, **NEVER)
    with Session.create(config, thread_id="undisturbed") as session:
        session.run()
    n_all = len(chat_server.requests)

    async def stop_in_round_2(session: Session) -> None:
        running = asyncio.create_task(session.arun())
        while len([call for call in session.store.calls(round=2) if call.state == "done"]) < 3:
            await asyncio.sleep(0.002)
        session.stop()
        with pytest.raises(Exception, match="stopped on request"):
            await running

    with Session.create(config, thread_id="stopped") as session:
        asyncio.run(stop_in_round_2(session))
        n_stopped = len(chat_server.requests)
    fork = fork_session(session.folder, thread_id="fork")
    with Session.view("fork", runs_dir=fork.parent) as view:
        assert view.summary()["lineage"][0]["from_round"] == 2
    result = run(fork)
    assert result["n_rounds"] == 3
    assert pool(fork) == pool(fork.parent / "undisturbed")
    assert len(chat_server.requests) - n_stopped == n_all - (n_stopped - n_all)


def test_vectors_are_taken_over(parent: Path, monkeypatch: pytest.MonkeyPatch, hash_encoder: Any) -> None:
    fork = fork_session(parent, from_round=3, thread_id="fork")
    encoded: list[str] = []
    encode = hash_encoder.encode

    def counting(texts: Any, progress: Any = None) -> Any:
        encoded.extend(texts)
        return encode(texts, progress)

    monkeypatch.setattr(hash_encoder, "encode", counting)
    with Session.view("fork", runs_dir=fork.parent) as session:
        session.export()
    assert encoded == []


def test_lineage_is_shown(parent: Path) -> None:
    fork = fork_session(parent, from_round=3, overrides={"target.mmd2": 0.125}, thread_id="fork")
    result = run(fork)
    (made,) = result["lineage"]
    assert (made["parent"], made["from_round"], made["overrides"]) == ("parent", 3, {"target.mmd2": 0.125})
    assert made["changes"] == ["target.mmd2: -1.0 -> 0.125"]
    page = (fork / "report.html").read_text(encoding="utf-8")
    assert "Forked from session parent at round 3, changing target.mmd2: -1.0 -&gt; 0.125." in page
    card = (fork / "export" / "README.md").read_text(encoding="utf-8")
    assert "Forked from session `parent` at round 3, changing `target.mmd2: -1.0 -> 0.125`." in card
    assert json.loads((fork / "report.json").read_text())["lineage"] == result["lineage"]


def test_nothing_of_the_old_thread_is_left(parent: Path) -> None:
    fork = fork_session(parent, from_round=3, thread_id="fork")
    with closing(sqlite3.connect(fork / "checkpoints.sqlite")) as connection:
        assert connection.execute("SELECT DISTINCT thread_id FROM checkpoints").fetchall() == [("fork",)]
    with closing(sqlite3.connect(fork / "session.sqlite")) as connection:
        for table in ("clusters", "samples", "rejections", "rounds", "choices", "calls"):
            assert connection.execute(f"SELECT COALESCE(MAX(round), 0) FROM {table}").fetchone()[0] <= 2, table
    assert (fork / "config.yaml").read_text().startswith("# Session fork,")


@wherever_parents_are_kept
def test_a_session_forks_itself_in_python_with_an_event_loop_or_without(parent: Path, chat_server: ChatServer) -> None:
    with (
        Session.view("parent", runs_dir=parent.parent) as session,
        session.fork(from_round=4, overrides={"target.mmd2": 0.5}, thread_id="mine") as fork,
    ):
        assert (fork.thread_id, fork.config.target.mmd2, fork.resumed) == ("mine", 0.5, True)
        assert fork.summary()["n_rounds"] == 3

    async def in_a_notebook() -> dict[str, Any]:
        with Session.view("mine", runs_dir=parent.parent) as session, session.fork(thread_id="yours") as fork:
            return await fork.arun()

    assert asyncio.run(in_a_notebook())["n_rounds"] == 4
