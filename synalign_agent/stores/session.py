"""The session store on SQLite: one file, write-ahead log, one transaction per write."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from synalign_agent.errors import SessionError
from synalign_agent.stores.migrations import check_version, migrate
from synalign_agent.stores.record_rows import TextCipher
from synalign_agent.stores.sql import SqlSessionStore


class SqliteSessionStore(SqlSessionStore):
    """A `SessionStore` in one SQLite file (or ":memory:")."""

    def __init__(self, path: Path | str, cipher: TextCipher | None = None) -> None:
        super().__init__(SqliteDatabase(path), cipher)


class SqliteDatabase:
    """The file, brought to the newest schema.

    Raises:
        SessionError: the file is damaged, of a newer version, or cannot be read.
    """

    order = "rowid"

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        # Nodes run on LangGraph's threads and calls on asyncio's; one connection and one lock serve them all.
        self._lock = threading.RLock()
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(self._path, check_same_thread=False, timeout=30.0)
            schema = _Schema(connection)
            check_version(schema.version(), self._path)  # before anything is written
            connection.execute("PRAGMA journal_mode = WAL")
            # NORMAL loses nothing when the process is killed; only a power cut can lose the last commits.
            connection.execute("PRAGMA synchronous = NORMAL")
            migrate(schema)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if not isinstance(error, sqlite3.DatabaseError):
                raise
            raise SessionError(
                f"{self._path}: not readable as a session database ({error}); it may be damaged or on a read-only or full "
                "disk. Restore it from a copy; it is never replaced silently"
            ) from None
        self._connection = connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock, self._connection as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise SessionError(
                f"{self._path}: cannot be written ({error}); free disk space or fix the permissions, then resume: "
                "all that was confirmed before is kept"
            ) from None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._connection
        except sqlite3.DatabaseError as error:
            raise SessionError(f"{self._path}: cannot be read ({error}); restore it from a copy") from None

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class _Schema:
    """The version of the schema in SQLite's own field for it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def set_version(self, number: int) -> None:
        self._connection.execute(f"PRAGMA user_version = {number}")

    @contextmanager
    def transaction(self) -> Iterator[Callable[[str], object]]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection.execute
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
