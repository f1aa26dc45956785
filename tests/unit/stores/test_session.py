from __future__ import annotations

import gc
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synalign_agent.errors import SessionError
from synalign_agent.records import CallRecord, Choice, Decision, DemonstrationCluster, RealRow, Rejection, Sample
from synalign_agent.stores import migrations
from synalign_agent.stores.migrations import MIGRATIONS
from synalign_agent.stores.session import SqliteSessionStore

REAL = RealRow("real1", "text", "label", "reference")
CLUSTER = DemonstrationCluster("cluster1", 1, "label", 0, "real1", ("real1",), None)
SAMPLE = Sample("sample1", 1, "label", "text", "cluster1", "key1", 0, "real1", 0.5)
REJECTION = Rejection("rejection1", 1, "label", "key1", "duplicate", "detail")
DECISION = Decision.of("sample", "sample1", 1, "approve", reviewer="ada", decided_at="2026-01-01T00:00:00Z")
CALL = CallRecord("key1", 1, "intended", "generate", 1, "cluster1", 0, "p", "1", "0", "m", 7, 100, 0.1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.sqlite"


def filled(path: Path) -> SqliteSessionStore:
    store = SqliteSessionStore(path)
    store.set_meta("key", "value")
    store.add_real([REAL])
    store.add_clusters([CLUSTER])
    store.record_calls([CALL])
    store.admit([SAMPLE], [REJECTION])
    store.add_round(1, {"mmd2": 0.5}, b"w", [Choice("sample1", 1.0, 1)])
    return store


def refuse(path: Path) -> str:
    with pytest.raises(SessionError) as caught:
        SqliteSessionStore(path)
    gc.collect()  # a connection left open would warn here, and warnings are errors
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_everything_is_there_when_opened_again(path: Path) -> None:
    filled(path).close()
    store = SqliteSessionStore(path)
    assert store.meta("key") == "value" and store.real_rows() == [REAL] and store.clusters() == [CLUSTER]
    assert store.calls() == [CALL] and store.samples() == [SAMPLE] and store.rejections() == [REJECTION]
    assert store.rounds() == [{"mmd2": 0.5}] and store.witness(1) == b"w"
    assert store.choices(1) == [Choice("sample1", 1.0, 1)]
    assert store.mark_lost_calls() == 1
    store.close()


def test_what_was_written_survives_without_a_close(path: Path, tmp_path: Path) -> None:
    store = filled(path)
    # What a killed process leaves behind: the files as they are now.
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tmp_path.glob("session.sqlite*"):
        (copy / file.name).write_bytes(file.read_bytes())
    store.close()
    survivor = SqliteSessionStore(copy / path.name)
    assert survivor.samples() == [SAMPLE] and survivor.calls() == [CALL]
    survivor.close()


def test_the_path_may_be_text_or_memory() -> None:
    store = SqliteSessionStore(":memory:")
    store.add_real([REAL])
    assert store.real_rows() == [REAL]
    store.close()


def test_two_stores_on_one_file_see_each_other(path: Path) -> None:
    one, two = SqliteSessionStore(path), SqliteSessionStore(path)
    one.add_real([REAL])
    assert two.real_rows() == [REAL]
    two.admit([SAMPLE], [])
    assert one.samples() == [SAMPLE]
    one.close()
    two.close()


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_a_newer_schema_is_refused_and_nothing_changed(path: Path, journal_mode: str) -> None:
    filled(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {journal_mode}")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    message = refuse(path)
    assert f"schema {len(MIGRATIONS) + 1}" in message and "upgrade" in message
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["garbage", "header", "cut"])
def test_a_damaged_file_is_refused_and_not_replaced(path: Path, damage: str) -> None:
    filled(path).close()
    intact = path.read_bytes()
    damaged = {
        "garbage": b"this is no database, and it is longer than a header of one hundred bytes would be " * 20,
        "header": b"\xff" * 16 + intact[16:],
        "cut": intact[: len(intact) // 2 + 7],
    }[damage]
    path.write_bytes(damaged)
    refuse(path)
    assert path.read_bytes()[16:] == damaged[16:] and len(path.read_bytes()) == len(damaged)


def test_damage_found_while_reading_is_a_session_error(path: Path) -> None:
    store = filled(path)
    store.add_real([RealRow(f"more{n}", "text " * 100, "label", "reference") for n in range(200)])
    store.close()
    content = bytearray(path.read_bytes())
    # The first page holds the schema: everything after it is rows and indices.
    content[4096:] = b"\x5a" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(SessionError) as caught:
        SqliteSessionStore(path).real_rows()
    assert str(path) in str(caught.value)


def test_a_folder_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    refuse(tmp_path)
    refuse(tmp_path / "none" / "session.sqlite")
    assert not (tmp_path / "none").exists()


def test_an_empty_file_becomes_a_new_session(path: Path) -> None:
    path.touch()
    store = SqliteSessionStore(path)
    assert store.real_rows() == []
    store.close()


WRITES: dict[str, Callable[[SqliteSessionStore], object]] = {
    "set_meta": lambda store: store.set_meta("key", "other"),
    "add_real": lambda store: store.add_real([RealRow("real2", "t", "l", "holdout")]),
    "add_attributes": lambda store: store.add_attributes("cluster1", {"a": "b"}),
    "record_calls, intended": lambda store: store.record_calls([replace(CALL, key="key2")]),
    "record_calls, done": lambda store: store.record_calls([replace(CALL, state="done")]),
    "mark_lost_calls": lambda store: store.mark_lost_calls(),
    "admit": lambda store: store.admit([], [Rejection("rejection2", 1, "l", "k", "r", "d")]),
    "add_round": lambda store: store.add_round(2, {}, b"", []),
    "add_decisions": lambda store: store.add_decisions([DECISION]),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_file_that_cannot_be_written_is_a_session_error(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    filled(path).close()
    connect = sqlite3.connect

    def read_only(database: str, **options: Any) -> sqlite3.Connection:
        # As for a file without write permission, which root, who may run the tests, always has.
        connection: sqlite3.Connection = connect(f"file:{database}?mode=ro", uri=True, **options)
        return connection

    monkeypatch.setattr(sqlite3, "connect", read_only)
    store = SqliteSessionStore(path)
    assert store.samples() == [SAMPLE]  # it can still be read
    with pytest.raises(SessionError) as caught:
        WRITES[name](store)
    assert str(path) in str(caught.value) and "cannot be written" in str(caught.value)
    store.close()


def test_admitting_is_all_or_nothing(path: Path) -> None:
    store = SqliteSessionStore(path)
    unwritable = Rejection("rejection2", 1, "label", "key1", "duplicate", "lone \ud83d surrogate")
    with pytest.raises(UnicodeEncodeError):
        store.admit([SAMPLE], [REJECTION, unwritable])
    assert store.samples() == [] and store.rejections() == []
    store.admit([SAMPLE], [REJECTION])
    assert store.samples() == [SAMPLE] and store.rejections() == [REJECTION]
    store.close()


def test_a_new_file_has_the_newest_schema_and_migrating_again_does_nothing(path: Path) -> None:
    filled(path).close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    before = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    SqliteSessionStore(path).close()
    assert connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == before
    connection.close()


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every table, as they are in the file."""
    connection = sqlite3.connect(path)
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    rows = {name: connection.execute(f"SELECT * FROM {name} ORDER BY rowid").fetchall() for name in names}
    connection.close()
    return rows


def first_schema(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Make a database as version 1 of the schema wrote it, and return its rows."""
    connection = sqlite3.connect(path)
    connection.executescript(MIGRATIONS[0])
    connection.execute("PRAGMA user_version = 1")
    call = "('key1', 1, 'done', 'generate', 1, 'cluster1', 0, 'p', '1', '0', 'm', 7, 100, 0.1, '{}', 'stop', NULL, NULL, NULL"
    connection.executescript(f"""
        INSERT INTO meta VALUES ('key', 'value');
        INSERT INTO real VALUES ('real1', 'text', 'label', 'reference');
        INSERT INTO clusters VALUES ('cluster1', 1, 'label', 0, 'real1', '["real1"]', NULL);
        INSERT INTO attributes VALUES ('cluster1', '{{"tone": "calm"}}');
        INSERT INTO calls VALUES {call}, 10, 5, 0.25, 1.5);
        INSERT INTO samples VALUES ('sample1', 1, 'label', 'text', 'cluster1', 'key1', 0, 'real1', 0.5);
        INSERT INTO rejections VALUES ('rejection1', 1, 'label', 'key1', 'duplicate', 'detail', '');
        INSERT INTO rounds VALUES (1, '{{"mmd2": 0.5}}', x'77');
        INSERT INTO choices VALUES (1, 'sample1', 1.0, 1);
    """)
    connection.close()
    return tables(path)


def test_a_database_of_the_first_schema_is_migrated_without_loss(path: Path) -> None:
    before = first_schema(path)
    store = SqliteSessionStore(path)
    assert store.samples() == [SAMPLE] and store.rejections() == [REJECTION] and store.clusters() == [CLUSTER]
    assert store.calls()[0].content == "{}" and not store.calls()[0].cached and store.call_totals().charged_tokens == 15
    assert store.decisions() == [] and store.choices(1) == [Choice("sample1", 1.0, 1)] and store.witness(1) == b"w"
    store.add_decisions([DECISION])
    assert store.decisions() == [DECISION]
    store.close()
    after = tables(path)
    for name, rows in before.items():
        assert [row[: len(rows[0])] for row in after[name]] == rows, name


def test_a_migration_that_fails_half_way_leaves_the_schema_before_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = first_schema(path)
    halfway = MIGRATIONS[1] + "; CREATE TABLE more (id TEXT); INSERT INTO nowhere VALUES (1)"
    monkeypatch.setattr(migrations, "MIGRATIONS", (MIGRATIONS[0], halfway))
    assert "nowhere" in refuse(path)
    assert tables(path) == before
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()
    monkeypatch.undo()
    SqliteSessionStore(path).close()
    assert "decisions" in tables(path) and "more" not in tables(path)


def test_processes_that_migrate_at_once_take_each_step_once(path: Path) -> None:
    first_schema(path)
    start, errors = threading.Barrier(4), []

    def open_it() -> None:
        start.wait(10)
        try:
            SqliteSessionStore(path).close()
        except SessionError as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == [] and len(tables(path)["samples"]) == 1 and "decisions" in tables(path)


def test_a_fork_adopts_inherited_calls_when_it_asks_for_them(path: Path) -> None:
    store = SqliteSessionStore(path)
    finished = replace(CALL, state="done", content="{}", prompt_tokens=3, cost_usd=0.5)
    store.record_calls([CALL, finished, replace(CALL, key="key2")])
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("INSERT INTO inherited_calls SELECT * FROM calls")
        connection.execute("DELETE FROM calls")
    connection.close()
    assert store.calls() == [] and store.call_groups() == []
    assert store.look_up_calls(["key2"])["key2"][0] is None  # it was not finished
    assert store.look_up_calls(["key1", "key3"]) == {"key1": (finished, 2), "key3": (None, 1)}
    assert store.look_up_calls(["key1"])["key1"][0] == finished and store.calls() == [finished]
    store.record_calls([replace(CALL, key="key3")])
    assert [(group.state, group.inherited, group.n) for group in store.call_groups()] == [
        ("done", True, 1),
        ("intended", False, 1),
    ]
    store.close()


def limited(store: SqliteSessionStore, more_pages: int) -> None:
    """Let the file grow by a few pages and then be full, as on a full disk."""
    with store._database.reading() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone() or (0,)
        connection.execute(f"PRAGMA max_page_count = {pages + more_pages}")


def test_on_a_full_disk_nothing_that_was_confirmed_is_lost(path: Path) -> None:
    store = filled(path)
    limited(store, 20)
    confirmed = [CALL]
    with pytest.raises(SessionError, match="free disk space"):
        for number in range(1000):
            call = replace(CALL, key=f"more{number}")
            done = replace(call, state="done", content="reply " * 200)
            store.record_calls([call])
            confirmed.append(call)
            store.record_calls([done])
            confirmed[-1] = done
    assert 5 < len(confirmed) < 100
    with pytest.raises(SessionError, match="free disk space"):
        store.admit([replace(SAMPLE, id=f"s{n}", text="text " * 500) for n in range(50)], [])
    assert store.calls() == confirmed and store.samples() == [SAMPLE]
    store.close()
    again = SqliteSessionStore(path)  # with space again
    assert again.calls() == confirmed and again.mark_lost_calls() >= 1
    again.admit([replace(SAMPLE, id="s2")], [])
    assert again.count_samples() == 2
    again.close()


def test_a_database_in_a_read_only_folder_is_explained(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(database: str, **options: Any) -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", read_only)
    assert "read-only or full disk" in refuse(path)
