"""Replies at rest under a key: what is in the file, and what happens with another key or none."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from synalign_agent.config import StorageConfig
from synalign_agent.errors import ConfigError, SessionError
from synalign_agent.records import CallRecord
from synalign_agent.stores.encryption import Cipher
from synalign_agent.stores.folder import open_store
from synalign_agent.stores.session import SqliteSessionStore

VARIABLE = "SYNALIGN_TEST_KEY"
SECRET = "a reply that nobody else may read"
CALL = CallRecord("key1", 1, "intended", "generate", 1, "cluster1", 0, "p", "1", "0", "m", 7, 100, 0.1)
DONE = replace(CALL, state="done", content=SECRET, refusal="no: " + SECRET)
STORAGE = StorageConfig(encryption_key_env=VARIABLE)


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    made = new_key()
    monkeypatch.setenv(VARIABLE, made)
    return made


def content(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def write(folder: Path, storage: StorageConfig) -> None:
    store = open_store(folder, storage)
    store.record_calls([CALL, DONE])
    store.set_meta("config", "made")
    store.close()


def test_replies_are_not_in_the_file_and_come_back(tmp_path: Path, key: str) -> None:
    write(tmp_path / "plain", StorageConfig())
    assert SECRET.encode() in content(tmp_path / "plain")
    write(tmp_path / "secret", STORAGE)
    assert SECRET.encode() not in content(tmp_path / "secret") and key.encode() not in content(tmp_path / "secret")
    store = open_store(tmp_path / "secret", STORAGE)
    assert store.calls() == [DONE] and store.look_up_calls(["key1"])["key1"][0] == DONE
    store.close()


def test_the_same_reply_is_never_encrypted_the_same_twice() -> None:
    cipher = Cipher(bytes(32))
    assert cipher.encrypt("text", "place") != cipher.encrypt("text", "place")


@pytest.mark.parametrize(
    "change",
    [lambda text: text[:-8] + "AAAAAAA=", lambda text: "AAAA" + text[4:], lambda text: "", lambda text: "%" + text],
)
def test_a_reply_that_was_changed_or_moved_is_no_reply(change: Callable[[str], str]) -> None:
    cipher = Cipher(bytes(32))
    sealed = cipher.encrypt("text", "calls.content:key1")
    assert cipher.decrypt(sealed, "calls.content:key1") == "text"
    with pytest.raises(SessionError, match="cannot be read"):
        cipher.decrypt(change(sealed), "calls.content:key1")
    with pytest.raises(SessionError, match="cannot be read"):
        cipher.decrypt(sealed, "calls.content:key2")


def test_another_key_and_none_are_refused_with_what_to_do(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, STORAGE)
    monkeypatch.setenv(VARIABLE, new_key())
    with pytest.raises(SessionError, match=f"another key than the one in {VARIABLE}"):
        open_store(tmp_path, STORAGE)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match=f"{VARIABLE} is not set"):
        open_store(tmp_path, STORAGE)
    with pytest.raises(
        SessionError, match=r"is encrypted; name the environment variable .* storage\.encryption_key_env"
    ):
        open_store(tmp_path, StorageConfig())
    monkeypatch.setenv(VARIABLE, key)
    store = open_store(tmp_path, STORAGE)
    assert store.calls() == [DONE]
    store.close()


@pytest.mark.parametrize("text", ["short", base64.b64encode(b"k" * 16).decode(), "é" * 44, "0" * 64])
def test_what_is_no_key_is_refused_without_being_repeated(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ConfigError, match="no key of 32 bytes") as caught:
        Cipher.from_environment(VARIABLE)
    assert text not in str(caught.value)


def test_a_session_that_was_made_without_encryption_stays_so(tmp_path: Path, key: str) -> None:
    write(tmp_path, StorageConfig())
    with pytest.raises(SessionError, match="made without encryption"):
        open_store(tmp_path, STORAGE)


def test_a_reply_written_without_a_cipher_is_not_read_as_one(tmp_path: Path) -> None:
    store = SqliteSessionStore(tmp_path / "session.sqlite")
    store.record_calls([CALL, DONE])
    store.use_cipher(Cipher(bytes(32)))
    with pytest.raises(SessionError, match="cannot be read"):
        store.calls()
    store.close()
