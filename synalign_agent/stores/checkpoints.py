"""LangGraph's checkpoints of a session: in a file beside its database or in its PostgreSQL schema, pruned, maybe encrypted."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from synalign_agent.errors import MissingExtraError, SessionError

if TYPE_CHECKING:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from langgraph.checkpoint.serde.base import SerializerProtocol

FILE = "checkpoints.sqlite"
ROUND_CHANNEL = "history"
"""The state's field that only the end of a round writes: a new version of it marks a round's last checkpoint."""


def kept(checkpoints: Sequence[tuple[str, str | None]], keep_last: int) -> list[str]:
    """Choose the checkpoints to keep: the newest and, of each round, the first that has the round's outcome.

    Args:
        checkpoints: (id, version of `ROUND_CHANNEL`) from old to new.
        keep_last: how many of the newest, at least 1.

    Returns:
        Ids, from old to new.
    """
    newest = {id for id, _ in checkpoints[-keep_last:]}
    ends, before = set(), None
    for id, version in checkpoints:
        if version is not None and version != before:
            ends.add(id)
            before = version
    return [id for id, _ in checkpoints if id in newest or id in ends]


async def prune_checkpoints(saver: BaseCheckpointSaver[Any], thread_id: str, keep_last: int) -> int:
    """Remove a thread's checkpoints that the policy does not keep, and return how many; see `kept`.

    Its newest checkpoint stays, so a thread may be pruned while it runs. The state of the thread is unchanged.
    """
    if isinstance(saver, AsyncSqliteSaver):
        return await _prune_sqlite(saver, thread_id, keep_last)
    return await _prune_postgres(saver, thread_id, keep_last)  # type: ignore[arg-type]


async def _prune_sqlite(saver: AsyncSqliteSaver, thread_id: str, keep_last: int) -> int:
    await saver.setup()
    where = "thread_id = ? AND checkpoint_ns = ''"
    async with saver.lock:
        query = f"SELECT checkpoint_id, type, checkpoint FROM checkpoints WHERE {where} ORDER BY checkpoint_id"
        async with saver.conn.execute(query, (thread_id,)) as cursor:
            rows = await cursor.fetchall()
        found = [(id, _round_version(saver.serde.loads_typed((kind, blob)))) for id, kind, blob in rows]
        keep = set(kept(found, keep_last))
        old = [(thread_id, id) for id, _ in found if id not in keep]
        try:
            # Writes first: without their checkpoint they would never be found again.
            await saver.conn.executemany(f"DELETE FROM writes WHERE {where} AND checkpoint_id = ?", old)
            await saver.conn.executemany(f"DELETE FROM checkpoints WHERE {where} AND checkpoint_id = ?", old)
            await saver.conn.commit()
        except BaseException:
            await saver.conn.rollback()
            raise
    return len(old)


async def _prune_postgres(saver: AsyncPostgresSaver, thread_id: str, keep_last: int) -> int:
    where = "thread_id = %s AND checkpoint_ns = ''"
    versions = "jsonb_each_text(checkpoint -> 'channel_versions')"
    async with saver.lock, saver.conn.transaction(), saver.conn.cursor() as cursor:  # type: ignore[union-attr]
        await cursor.execute(
            f"SELECT checkpoint_id AS id, checkpoint -> 'channel_versions' ->> %s AS version FROM checkpoints WHERE {where} "
            'ORDER BY checkpoint_id COLLATE "C"',
            (ROUND_CHANNEL, thread_id),
        )
        found = [(row["id"], row["version"]) for row in await cursor.fetchall()]
        keep = kept(found, keep_last)
        chosen = set(keep)
        old = [id for id, _ in found if id not in chosen]
        if old:
            for table in ("checkpoint_writes", "checkpoints"):
                await cursor.execute(f"DELETE FROM {table} WHERE {where} AND checkpoint_id = ANY(%s)", (thread_id, old))
            # Values are kept once for all checkpoints that share them.
            await cursor.execute(
                f"DELETE FROM checkpoint_blobs AS blob WHERE {where} AND NOT EXISTS (SELECT 1 FROM checkpoints AS one, "
                f"{versions} AS used WHERE one.thread_id = blob.thread_id AND one.checkpoint_ns = blob.checkpoint_ns "
                "AND used.key = blob.channel AND used.value = blob.version)",
                (thread_id,),
            )
    return len(old)


def _round_version(checkpoint: Any) -> str | None:
    version = checkpoint["channel_versions"].get(ROUND_CHANNEL)
    return None if version is None else str(version)


class _SqliteSaver(AsyncSqliteSaver):
    """Prunes at each end of a round, and says what to do when the file cannot be written."""

    place: str
    keep_last: int | None

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        with _explained(self.place):
            result = await super().aput(config, checkpoint, metadata, new_versions)
            if self.keep_last is not None and ROUND_CHANNEL in new_versions:
                await prune_checkpoints(self, str(config["configurable"]["thread_id"]), self.keep_last)
        return result

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        with _explained(self.place):
            await super().aput_writes(config, writes, task_id, task_path)


class _explained:
    """Turn the errors of SQLite into sentences."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, sqlite3.OperationalError):
            raise SessionError(
                f"{self._place}: cannot be written ({error}); free disk space or fix the permissions, then resume: all calls "
                "that were answered are in the journal"
            ) from None
        if isinstance(error, sqlite3.DatabaseError):
            raise SessionError(
                f"{self._place}: not readable as checkpoints ({error}). Restore it from a copy, or move it away and resume: the "
                "session is then replayed from its journal, without new calls"
            ) from None


