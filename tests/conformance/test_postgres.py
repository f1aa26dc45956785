"""What only PostgreSQL has: schemas, the lock that machines share, its texts and its failures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from synalign_agent.errors import SessionError
from synalign_agent.records import RealRow, content_id
from synalign_agent.stores import migrations
from synalign_agent.stores.migrations import MIGRATIONS
from synalign_agent.stores.postgres import PostgresSessionStore, schema_name

REAL = RealRow("real1", "text", "label", "reference")


@pytest.fixture
def thread_id(tmp_path: Path) -> str:
    return f"Thread.{content_id(str(tmp_path))}"


@pytest.fixture
def opened(postgres_url: str, thread_id: str) -> Callable[[], PostgresSessionStore]:
    return lambda: PostgresSessionStore(postgres_url, thread_id)


def rows(url: str, thread_id: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, options=f'-c search_path="{schema_name(thread_id)}"') as connection:
        found = connection.execute(query.encode())
        return found.fetchall() if found.description else []


def test_sessions_share_a_database_and_not_their_rows(postgres_url: str, thread_id: str) -> None:
    one, two = PostgresSessionStore(postgres_url, thread_id), PostgresSessionStore(postgres_url, thread_id.lower())
    one.add_real([REAL])
    assert two.real_rows() == [] and one.real_rows() == [REAL]
    one.close()
    two.close()


def test_every_session_has_a_schema_of_its_own() -> None:
    assert schema_name("agnews-2026.01") == "synalign_agnews-2026.01"
    long = [schema_name("x" * 127 + end) for end in "ab"]
    assert len(set(long)) == 2 and all(len(name) == 63 for name in long)
    for id in ('a"; DROP SCHEMA public; --', "a b", ""):
        with pytest.raises(SessionError, match="use letters"):
            schema_name(id)


def test_one_machine_at_a_time_runs_a_session_and_is_named(opened: Callable[[], PostgresSessionStore]) -> None:
    one, two, watcher = opened(), opened(), opened()
    assert watcher.claimed_by() is None
    assert one.claim("process 1 on ada") is None
    assert two.claim("process 2 on bob") == "process 1 on ada" == watcher.claimed_by()
    one.release()
    assert watcher.claimed_by() is None and two.claim("process 2 on bob") is None
    assert one.claim("process 1 on ada") == "process 2 on bob"
    two.close()  # as when the process ends, however it ends
    assert one.claim("process 1 on ada") is None
    one.close()
    watcher.close()


def test_of_many_that_claim_at_once_one_wins(opened: Callable[[], PostgresSessionStore]) -> None:
    stores = [opened() for _ in range(6)]
    start, outcomes = threading.Barrier(len(stores)), []

    def claim(number: int) -> None:
        start.wait(10)
        outcomes.append(stores[number].claim(str(number)))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes.count(None) == 1 and len(outcomes) == len(stores)
    for store in stores:
        store.close()


def test_a_lost_connection_ends_the_claim_and_every_later_write(
    opened: Callable[[], PostgresSessionStore], postgres_url: str, thread_id: str
) -> None:
    one, two = opened(), opened()
    one.add_real([REAL])
    assert one.claim("one") is None
    mine = one._postgres._connection.info.backend_pid
    rows(postgres_url, thread_id, f"SELECT pg_terminate_backend({mine}, 5000)")
    # Whoever lost the claim must not write any more: another machine may have it.
    with pytest.raises(SessionError, match=r"cannot be written .* then resume"):
        one.add_real([RealRow("real2", "text", "label", "reference")])
    with pytest.raises(SessionError, match="cannot be read"):
        one.real_rows()
    assert two.claim("two") is None and two.real_rows() == [REAL]
    one.close()
    two.close()


def test_a_newer_schema_is_refused_and_nothing_changed(
    opened: Callable[[], PostgresSessionStore], postgres_url: str, thread_id: str
) -> None:
    opened().close()
    rows(postgres_url, thread_id, f"UPDATE meta SET value = '{len(MIGRATIONS) + 1}' WHERE key = 'schema_version'")
    before = rows(postgres_url, thread_id, "SELECT * FROM meta")
    with pytest.raises(SessionError, match="newer synalign-agent"):
        opened()
    assert rows(postgres_url, thread_id, "SELECT * FROM meta") == before


def test_the_first_schema_is_migrated_without_loss_and_a_failed_step_leaves_it(
    opened: Callable[[], PostgresSessionStore], postgres_url: str, thread_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "MIGRATIONS", MIGRATIONS[:1])
    store = opened()
    rows(postgres_url, thread_id, "INSERT INTO samples VALUES (1, 's', 1, 'l', 't', 'c', 'k', 0, 'r', 0.5)".replace(
        "samples VALUES", "samples OVERRIDING SYSTEM VALUE VALUES"
    ))  # fmt: skip
    store.close()
    monkeypatch.setattr(migrations, "MIGRATIONS", (MIGRATIONS[0], MIGRATIONS[1] + "; INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(SessionError, match="nowhere"):
        opened()
    assert rows(postgres_url, thread_id, "SELECT value FROM meta WHERE key = 'schema_version'") == [("1",)]
    monkeypatch.undo()
    store = opened()
    assert [(sample.id, sample.edited_from) for sample in store.samples()] == [("s", None)] and store.decisions() == []
    store.close()


def test_machines_that_open_a_new_session_at_once_make_it_once(opened: Callable[[], PostgresSessionStore]) -> None:
    start, stores, errors = threading.Barrier(5), [], []

    def make() -> None:
        start.wait(10)
        try:
            stores.append(opened())
        except SessionError as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == [] and len(stores) == 5
    stores[0].add_real([REAL])
    assert all(store.real_rows() == [REAL] for store in stores)
    for store in stores:
        store.close()


def test_what_postgres_cannot_keep_in_a_text_comes_back_whole(opened: Callable[[], PostgresSessionStore]) -> None:
    store = opened()
    texts = ["\0", "\U0010ffff", "\U0010ffff0", "\U0010ffff1\0\U0010ffff", "0\U0010ffff\0", "%s ? %%"]
    store.add_real([RealRow(text, text, text, "reference") for text in texts])
    assert [row.text for row in store.real_rows()] == texts == [row.id for row in store.real_rows()]
    for text in texts:
        store.set_meta(text, text)
        assert store.meta(text) == text
    store.close()


def test_a_wrong_database_is_explained_without_the_password(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "canary-7f3a")
    with pytest.raises(SessionError, match=r"storage\.url: .*does not exist.*PGPASSWORD") as caught:
        PostgresSessionStore(postgres_url.replace("/postgres", "/nowhere"), "thread")
    assert "canary-7f3a" not in str(caught.value)
