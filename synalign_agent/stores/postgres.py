"""The session store on PostgreSQL: one schema for each session, so that many sessions and machines share a database."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from synalign_agent.errors import MissingExtraError, SessionError
from synalign_agent.stores.database import Row
from synalign_agent.stores.migrations import check_version, migrate
from synalign_agent.stores.record_rows import TextCipher
from synalign_agent.stores.sql import SqlSessionStore

if TYPE_CHECKING:
    import psycopg

_MAX_NAME = 63  # bytes of an identifier
_TYPES = {"INTEGER": "BIGINT", "REAL": "DOUBLE PRECISION", "BLOB": "BYTEA"}
_VERSION = "schema_version"
_OWNER = "owner"
_CONNECT_SECONDS = 15
_CLAIM_SECONDS, _CLAIM_POLL_SECONDS = 3.0, 0.1
# PostgreSQL keeps no NUL in a text. A noncharacter marks the place, and itself.
_ESCAPE, _NUL, _ESCAPED_NUL, _ESCAPED_ESCAPE = "\U0010ffff", "\0", "\U0010ffff0", "\U0010ffff1"


class PostgresSessionStore(SqlSessionStore):
    """A `SessionStore` in one schema of a PostgreSQL database."""

    def __init__(self, url: str, thread_id: str, cipher: TextCipher | None = None) -> None:
        self._postgres = PostgresDatabase(url, thread_id)
        super().__init__(self._postgres, cipher)

    def claim(self, owner: str) -> str | None:
        # The server frees the lock of a process that was killed a moment after its connection is gone.
        patience = time.monotonic() + _CLAIM_SECONDS
        while not self._postgres.try_lock():
            if time.monotonic() > patience:
                return self.meta(_OWNER) or "another process"
            time.sleep(_CLAIM_POLL_SECONDS)
        self.set_meta(_OWNER, owner)
        return None

    def release(self) -> None:
        self._postgres.unlock()

    def claimed_by(self) -> str | None:
        return (self.meta(_OWNER) or "another process") if self._postgres.is_locked() else None


def connect(url: str, thread_id: str) -> psycopg.Connection[Any]:
    """Return a connection that is in the session's schema and commits each statement by itself.

    Raises:
        MissingExtraError: psycopg is not installed.
        SessionError: the server cannot be reached or refuses.
    """
    url, enter = connect_arguments(url, thread_id)
    driver = _driver()
    with explained_refusal(), ExitStack() as stack:
        connection: psycopg.Connection[Any] = driver.connect(url, autocommit=True, connect_timeout=_CONNECT_SECONDS)
        stack.callback(connection.close)
        connection.execute(enter)
        stack.pop_all()
        return connection


@contextmanager
def explained_refusal() -> Iterator[None]:
    """Turn the errors of a server that cannot be used, or does not allow what the block does, into a sentence."""
    driver = _driver()
    try:
        yield
    except driver.Error as error:
        raise SessionError(
            f"storage.url: the database cannot be used ({_line(error)}); check that the server runs, the names of the "
            "database and the user, and that PGPASSWORD or ~/.pgpass holds the password"
        ) from None


def connect_arguments(url: str, thread_id: str) -> tuple[str, str]:
    """Return the connection string and the statement that enters the session's schema.

    The server is told to notice within a minute that a machine is gone, so that its lock on the session ends.
    """
    settings = {
        "search_path": f'"{schema_name(thread_id)}"',
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
    calls = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in settings.items())
    return url, f"SELECT {calls}"


def schema_name(thread_id: str) -> str:
    """Return the session's schema: readable, and different for different sessions.

    Args:
        thread_id: letters, digits, dot, dash and underscore.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]+", thread_id):
        raise SessionError(f"thread id {thread_id!r}: use letters, digits, dot, dash and underscore")
    name = f"synalign_{thread_id}"
    if len(name) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(thread_id.encode()).hexdigest()[:16]
    return f"{name[: _MAX_NAME - 17]}_{digest}"


def is_claimed(connection: psycopg.Connection[Any], thread_id: str) -> bool:
    """Tell whether any process has claimed a session."""
    number = _session_lock(thread_id) % 2**64
    row = connection.execute(
        "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND classid = %s AND objid = %s "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (number >> 32, number % 2**32),
    ).fetchone()
    return row is not None


