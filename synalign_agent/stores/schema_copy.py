"""A session's PostgreSQL schema copied under another name, renamed and dropped: what a fork is made of."""

from __future__ import annotations

from synalign_agent.errors import SessionError
from synalign_agent.stores.migrations import check_version, migrate
from synalign_agent.stores.postgres import PostgresSchema, connect, explained_refusal, schema_name


def copy_schema(url: str, source: str, target: str) -> None:
    """Copy a session's rows, all as of one moment, into a schema of the same version; its checkpoints stay behind.

    Args:
        url: the database that holds both.
        source: thread id of the session, which may be running and is only read.
        target: thread id whose schema is made.

    Raises:
        SessionError: there is no such session, it is of a newer version, the target exists, or the server refuses.
    """
    old, new = schema_name(source), schema_name(target)
    with connect(url, target) as connection, explained_refusal(), connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        version = PostgresSchema(connection, old).version()
        if version == 0:
            raise SessionError(f"PostgreSQL schema {old}: there is none, so there is nothing to fork")
        check_version(version, f"PostgreSQL schema {old}")
        connection.execute(f'CREATE SCHEMA "{new}"'.encode())
        migrate(PostgresSchema(connection, new), version)
        tables = connection.execute(
            "SELECT table_name::text, string_agg(quote_ident(column_name), ', ') FROM information_schema.columns "
            "WHERE table_schema = %s AND column_name <> 'seq' GROUP BY table_name",
            (new,),
        ).fetchall()
        for table, names in tables:
            connection.execute(
                f'INSERT INTO "{new}".{table} ({names}) SELECT {names} FROM "{old}".{table} ORDER BY seq '
                "ON CONFLICT DO NOTHING".encode()
            )


def rename_schema(url: str, source: str, target: str) -> None:
    """Give the schema of one thread id to another.

    Raises:
        SessionError: the target has a schema, or the server refuses.
    """
    old, new = schema_name(source), schema_name(target)
    with connect(url, source) as connection, explained_refusal():
        if PostgresSchema(connection, new).version():
            raise SessionError(f"PostgreSQL schema {new}: exists already; choose another --thread-id")
        connection.execute(f'ALTER SCHEMA "{old}" RENAME TO "{new}"'.encode())


def drop_schema(url: str, thread_id: str) -> None:
    """Remove a thread id's schema and everything in it, if there is one."""
    with connect(url, thread_id) as connection, explained_refusal():
        connection.execute(f'DROP SCHEMA IF EXISTS "{schema_name(thread_id)}" CASCADE'.encode())
