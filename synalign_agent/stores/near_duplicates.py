"""All pairs of near duplicates among unit vectors: exact by blocks, or within the cells of a k-means for many rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from synalign_agent.errors import InputError
from synalign_agent.stores.unit_vectors import BLOCK_ROWS, Vectors, unit_float32

EXACT_ROWS = 20_000
"""Up to this many rows all pairs are compared; beyond, cells are faster."""
_BLOCK = 4_096
_TARGET_RECALL = 0.99
_CELLS_READ = (2, 4, 8, 16, 32)
_PLANTED = 1_024
_TRAINING_ROWS_PER_CELL = 39
_TRAINING_PASSES = 10
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of rows whose cosine similarity reaches a threshold."""

    n: int
    """Rows searched."""
    pairs: Rows
    """(p, 2), first < second, ascending by second, then first. Rows that are equal bit for bit: see `equal_to`."""
    cosines: Vectors
    """(p,)"""
    equal_to: Rows
    """(n,) the first row that equals this one bit for bit, itself for most. Only first rows take part in `pairs`, or a
    sentence that occurs 10,000 times would make fifty million pairs."""
    recall: float
    """1 for an exact search, else the measured share of planted pairs at exactly the threshold that would be found: a
    lower estimate for the pairs above it."""

    def kept(self) -> NDArray[np.bool_]:
        """Return (n,) which rows stay when, in order, each row that is a near duplicate of one that stays is dropped."""
        stays: NDArray[np.bool_] = self.equal_to == np.arange(self.n)
        for first, second in self.pairs.tolist():
            if stays[first]:
                stays[second] = False
        return stays