class PostgresDatabase:
    """The session's schema, brought to the newest version.

    Raises:
        MissingExtraError: psycopg is not installed.
        SessionError: the server cannot be reached or refuses, or the schema is of a newer version.
    """

    order = "seq"

    def __init__(self, url: str, thread_id: str) -> None:
        self._error: type[Exception] = _driver().Error
        self._thread_id = thread_id
        self._place = f"PostgreSQL schema {schema_name(thread_id)}"
        self._lock = threading.RLock()
        with ExitStack() as stack:
            self._connection = stack.enter_context(connect(url, thread_id))
            self._run = _Translated(self._connection)
            schema = PostgresSchema(self._connection, schema_name(thread_id))
            with explained_refusal():
                check_version(schema.version(), self._place)
                migrate(schema)
            stack.pop_all()  # opened: `close` ends it

    @contextmanager
    def writing(self) -> Iterator[_Translated]:
        try:
            with self._lock, self._connection.transaction():
                yield self._run
        except self._error as error:
            raise SessionError(
                f"{self._place}: cannot be written ({_line(error)}); see to the server, then resume: all that was confirmed "
                "before is kept"
            ) from None

    @contextmanager
    def reading(self) -> Iterator[_Translated]:
        try:
            with self._lock:
                yield self._run
        except self._error as error:
            raise SessionError(
                f"{self._place}: cannot be read ({_line(error)}); see to the server, then resume"
            ) from None

    def try_lock(self) -> bool:
        """Take the session for this connection; the server frees it when the connection ends."""
        with self.reading() as run:
            row = run.execute("SELECT pg_try_advisory_lock(?)", (self._lock_number(),)).fetchone()
            return bool(row and row[0])

    def unlock(self) -> None:
        """Free the session."""
        with self.reading() as run:
            run.execute("SELECT pg_advisory_unlock(?)", (self._lock_number(),))

    def is_locked(self) -> bool:
        """Tell whether any connection has the session."""
        with self.reading():
            return is_claimed(self._connection, self._thread_id)

    def close(self) -> None:
        with self._lock:
            # Freed before the connection is, which the server notices only later.
            with suppress(self._error):
                self._connection.execute("SELECT pg_advisory_unlock_all()")
            self._connection.close()

    def _lock_number(self) -> int:
        return _session_lock(self._thread_id)


class _Translated:
    """Runs statements in the form that both dialects share."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> _Result:
        return _Result(self._connection.execute(_marked(statement), [_escaped(value) for value in values]))

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> object:
        escaped = [[_escaped(value) for value in row] for row in rows]
        with self._connection.cursor() as cursor:
            cursor.executemany(_marked(statement), escaped)
        return None


class _Result:
    """Rows as they were before they were escaped."""

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    def fetchone(self) -> Row | None:
        row = self._cursor.fetchone()
        return None if row is None else tuple(map(_unescaped, row))

    def fetchall(self) -> list[Row]:
        return [tuple(map(_unescaped, row)) for row in self._cursor.fetchall()]


class PostgresSchema:
    """A session's schema by its name, with its version in a row of `meta`; it is made by its first migration."""

    def __init__(self, connection: psycopg.Connection[Any], name: str) -> None:
        self._connection = connection
        self.name = name

    def version(self) -> int:
        there = self._connection.execute("SELECT to_regclass(%s)", (f'"{self.name}".meta',)).fetchone()
        if there is None or there[0] is None:
            return 0
        query = f'SELECT value FROM "{self.name}".meta WHERE key = %s'.encode()
        row = self._connection.execute(query, (_VERSION,)).fetchone()
        return 0 if row is None else int(row[0])

    def set_version(self, number: int) -> None:
        statement = (
            f'INSERT INTO "{self.name}".meta (key, value) VALUES (%s, %s) '
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        )
        self._connection.execute(statement.encode(), (_VERSION, str(number)))

    @contextmanager
    def transaction(self) -> Iterator[Callable[[str], object]]:
        with self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (_number(f"migrate {self.name}"),))
            self._connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self.name}"'.encode())
            yield lambda statement: self._connection.execute(translate_schema(statement).encode())


def translate_schema(statement: str) -> str:
    """Turn a statement of a migration into PostgreSQL's: its types, and a column that keeps the order of writing."""
    statement = re.sub(r"\b(INTEGER|REAL|BLOB)\b", lambda match: _TYPES[match[1]], statement)
    return re.sub(
        r"CREATE TABLE (\w+) \(", r"CREATE TABLE \1 (seq BIGINT GENERATED ALWAYS AS IDENTITY, ", statement, count=1
    )


def _driver() -> ModuleType:
    try:
        import psycopg
    except ImportError:
        raise MissingExtraError(
            "storage.url needs a part that is not installed: pip install 'synalign-agent[postgres]'"
        ) from None
    return psycopg


def _marked(statement: str) -> bytes:
    return statement.replace("?", "%s").encode()


def _escaped(value: Any) -> Any:
    if isinstance(value, str) and (_NUL in value or _ESCAPE in value):
        return value.replace(_ESCAPE, _ESCAPED_ESCAPE).replace(_NUL, _ESCAPED_NUL)
    return value


def _unescaped(value: Any) -> Any:
    if isinstance(value, str) and _ESCAPE in value:
        return value.replace(_ESCAPED_NUL, _NUL).replace(_ESCAPED_ESCAPE, _ESCAPE)
    return value


def _session_lock(thread_id: str) -> int:
    return _number(f"PostgreSQL schema {schema_name(thread_id)}")


def _number(name: str) -> int:
    """Return the 64-bit signed integer by which PostgreSQL knows an advisory lock."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
