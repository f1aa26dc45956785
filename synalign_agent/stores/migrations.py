"""Numbered, append-only migrations of a session's database. Never edit one that was released; add the next.

Written for SQLite, whose types are few; `stores/postgres.py` translates them. No statement holds a semicolon.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from synalign_agent.errors import SessionError

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE real (id TEXT PRIMARY KEY, text TEXT NOT NULL, label TEXT NOT NULL, split TEXT NOT NULL);
    CREATE TABLE clusters (
      id TEXT PRIMARY KEY, round INTEGER NOT NULL, label TEXT NOT NULL, position INTEGER NOT NULL, seed_id TEXT NOT NULL,
      member_ids TEXT NOT NULL, score REAL);
    CREATE TABLE attributes (cluster_id TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE calls (
      key TEXT NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL, node TEXT NOT NULL, round INTEGER NOT NULL,
      cluster_id TEXT NOT NULL, draw INTEGER NOT NULL, prompt TEXT NOT NULL, prompt_version TEXT NOT NULL,
      prompt_sha256 TEXT NOT NULL, model TEXT NOT NULL, seed INTEGER NOT NULL,
      bound_tokens INTEGER NOT NULL, bound_usd REAL NOT NULL, content TEXT, finish_reason TEXT, refusal TEXT,
      error_class TEXT, error TEXT, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost_usd REAL NOT NULL,
      seconds REAL NOT NULL, PRIMARY KEY (key, attempt));
    CREATE INDEX calls_by_round ON calls (round, node);
    CREATE TABLE samples (
      id TEXT PRIMARY KEY, round INTEGER NOT NULL, label TEXT NOT NULL, text TEXT NOT NULL, cluster_id TEXT NOT NULL,
      call_key TEXT NOT NULL, position INTEGER NOT NULL, nearest_real_id TEXT NOT NULL, nearest_similarity REAL NOT NULL);
    CREATE TABLE rejections (
      id TEXT PRIMARY KEY, round INTEGER NOT NULL, label TEXT NOT NULL, call_key TEXT NOT NULL, reason TEXT NOT NULL,
      detail TEXT NOT NULL, text TEXT NOT NULL);
    CREATE TABLE rounds (round INTEGER PRIMARY KEY, metrics TEXT NOT NULL, witness BLOB NOT NULL);
    CREATE TABLE choices (
      round INTEGER NOT NULL, sample_id TEXT NOT NULL, weight REAL NOT NULL, copies INTEGER NOT NULL,
      PRIMARY KEY (round, sample_id));
    """,
    """
    ALTER TABLE calls ADD COLUMN cached INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE samples ADD COLUMN edited_from TEXT;
    CREATE TABLE decisions (
      id TEXT PRIMARY KEY, kind TEXT NOT NULL, item_id TEXT NOT NULL, round INTEGER NOT NULL, verdict TEXT NOT NULL,
      edited TEXT, reason TEXT, reviewer TEXT NOT NULL, decided_at TEXT NOT NULL);
    CREATE TABLE inherited_calls (
      key TEXT NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL, node TEXT NOT NULL, round INTEGER NOT NULL,
      cluster_id TEXT NOT NULL, draw INTEGER NOT NULL, prompt TEXT NOT NULL, prompt_version TEXT NOT NULL,
      prompt_sha256 TEXT NOT NULL, model TEXT NOT NULL, seed INTEGER NOT NULL,
      bound_tokens INTEGER NOT NULL, bound_usd REAL NOT NULL, content TEXT, finish_reason TEXT, refusal TEXT,
      error_class TEXT, error TEXT, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost_usd REAL NOT NULL,
      seconds REAL NOT NULL, cached INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (key, attempt));
    """,
)


class Schema(Protocol):
    """A database whose schema has a version."""

    def version(self) -> int:
        """Return the number of migrations that the database has seen."""

    def transaction(self) -> AbstractContextManager[Callable[[str], object]]:
        """Alone among all processes, run statements, and keep all that they did or nothing."""

    def set_version(self, number: int) -> None:
        """Write the number, inside the transaction."""


def check_version(version: int, place: str) -> None:
    """Refuse a database of a newer version of this package, without touching it.

    Raises:
        SessionError: it is newer.
    """
    if version > len(MIGRATIONS):
        raise SessionError(
            f"{place}: written by a newer synalign-agent (schema {version}, this one knows {len(MIGRATIONS)}); "
            "upgrade the package, nothing was changed"
        )


def migrate(schema: Schema, version: int | None = None) -> None:
    """Bring a database to a version of the schema, each step in its own transaction: one that fails leaves the one before it.

    Args:
        schema: the database.
        version: number of migrations, 0 or more; None for the newest. A database that is further stays as it is.
    """
    goal = len(MIGRATIONS) if version is None else version
    while schema.version() < goal:
        with schema.transaction() as run:
            # Asked again, alone now: another process may have taken the step meanwhile.
            number = schema.version() + 1
            if number <= goal:
                for statement in MIGRATIONS[number - 1].split(";"):
                    if statement.strip():
                        run(statement)
                schema.set_version(number)