def near_duplicates(
    X: NDArray[np.floating[Any]],
    threshold: float,
    *,
    exact_rows: int = EXACT_ROWS,
    max_pairs: int = 20_000_000,
    seed: int = 0,
) -> NearDuplicates:
    """Find all pairs of rows with cosine similarity >= threshold.

    Among more than `exact_rows` rows, the rows are divided into about 4 sqrt(n) cells by spherical k-means, and each row
    is compared with those of the cells nearest to it: as many cells as find 99 % of planted pairs at the threshold.

    Args:
        X: (n, d), finite, no zero row. Copied only if it is not float32 with rows of norm 1.
        threshold: in (0, 1].
        exact_rows: see `EXACT_ROWS`.
        max_pairs: the most pairs to hold (20 bytes each, three times that while they are sorted).
        seed: of the cells and the planted pairs.

    Returns:
        The pairs, with the recall that was measured.

    Raises:
        InputError: the threshold is out of range, a row is zero or not finite, or there are more than `max_pairs` pairs.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"The cosine threshold of near duplicates must lie in (0, 1], got {threshold!r}.")
    equal_to = _equal_rows(X)
    distinct = np.flatnonzero(equal_to == np.arange(len(X)))
    rows = _unit_float32_view(X if len(distinct) == len(X) else X[distinct])
    # A threshold of 1 asks for rows in the same direction, whose cosine comes out a rounding below 1.
    reach = min(threshold, 1.0 - 1e-6)
    recall = 1.0
    if len(rows) <= exact_rows:
        found = _pairs_of_all(rows, reach)
    else:
        cells = _Cells(rows, seed)
        recall = cells.tune(rows, threshold, seed)
        found = cells.pairs(rows, reach)
    keys: list[Rows] = []
    cosines: list[Vectors] = []
    n_pairs = 0
    for first, second, cosine in found:
        # A pair is found from both sides when each row reads the other's cell: here it counts up to twice.
        n_pairs += len(first)
        if n_pairs > 2 * max_pairs:
            raise InputError(
                f"More than {max_pairs:,} pairs of rows have cosine >= {threshold}: raise the threshold, or max_pairs."
            )
        keys.append(second * len(rows) + first)
        cosines.append(cosine)
    key, places = np.unique(np.concatenate(keys) if keys else np.empty(0, dtype=np.int64), return_index=True)
    pairs = distinct[np.stack((key % len(rows), key // len(rows)), axis=1)] if len(key) else np.empty((0, 2), np.int64)
    cosine = np.concatenate(cosines)[places] if len(key) else np.empty(0, dtype=np.float32)
    return NearDuplicates(len(X), pairs, cosine, equal_to, recall)


Found = Iterator[tuple[Rows, Rows, Vectors]]
"""(lower rows, higher rows, cosines) of pairs, some more than once."""


def _pairs_of_all(rows: Vectors, threshold: float) -> Found:
    for start in range(0, len(rows), _BLOCK):
        later = rows[start : start + _BLOCK]
        for other in range(0, start + 1, _BLOCK):
            cosines = later @ rows[other : other + _BLOCK].T
            second, first = np.nonzero(cosines >= threshold)
            proper = first + other < second + start
            second, first = second[proper], first[proper]
            yield first + other, second + start, cosines[second, first]


class _Cells:
    """Rows divided by their nearest centre; a row reads the cells of the `n_read` centres nearest to it."""

    def __init__(self, rows: Vectors, seed: int) -> None:
        n, d = rows.shape
        k = 2 ** round(np.log2(4 * np.sqrt(n)))
        sample = np.random.default_rng(seed).choice(n, min(n, _TRAINING_ROWS_PER_CELL * k), replace=False)
        kmeans = faiss.Kmeans(
            d, k, niter=_TRAINING_PASSES, seed=seed % 2**31, spherical=True, verbose=False, min_points_per_centroid=1
        )
        kmeans.train(rows[np.sort(sample)])
        self._centres: Vectors = np.asarray(kmeans.centroids, dtype=np.float32)
        self._n_read = _CELLS_READ[0]

    def tune(self, rows: Vectors, threshold: float, seed: int) -> float:
        """Read the fewest cells that find 99 % of planted pairs at the threshold (else 32); return the share found.

        A planted row lies at the threshold from a row, half towards another row and half in a random direction: moves
        towards other rows leave a cell sooner than random ones, which are almost orthogonal to all centres.
        """
        rng = np.random.default_rng([seed, 1])
        origin = rows[rng.integers(len(rows), size=_PLANTED)]
        towards = rows[rng.integers(len(rows), size=_PLANTED)] + unit_float32(rng.normal(size=origin.shape))
        away = towards - np.einsum("ij,ij->i", towards, origin)[:, None] * origin
        planted = unit_float32(threshold * origin + np.sqrt(1 - threshold**2) * unit_float32(away))
        home, visited = self._nearest(origin, 1), self._nearest(planted, _CELLS_READ[-1])
        share = 0.0
        for self._n_read in _CELLS_READ:
            share = float((visited[:, : self._n_read] == home).any(axis=1).mean())
            if share >= _TARGET_RECALL:
                break
        return share

    def pairs(self, rows: Vectors, threshold: float) -> Found:
        """Compare the rows of each cell with those that read it."""
        read = np.concatenate(
            [self._nearest(rows[start : start + BLOCK_ROWS], self._n_read) for start in range(0, len(rows), BLOCK_ROWS)]
        )
        n_read = read.shape[1]
        members, member_ends = _grouped(read[:, 0], len(self._centres))
        readers, reader_ends = _grouped(read.ravel(), len(self._centres))
        for cell in range(len(self._centres)):
            inside = members[member_ends[cell] : member_ends[cell + 1]]
            reading = readers[reader_ends[cell] : reader_ends[cell + 1]] // n_read
            held = rows[inside]
            for start in range(0, len(reading), _BLOCK):
                a = reading[start : start + _BLOCK]
                cosines = rows[a] @ held.T
                near_a, near_b = np.nonzero(cosines >= threshold)
                one, other = a[near_a], inside[near_b]
                proper = one != other
                one, other, found = one[proper], other[proper], cosines[near_a, near_b][proper]
                yield np.minimum(one, other), np.maximum(one, other), found

    def _nearest(self, rows: Vectors, n: int) -> NDArray[np.int32]:
        _, cells = faiss.knn(rows, self._centres, min(n, len(self._centres)), metric=faiss.METRIC_INNER_PRODUCT)
        narrow: NDArray[np.int32] = cells.astype(np.int32)
        return narrow


def _grouped(cells: NDArray[np.int32], n_cells: int) -> tuple[Rows, Rows]:
    """Return positions ordered by cell, and where each cell's begin (n_cells + 1)."""
    return np.argsort(cells, kind="stable"), np.concatenate(([0], np.cumsum(np.bincount(cells, minlength=n_cells))))


def _equal_rows(X: NDArray[np.floating[Any]]) -> Rows:
    """Return for each row the first that equals it bit for bit. Memory: 16 bytes a row, and blocks."""
    keys = np.empty(len(X), dtype=np.uint64)
    for start in range(0, len(X), _BLOCK):
        words = np.ascontiguousarray(X[start : start + _BLOCK]).view(np.uint32).astype(np.uint64)
        # Random odd multipliers, summed modulo 2**64: rows that differ share a key about once in 2**32 pairs or less.
        odd = np.random.default_rng(0).integers(2**63, size=words.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(
            1
        )
        keys[start : start + _BLOCK] = (words * odd).sum(axis=1, dtype=np.uint64)
    _, firsts, inverse = np.unique(keys, return_index=True, return_inverse=True)
    first = firsts.astype(np.int64)[inverse]
    for row in np.flatnonzero(first != np.arange(len(X))):
        # A shared key is no proof. Rows that only share it are compared as distinct ones.
        if not np.array_equal(X[row], X[first[row]]):
            first[row] = row
    return first


def _unit_float32_view(X: NDArray[np.floating[Any]]) -> Vectors:
    """Return X itself if it is float32 with rows of norm 1, else a normalised copy."""
    if X.dtype != np.float32:
        return unit_float32(X)
    for start in range(0, len(X), BLOCK_ROWS):
        norms = np.linalg.norm(X[start : start + BLOCK_ROWS], axis=1)
        if not (np.abs(norms - 1) < 1e-5).all():
            return unit_float32(X)
    return np.asarray(X)
