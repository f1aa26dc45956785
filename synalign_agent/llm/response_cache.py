"""Replies of all sessions in one SQLite file: asked for by the journal's key, so that an equal call is paid for once."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from synalign_agent.errors import ConfigError
from synalign_agent.records import CallRecord

_log = logging.getLogger(__name__)
_LOOKUP_KEYS = 500
_TABLE = """CREATE TABLE IF NOT EXISTS replies (
  key TEXT PRIMARY KEY, model TEXT NOT NULL, content TEXT NOT NULL, finish_reason TEXT, refusal TEXT,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL)"""


class ResponseCache:
    """The shared replies. Several processes may use one file; a cache that fails costs its replies, never a run.

    The key covers the session's seed, the node, round, cluster and draw, the model's name, the messages, the schema and the
    parameters: sessions share the calls that both would make, and draws of one prompt stay different texts.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the file, or make it.

        Raises:
            ConfigError: it cannot be opened, or is something else.
        """
        self._path = str(path)
        self._lock = threading.Lock()
        try:
            Path(path).expanduser().parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(Path(path).expanduser(), check_same_thread=False, timeout=30.0)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(_TABLE)
        except (sqlite3.DatabaseError, OSError) as error:
            raise ConfigError(
                f"llm.response_cache: {path}: not usable as a cache ({error}); name another file, or null for none"
            ) from None

    def get(self, planned: Sequence[CallRecord]) -> list[CallRecord]:
        """Return those of `planned` whose replies are here, as finished calls that cost nothing."""
        found: list[CallRecord] = []
        try:
            for start in range(0, len(planned), _LOOKUP_KEYS):
                part = {call.key: call for call in planned[start : start + _LOOKUP_KEYS]}
                query = f"SELECT key, content, finish_reason, refusal FROM replies WHERE key IN ({','.join('?' * len(part))})"
                with self._lock:
                    rows = self._connection.execute(query, list(part)).fetchall()
                # Neither tokens nor bounds: this session used none, and its budget must not be charged.
                found += [
                    replace(
                        part[key], state="done", content=content, finish_reason=finish_reason, refusal=refusal,
                        bound_tokens=0, bound_usd=0.0, cached=True,
                    )
                    for key, content, finish_reason, refusal in rows
                ]  # fmt: skip
        except sqlite3.DatabaseError as error:
            _log.warning("response cache %s cannot be read (%s): the calls are sent", self._path, error)
            return []
        return found

    def put(self, calls: Sequence[CallRecord]) -> None:
        """Keep the replies of finished calls; the first reply to a key stays."""
        rows = [
            (c.key, c.model, c.content or "", c.finish_reason, c.refusal, c.prompt_tokens, c.completion_tokens)
            for c in calls
        ]
        try:
            with self._lock, self._connection as connection:
                connection.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.DatabaseError as error:
            _log.warning(
                "response cache %s cannot be written (%s): %d replies are not shared", self._path, error, len(rows)
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