@asynccontextmanager
async def open_sqlite_checkpointer(
    folder: Path, keep_last: int | None, serializer: SerializerProtocol | None = None
) -> AsyncIterator[AsyncSqliteSaver]:
    """Open the checkpoints in a session's folder.

    Raises:
        SessionError: the file is damaged or cannot be written.
    """
    import aiosqlite

    place = folder / FILE
    try:
        async with aiosqlite.connect(place) as connection:
            saver = _SqliteSaver(connection, serde=serializer)
            saver.place, saver.keep_last = str(place), keep_last
            with _explained(saver.place):
                await saver.setup()
            yield saver
    except sqlite3.DatabaseError as error:
        with _explained(str(place)):
            raise error


@asynccontextmanager
async def open_postgres_checkpointer(
    url: str, thread_id: str, keep_last: int | None, serializer: SerializerProtocol | None = None
) -> AsyncIterator[AsyncPostgresSaver]:
    """Open the checkpoints in a session's PostgreSQL schema, which must exist.

    Raises:
        MissingExtraError: psycopg or LangGraph's saver is not installed.
        SessionError: the server cannot be used.
    """
    try:
        import psycopg
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg.rows import dict_row
    except ImportError:
        raise MissingExtraError(
            "storage.url needs a part that is not installed: pip install 'synalign-agent[postgres]'"
        ) from None
    from synalign_agent.stores.postgres import connect_arguments

    class PostgresSaver(AsyncPostgresSaver):
        """Prunes at each end of a round."""

        async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
            result = await super().aput(config, checkpoint, metadata, new_versions)
            if keep_last is not None and ROUND_CHANNEL in new_versions:
                await prune_checkpoints(self, str(config["configurable"]["thread_id"]), keep_last)
            return result

    url, enter = connect_arguments(url, thread_id)
    try:
        async with await psycopg.AsyncConnection.connect(
            url, autocommit=True, prepare_threshold=0, row_factory=dict_row
        ) as connection:
            await connection.execute(enter.encode())
            saver = PostgresSaver(connection, serde=serializer)
            await saver.setup()
            yield saver
    except psycopg.Error as error:
        raise SessionError(
            f"the checkpoints in PostgreSQL cannot be used ({' '.join(str(error).split())}); see to the server, then resume: all "
            "calls that were answered are in the journal"
        ) from None
