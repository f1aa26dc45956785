"""Posterior variances of many rows, each as of some earlier moment, brought up to date where it is asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from synalign_agent.core.arrays import Array, BoolArray, IntArray, squared_norms
from synalign_agent.core.gp import TILE_ROWS, PosteriorVariance
from synalign_agent.core.parallel import for_each_tile

CACHE_BYTES = 2**29
"""Columns of the Cholesky factor kept for all rows: 0.5 GiB, all of them for 100,000 rows and 1,300 conditioned, the first 130
for a million rows. What is not kept is computed again."""


class StaleVariance:
    """Hold an upper bound of every row's variance: its variance when it was last refreshed.

    Memory: 12 bytes a row, at most 0.5 GiB for columns (`CACHE_BYTES`), and O(4096 (t + d)).
    """

    def __init__(self, X: Array, posterior: PosteriorVariance, precision: DTypeLike, n_columns: int) -> None:
        """Start from the prior, whatever the posterior is conditioned on already.

        Args:
            X: (n, d), may be a memory map.
            posterior: what the rows are refreshed from; it goes on being conditioned by others.
            precision: float32 or float64, of bounds and columns.
            n_columns: most columns to keep, those of the rows that are conditioned first.
        """
        self._X, self._posterior = X, posterior
        self.precision = np.dtype(precision)
        self.bounds: Array = np.ones(len(X), self.precision)
        self._age = np.zeros(len(X), dtype=np.int32)
        """(n,) how many rows were conditioned when the bound was computed"""
        self._n_cached = np.zeros(len(X), dtype=np.int32)
        width = min(n_columns, CACHE_BYTES // (self.precision.itemsize * len(X)))
        self._columns: Array = np.empty((len(X), width), self.precision)

    @property
    def is_fresh(self) -> BoolArray:
        """Return (n,) whether the bound is the variance now."""
        fresh: BoolArray = self._age == len(self._posterior)
        return fresh

    def set(self, rows: IntArray, variance: Array) -> None:
        """Take over variances as of now that were computed elsewhere."""
        self.bounds[rows] = np.maximum(variance, 0.0)
        self._age[rows] = len(self._posterior)

    def refresh(self, rows: IntArray) -> int:
        """Bring these rows up to date, those that are not, and return how many that were."""
        t = len(self._posterior)
        stale = rows[self._age[rows] < t]
        # Rows with equally many columns go together: their missing columns are one matrix product.
        order = np.argsort(self._n_cached[stale], kind="stable")
        ordered = stale[order]
        starts = np.flatnonzero(np.diff(self._n_cached[ordered], prepend=-1))
        groups = np.split(ordered, starts[1:])
        tiles = [group[at : at + TILE_ROWS] for group in groups for at in range(0, len(group), TILE_ROWS)]
        for_each_tile(self._refresh_tile, tiles)
        self._age[stale] = t
        return len(stale)

    def columns(self, rows: IntArray) -> tuple[Array, Array]:
        """Return the rows (P, d) and their columns (P, t), see `PosteriorVariance.project`."""
        X = self._take(rows)
        columns = np.empty((len(rows), len(self._posterior)), self.precision)
        for cached in np.unique(self._n_cached[rows]):
            inside = np.flatnonzero(self._n_cached[rows] == cached)
            known = self._columns[rows[inside], :cached]
            columns[inside, :cached] = known
            if cached < columns.shape[1]:
                for start in range(0, len(inside), TILE_ROWS):
                    tile = inside[start : start + TILE_ROWS]
                    columns[tile, cached:] = self._posterior.project(X[tile], known[start : start + TILE_ROWS])
        return X, columns

    def in_float64(self, error: float) -> StaleVariance:
        """Return the same bounds, raised by their largest error, to go on in float64."""
        exact = StaleVariance(self._X, self._posterior, np.float64, self._columns.shape[1])
        exact.bounds[:] = self.bounds + error
        exact._age[:] = -1
        return exact

    def _refresh_tile(self, tile: IntArray) -> None:
        cached, width = int(self._n_cached[tile[0]]), self._columns.shape[1]
        known = self._columns[tile, :cached]
        new = self._posterior.project(self._take(tile), known)
        kept = min(len(self._posterior), width)
        if kept > cached:
            self._columns[tile, cached:kept] = new[:, : kept - cached]
            self._n_cached[tile] = kept
        self.bounds[tile] = np.maximum(1.0 - squared_norms(known) - squared_norms(new), 0.0)

    def _take(self, rows: IntArray) -> Array:
        # A slice where the rows follow each other, which spares a copy.
        is_run = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows) and (np.diff(rows) == 1).all()
        X = self._X[rows[0] : rows[-1] + 1] if is_run else self._X[rows]
        return X.astype(self.precision, copy=False)
