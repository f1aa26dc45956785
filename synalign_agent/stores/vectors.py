"""Unit vectors by row id: one matrix, searched exactly or, when there are many rows, by inverted lists."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synalign_agent.errors import InputError, SessionError
from synalign_agent.stores.clusters import kmeans_medoids
from synalign_agent.stores.nearest import nearest_available
from synalign_agent.stores.unit_vectors import Vectors, unit_float32
from synalign_agent.stores.vector_index import InvertedLists, Rows, exact_search, measured_recall

__all__ = ["EXACT_ROWS", "MAPPED_BYTES", "VectorStore", "kmeans_medoids", "nearest_available", "unit_float32"]

EXACT_ROWS = 200_000
"""Up to this many rows every search is exact: it costs about 1 ms a query, where embedding the query costs 2 ms."""
MAPPED_BYTES = 64 * 2**20
"""From this size on, the vectors of a loaded store stay in their file and are paged in when they are read."""
_GROWTH = 1.5
_ABANDONED_SECONDS = 3600.0
"""A file that no description names and nobody wrote to for so long was left by a process that died."""


class VectorStore:
    """Unit-norm vectors of one encoder, each under an id, searchable by cosine similarity.

    One thread may add while others search: they find what was there when they began, or more.

    Memory: 4 d bytes a row, once, and d + 8 more beyond `exact_rows` rows. While it grows, the old and the new matrix exist
    together for a moment.
    """

    def __init__(self, model_id: str, dimension: int, *, exact_rows: int = EXACT_ROWS) -> None:
        """Make an empty store; see `EXACT_ROWS` for `exact_rows`."""
        self.model_id = model_id
        self.dimension = dimension
        self.ids: list[str] = []
        self._row_of: dict[str, int] = {}
        self._exact_rows = exact_rows
        self._buffer: Vectors = np.empty((0, dimension), dtype=np.float32)
        self._lists: InvertedLists | None = None
        # Of the index, which cannot be searched while it grows. Exact searches need none: rows, once there, stay as they are.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, id: str) -> bool:
        return id in self._row_of

    @property
    def matrix(self) -> Vectors:
        """All vectors, (n, dimension), in the order of `ids`: a read-only view that later additions do not change."""
        view = self._buffer[: len(self)]
        view.flags.writeable = False
        return view

    @property
    def approximate(self) -> bool:
        """Whether searches of all rows may miss neighbours; `recall` says how many they find."""
        return self._lists is not None

    @property
    def recall(self) -> float:
        """Recall@10 as measured when the index was made or doubled; 1 for exact search."""
        return 1.0 if self._lists is None else self._lists.recall

    def measured_recall(
        self, k: int = 10, n_queries: int = 256, queries: NDArray[np.floating[Any]] | None = None
    ) -> float:
        """Measure recall@k now, with stored rows as queries, or with `queries` (see `vector_index.measured_recall`)."""
        unit = None if queries is None else unit_float32(queries)
        with self._lock:
            if self._lists is None:
                return 1.0
            return measured_recall(self.matrix, self._lists.search, k, n_queries, unit)

    def add(self, ids: Sequence[str], vectors: NDArray[np.floating[Any]]) -> None:
        """Append vectors under new ids; ids that are already there are skipped, so a repeated call changes nothing.

        Beyond `exact_rows` rows the index is made, or extended: about 70 microseconds a row, 3 % of embedding it.

        Args:
            ids: (n,) distinct.
            vectors: (n, dimension), finite, not zero. Copied and scaled to norm 1.

        Raises:
            SessionError: the vectors have another dimension.
            InputError: an id occurs twice, the counts differ, or a vector is zero or not finite; nothing was added.
        """
        if len(ids) != len(vectors):
            raise InputError(f"There are {len(ids)} ids for {len(vectors)} vectors.")
        if len(set(ids)) != len(ids):
            seen: set[str] = set()
            twice = next(id for id in ids if id in seen or seen.add(id))  # type: ignore[func-returns-value]
            raise InputError(f"The id {twice!r} is given to two vectors; ids must be distinct.")
        self._check_dimension(vectors)
        with self._lock:
            new = [position for position, id in enumerate(ids) if id not in self._row_of]
            if not new:
                return
            n, total = len(self), len(self) + len(new)
            self._reserve(total)
            unit_float32(vectors if len(new) == len(ids) else vectors[new], out=self._buffer[n:total])
            # Vectors first: a thread that sees an id finds its vector.
            self.ids.extend(ids[position] for position in new)
            self._row_of.update((ids[position], row) for row, position in enumerate(new, start=n))
            self._index(grown_from=n)

    def get(self, ids: Sequence[str]) -> Vectors:
        """Return a copy, (len(ids), dimension), in the order asked for. Raises KeyError for an unknown id."""
        found: Vectors = np.asarray(self._buffer[np.array([self._row_of[id] for id in ids], dtype=np.int64)])
        return found

    def first(self, n: int) -> VectorStore:
        """Return a store of the first n rows, bit for bit; it shares their memory until it grows."""
        part = type(self)(self.model_id, self.dimension, exact_rows=self._exact_rows)
        part._buffer, part.ids = self.matrix[:n], self.ids[:n]
        part._row_of = {id: row for row, id in enumerate(part.ids)}
        part._index(grown_from=n)
        return part

    def search(self, queries: NDArray[np.floating[Any]], k: int, among: Rows | None = None) -> tuple[Rows, Vectors]:
        """Find the nearest vectors of each query.

        Args:
            queries: (n, dimension), finite, not zero.
            k: neighbours per query.
            among: rows to search; None for all.

        Returns:
            Rows (n, k') and exact cosine similarities (n, k'), nearest first, k' = min(k, number searched). All neighbours
            are found among at most `exact_rows` rows; among more, the share that `recall` tells.

        Raises:
            SessionError: the queries have another dimension.
            InputError: a query is zero or not finite.
        """
        self._check_dimension(queries)
        n_searched = len(self) if among is None else len(among)
        k = min(k, n_searched)
        if k <= 0 or len(queries) == 0:
            return np.empty((len(queries), 0), dtype=np.int64), np.empty((len(queries), 0), dtype=np.float32)
        if among is not None:
            among = np.sort(among)
        if n_searched > self._exact_rows:
            with self._lock:
                if self._lists is not None:
                    return self._lists.search(self.matrix, unit_float32(queries), k, among)
        return exact_search(self.matrix, unit_float32(queries), k, among)

    def save(self, path: Path) -> None:
        """Write `path.json`, which names ids, model and dimension, and the files that hold vectors (.npy) and index.

        Those are named by their content and never overwritten, and the description is replaced last: a process that dies
        at any moment leaves the store as it was before or as it is now. Files of the earlier description are then removed.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        description = _beside(path, "json")
        before = _files_named_by(description)
        with self._lock:
            described: dict[str, Any] = {
                "model_id": self.model_id,
                "dimension": self.dimension,
                "ids": self.ids,
                "vectors": _write_by_content(path, "npy", self._write_vectors),
            }
            if self._lists is not None:
                described["lists"] = _write_by_content(path, "lists", self._lists.write) | {
                    "trained_for": self._lists.trained_for,
                    "n_probe": self._lists.n_probe,
                    "recall": self._lists.recall,
                }
            text = json.dumps(described)
        temporary = _temporary(path)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, description)
        now = _files_named_by(description)
        for suffix in ("npy", "lists", "tmp"):
            for file in path.parent.glob(f"{path.name}.*.{suffix}"):
                if file.name not in now and (file.name in before or _abandoned(file)):
                    file.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, *, model_id: str, exact_rows: int = EXACT_ROWS) -> VectorStore | None:
        """Read a saved store; None if it is missing, damaged or of another model, in which case it must be rebuilt.

        Files are checked by SHA-256 in full, large ones too: that takes under a second a gigabyte and is the pass over the
        file that brings it into the page cache. From `MAPPED_BYTES` on the vectors are then mapped, not copied.
        """
        try:
            described = json.loads(_beside(path, "json").read_text(encoding="utf-8"))
            if described["model_id"] != model_id:
                return None
            file = _checked(path, described["vectors"])
            mapped = file.stat().st_size >= MAPPED_BYTES
            rows = np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False)
            if rows.dtype != np.float32 or rows.shape != (len(described["ids"]), described["dimension"]):
                return None
            store = cls(model_id, described["dimension"], exact_rows=exact_rows)
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return None
        store._buffer, store.ids = rows, described["ids"]
        store._row_of = {id: row for row, id in enumerate(store.ids)}
        store._lists = _read_lists(path, described.get("lists"), len(store))
        store._index(grown_from=len(store))
        return store

    def _check_dimension(self, vectors: NDArray[np.floating[Any]]) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            shape = vectors.shape[1] if vectors.ndim == 2 else f"shape {vectors.shape} and not rows of"
            raise SessionError(f"vectors have {shape} dimensions, this store holds {self.dimension}")

    def _reserve(self, total: int) -> None:
        if total <= len(self._buffer) and self._buffer.flags.writeable:
            return
        # A mapped store that grows moves into memory. One that is filled at once gets no spare room.
        room = total if len(self) == 0 else max(total, int(_GROWTH * len(self)))
        grown = np.empty((room, self.dimension), dtype=np.float32)
        grown[: len(self)] = self._buffer[: len(self)]
        self._buffer = grown

    def _index(self, grown_from: int) -> None:
        n = len(self)
        if n <= self._exact_rows:
            self._lists = None
        elif self._lists is None or self._lists.outgrown(n):
            self._lists = InvertedLists.build(self.matrix)
        elif len(self._lists) < n:
            self._lists.extend(self.matrix)
            # Recall is measured again at twice and three times the size that the lists were made for, not at every addition.
            if n // self._lists.trained_for != grown_from // self._lists.trained_for:
                self._lists.tune(self.matrix)

    def _write_vectors(self, temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a path, np.save would add a suffix
            np.save(file, self.matrix)


def _read_lists(path: Path, described: Any, n: int) -> InvertedLists | None:
    """Read a saved index; None if there is none or it is damaged: it can be made again from the vectors."""
    if described is None:
        return None
    try:
        file = _checked(path, described)
        lists = InvertedLists.read(file, described["trained_for"], described["n_probe"], described["recall"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None
    return lists if len(lists) == n else None


def _write_by_content(path: Path, suffix: str, write: Callable[[Path], object]) -> dict[str, Any]:
    """Write a file, name it by its content, and describe it."""
    temporary = _temporary(path)
    write(temporary)
    digest = _file_sha256(temporary)
    file = _beside(path, f"{digest[:16]}.{suffix}")
    os.replace(temporary, file)
    return {"file": file.name, "sha256": digest}


def _checked(path: Path, described: dict[str, Any]) -> Path:
    """Return the file that is described, if it holds what it held; raises ValueError if not."""
    file = path.with_name(described["file"])
    if _file_sha256(file) != described["sha256"]:
        raise ValueError(f"{file} was changed or cut")
    return file


def _files_named_by(description: Path) -> set[str]:
    try:
        described = json.loads(description.read_text(encoding="utf-8"))
        return {described[part]["file"] for part in ("vectors", "lists") if part in described}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _abandoned(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime > _ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def _temporary(path: Path) -> Path:
    return _beside(path, f"{os.getpid()}.tmp")  # an export beside a running session writes too


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
