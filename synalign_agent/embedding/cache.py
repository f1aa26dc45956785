"""Embeddings by content hash in one SQLite file, shared by all sessions of a user."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import platformdirs

from synalign_agent.embedding.base import Encoder, Progress, Vectors

_LOOKUP_KEYS = 500
_COMMIT_TEXTS = 16_384
"""Texts that are embedded between two writes: half a minute on two cores."""
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
        places: dict[bytes, list[int]] = {}
        model_id = self.model_id
        for place, text in enumerate(texts):
            places.setdefault(_key(model_id, text), []).append(place)
        vectors: Vectors | None = None
        missing = dict.fromkeys(places)
        for key, vector in self._lookup(connection, list(places)):
            if vectors is None:
                vectors = np.empty((len(texts), len(vector)), dtype=np.float32)
            vectors[places[key]] = vector
            del missing[key]
        left = list(missing)
        for start in range(0, len(left), _COMMIT_TEXTS):
            keys = left[start : start + _COMMIT_TEXTS]
            fresh = self._encoder.encode([texts[places[key][0]] for key in keys], _shifted(progress, start, len(left)))
            if vectors is None:
                vectors = np.empty((len(texts), fresh.shape[1]), dtype=np.float32)
            for key, vector in zip(keys, fresh, strict=True):
                vectors[places[key]] = vector
            # What was embedded stays embedded: a run that ends here goes on from here.
            with connection:
                connection.executemany(
                    "INSERT OR IGNORE INTO vectors VALUES (?, ?)",
                    ((key, vector.tobytes()) for key, vector in zip(keys, fresh, strict=True)),
                )
        assert vectors is not None
        return vectors

    def _lookup(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> Iterator[tuple[bytes, Vectors]]:
        for start in range(0, len(keys), _LOOKUP_KEYS):
            part = keys[start : start + _LOOKUP_KEYS]
            query = f"SELECT key, vector FROM vectors WHERE key IN ({', '.join('?' * len(part))})"
            for key, vector in connection.execute(query, part):
                yield key, np.frombuffer(vector, dtype=np.float32)


def _key(model_id: str, text: str) -> bytes:
    return hashlib.sha256(f"{model_id}\0{text}".encode()).digest()


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)
