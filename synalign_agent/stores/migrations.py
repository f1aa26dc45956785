"""Numbered, append-only migrations of `session.sqlite`. Never edit one that was released; add the next."""

from __future__ import annotations

import sqlite3

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
)


def check_version(connection: sqlite3.Connection, path: str) -> None:
    """Refuse a database of a newer version of this package, without touching it.

    Raises:
        SessionError: it is newer.
    """
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise SessionError(
            f"{path}: written by a newer synalign-agent (schema {version}, this one knows {len(MIGRATIONS)}); "
            "upgrade the package, nothing was changed"
        )


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to the newest schema, each step in its own transaction."""
    for number, script in enumerate(MIGRATIONS[_version(connection) :], start=_version(connection) + 1):
        connection.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
