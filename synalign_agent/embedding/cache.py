"""Embeddings by content hash in one SQLite file, shared by all sessions of a user."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import platformdirs

from synalign_agent.embedding.base import Encoder, Progress, Vectors

_LOOKUP_KEYS = 500
_log = logging.getLogger(__name__)


def default_cache_path() -> Path:
    """Return `$SYNALIGN_CACHE_DIR/embeddings.sqlite`, by default in the user's cache folder."""
    folder = os.environ.get("SYNALIGN_CACHE_DIR") or platformdirs.user_cache_dir("synalign")
    return Path(folder) / "embeddings.sqlite"


class CachedEncoder:
    """An encoder that embeds a text once per model, whatever session asks."""

    def __init__(self, encoder: Encoder, path: Path | None = None) -> None:
        self._encoder = encoder
        self._path = path or default_cache_path()

    @property
    def model_id(self) -> str:
        return self._encoder.model_id

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        if not texts:
            return self._encoder.encode(texts, progress)
        try:
            # A connection per use: calls come from several threads, and several processes share the file.
            with closing(self._connect()) as connection:
                return self._encode(connection, texts, progress)
        except (sqlite3.DatabaseError, OSError) as error:
            _log.warning("embedding cache %s is not usable (%s): texts are embedded again", self._path, error)
            return self._encoder.encode(texts, progress)

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=60.0)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")
        return connection

    def _encode(self, connection: sqlite3.Connection, texts: Sequence[str], progress: Progress | None) -> Vectors:
        keys = [self._key(text) for text in texts]
        found = self._lookup(connection, keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            fresh = self._encoder.encode(list(missing.values()), progress)
            with connection:
                connection.executemany(
                    "INSERT OR IGNORE INTO vectors VALUES (?, ?)",
                    [(key, vector.tobytes()) for key, vector in zip(missing, fresh, strict=True)],
                )
            found.update(zip(missing, fresh, strict=True))
        return np.stack([found[key] for key in keys])

    def _lookup(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        found: dict[bytes, Vectors] = {}
        unique = list(dict.fromkeys(keys))
        for start in range(0, len(unique), _LOOKUP_KEYS):
            part = unique[start : start + _LOOKUP_KEYS]
            query = f"SELECT key, vector FROM vectors WHERE key IN ({', '.join('?' * len(part))})"
            for key, vector in connection.execute(query, part):
                found[key] = np.frombuffer(vector, dtype=np.float32)
        return found

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.model_id}\0{text}".encode()).digest()
