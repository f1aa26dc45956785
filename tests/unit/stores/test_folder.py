"""Where a session is kept: its database is found again, is never replaced silently, and one process at a time runs it."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from synalign_agent.config import StorageConfig
from synalign_agent.errors import InputError, MissingExtraError, SessionError
from synalign_agent.records import RealRow
from synalign_agent.stores.folder import (
    check_thread_id,
    explained_errors,
    is_locked,
    lock_session,
    open_store,
    session_exists,
)

REAL = RealRow("real1", "text", "label", "reference")
URL = "postgresql://ada@127.0.0.1:1/db"


def made(folder: Path) -> Path:
    store = open_store(folder, StorageConfig())
    store.add_real([REAL])
    store.close()
    (folder / "config.yaml").write_text("storage: {url: null}\n", encoding="utf-8")
    return folder


def test_a_session_is_made_and_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    assert not session_exists(folder)
    made(folder)
    assert session_exists(folder)
    store = open_store(folder)
    assert store.real_rows() == [REAL] and store.claim("me") is None and store.claimed_by() is None
    store.close()


@pytest.mark.parametrize("left", [0, 512, 4096, 10_000])
def test_a_cut_database_is_refused_with_advice_and_left_as_it_is(tmp_path: Path, left: int) -> None:
    file = made(tmp_path) / "session.sqlite"
    cut = file.read_bytes()[:left]
    assert len(cut) == left
    file.write_bytes(cut)
    with pytest.raises(SessionError, match=r"[Rr]estore it from a copy") as caught:
        open_store(tmp_path)
    assert str(file) in str(caught.value) and file.read_bytes() == cut


def test_a_deleted_database_is_refused_with_advice_and_not_made_again(tmp_path: Path) -> None:
    file = made(tmp_path) / "session.sqlite"
    file.unlink()
    with pytest.raises(SessionError, match=r"is missing, but config\.yaml of its session is there"):
        open_store(tmp_path, StorageConfig())
    assert not file.exists()


def test_a_session_does_not_move_to_another_database(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"kept in session\.sqlite"):
        open_store(made(tmp_path / "files"), StorageConfig(url=URL))
    there = tmp_path / "server"
    there.mkdir()
    (there / "config.yaml").write_text(f"storage: {{url: '{URL}'}}\n", encoding="utf-8")
    assert session_exists(there)
    with pytest.raises(SessionError, match=f"kept at {URL}"):
        open_store(there, StorageConfig())
    assert not (there / "session.sqlite").exists()


def test_a_broken_config_says_which_part_without_repeating_it(tmp_path: Path) -> None:
    for text in (
        "storage: {url: 'postgresql://ada:canary@host/db'}",
        "storage: canary",
        "storage: {canary: 1}",
        "[canary",
    ):
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(SessionError, match=r"config\.yaml") as caught:
            open_store(tmp_path)
        assert "canary" not in str(caught.value)


def test_a_server_that_cannot_be_reached_is_a_session_error(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"storage\.url: the database cannot be used .* PGPASSWORD"):
        open_store(tmp_path, StorageConfig(url=URL))


def test_one_process_at_a_time_runs_a_session_and_is_named(tmp_path: Path) -> None:
    made(tmp_path)
    assert not is_locked(tmp_path)
    with ExitStack() as stack:
        lock_session(tmp_path, stack)
        assert is_locked(tmp_path)
        with pytest.raises(SessionError, match=f"being run by process {os.getpid()} on "), ExitStack() as other:
            lock_session(tmp_path, other)
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


@pytest.mark.parametrize("id", ["", ".hidden", "a/b", "a b", "a\n", 'a"; DROP', "x" * 129])
def test_what_cannot_name_a_folder_is_refused(id: str) -> None:
    with pytest.raises(InputError, match="use letters, digits"):
        check_thread_id(id)
    check_thread_id("agnews-2026.01_x")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(SessionError, match=f"{os.strerror(number)}.*free disk space or fix the permissions"):
        open_store(tmp_path / "one")
    monkeypatch.undo()
    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(SessionError, match="owner: cannot be written"), ExitStack() as stack:
        lock_session(tmp_path, stack)
    assert not is_locked(tmp_path)
    with pytest.raises(SessionError, match=r"vectors: cannot be written"), explained_errors(tmp_path):
        (tmp_path / "vectors").write_text("")


def test_other_errors_are_not_blamed_on_the_disk(tmp_path: Path) -> None:
    for error in (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), ValueError("bug"), TimeoutError()):
        with pytest.raises(type(error)), explained_errors(tmp_path):
            raise error


def test_what_is_not_installed_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'synalign-agent\[postgres\]'"):
        open_store(tmp_path / "one", StorageConfig(url=URL))
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    monkeypatch.setenv("SYNALIGN_TEST_KEY", "A" * 43 + "=")
    with pytest.raises(MissingExtraError, match=r"pip install 'synalign-agent\[encryption\]'"):
        open_store(tmp_path / "two", StorageConfig(encryption_key_env="SYNALIGN_TEST_KEY"))
