"""Unit vectors by row id, in a FAISS index: nearest rows, nearest available rows, k-means. FAISS stays in this file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from synalign_agent.errors import SessionError

Vectors = NDArray[np.float32]


class VectorStore:
    """Unit-norm vectors of one encoder, each under an id, searchable by cosine similarity (exact, flat index)."""

    def __init__(self, model_id: str, dimension: int) -> None:
        self.model_id = model_id
        self.dimension = dimension
        self.ids: list[str] = []
        self._row_of: dict[str, int] = {}
        self._index: Any = faiss.IndexFlatIP(dimension)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, id: str) -> bool:
        return id in self._row_of

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Append vectors (n, dimension) under new ids; ids that are already there are skipped."""
        first = {id: position for position, id in reversed(list(enumerate(ids)))}
        new = sorted(position for id, position in first.items() if id not in self._row_of)
        if not new:
            return
        # A copy: FAISS normalises in place, and the caller's array is the caller's.
        rows = np.ascontiguousarray(vectors[new], dtype=np.float32).copy()
        if rows.shape[1] != self.dimension:
            raise SessionError(f"vectors have {rows.shape[1]} dimensions, this store holds {self.dimension}")
        faiss.normalize_L2(rows)
        self._index.add(rows)
        for position in new:
            self._row_of[ids[position]] = len(self.ids)
            self.ids.append(ids[position])

    def get(self, ids: Sequence[str]) -> Vectors:
        """Return (len(ids), dimension), in the order asked for. Raises KeyError for an unknown id."""
        rows = np.array([self._row_of[id] for id in ids], dtype=np.int64)
        if len(rows) == 0:
            return np.empty((0, self.dimension), dtype=np.float32)
        found: Vectors = self._index.reconstruct_batch(rows)
        return found

    def search(
        self, queries: Vectors, k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], Vectors]:
        """Return rows (n, k') and cosine similarities (n, k') of the nearest vectors, k' = min(k, number searched).

        Args:
            queries: (n, dimension).
            k: neighbours per query.
            among: rows to search; None for all.
        """
        k = min(k, len(self) if among is None else len(among))
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), 0), dtype=np.int64), np.empty((len(queries), 0), dtype=np.float32)
        chosen = None if among is None else faiss.SearchParameters(sel=faiss.IDSelectorBatch(among))  # type: ignore[call-arg]  # faiss adds it at import
        similarities, rows = self._index.search(unit_float32(queries), k, params=chosen)
        return rows, similarities

    def save(self, path: Path) -> None:
        """Write `path` and `path.json`, each atomically; the second one names ids, model and dimension."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")  # an export beside a running session writes too
        faiss.write_index(self._index, str(temporary))
        described = {
            "model_id": self.model_id,
            "dimension": self.dimension,
            "ids": self.ids,
            "sha256": _file_sha256(temporary),
        }
        os.replace(temporary, path)
        temporary.write_text(json.dumps(described), encoding="utf-8")
        os.replace(temporary, path.with_name(path.name + ".json"))

    @classmethod
    def load(cls, path: Path, *, model_id: str) -> VectorStore | None:
        """Read a saved store; None if it is missing, damaged or of another model, in which case it must be rebuilt."""
        try:
            described = json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
            # FAISS trusts the sizes in a file, damaged ones too, and would try to allocate them.
            if described["model_id"] != model_id or described["sha256"] != _file_sha256(path):
                return None
            index = faiss.read_index(str(path))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            return None
        if index.ntotal != len(described["ids"]) or index.d != described["dimension"]:
            return None
        store = cls(model_id, index.d)
        store._index, store.ids = index, described["ids"]
        store._row_of = {id: row for row, id in enumerate(store.ids)}
        return store


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unit_float32(X: NDArray[np.floating]) -> Vectors:
    """Return a float32 copy with rows of norm 1."""
    rows: Vectors = np.array(X, dtype=np.float32, order="C", copy=True)
    faiss.normalize_L2(rows)
    return rows


def nearest_available(X: NDArray[np.floating]) -> Callable[[int, int, NDArray[np.bool_]], NDArray[np.int64]]:
    """Return a function (row, k, available mask) -> up to k nearest available rows of X, nearest first, without the row."""
    store = VectorStore("", X.shape[1])
    store.add([str(row) for row in range(len(X))], np.asarray(X, dtype=np.float32))

    def neighbours(row: int, k: int, available: NDArray[np.bool_]) -> NDArray[np.int64]:
        allowed = np.flatnonzero(available)
        found, _ = store.search(np.asarray(X[row : row + 1], dtype=np.float32), k, among=allowed[allowed != row])
        nearest: NDArray[np.int64] = found[0]
        return nearest

    return neighbours


def kmeans_medoids(X: NDArray[np.floating], k: int, seed: int) -> list[int]:
    """Return the rows nearest to the k centres of FAISS spherical k-means, largest cluster first, without repeats."""
    rows = unit_float32(X)
    k = min(k, len(rows))
    kmeans = faiss.Kmeans(
        rows.shape[1], k, niter=20, seed=seed % 2**31, spherical=True, min_points_per_centroid=1, verbose=False
    )
    kmeans.train(rows)
    _, assigned = kmeans.index.search(rows, 1)
    sizes = np.bincount(assigned[:, 0], minlength=k)
    by_row = faiss.IndexFlatIP(rows.shape[1])
    by_row.add(rows)
    _, medoids = by_row.search(kmeans.centroids, 1)
    order = np.argsort(-sizes, kind="stable")
    return list(dict.fromkeys(int(medoids[centre, 0]) for centre in order if sizes[centre] > 0))
