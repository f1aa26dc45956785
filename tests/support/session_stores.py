"""Every kind of session store, empty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from synalign_agent.records import content_id
from synalign_agent.stores.base import SessionStore
from synalign_agent.stores.encryption import Cipher
from synalign_agent.stores.memory import MemorySessionStore
from synalign_agent.stores.postgres import PostgresSessionStore
from synalign_agent.stores.session import SqliteSessionStore

KEY = bytes(range(32))
NAMES = ("memory", "sqlite", "encrypted", "postgres")
Maker = Callable[[Path], SessionStore]


def maker(name: str, request: pytest.FixtureRequest) -> Maker:
    """Return what makes a store of its own for each folder."""
    if name == "memory":
        return lambda folder: MemorySessionStore()
    if name == "sqlite":
        return lambda folder: SqliteSessionStore(folder / "session.sqlite")
    if name == "encrypted":
        return lambda folder: SqliteSessionStore(folder / "session.sqlite", Cipher(KEY))
    url = request.getfixturevalue("postgres_url")
    return lambda folder: PostgresSessionStore(url, content_id(str(folder)))
