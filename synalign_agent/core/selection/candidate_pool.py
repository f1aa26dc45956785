"""A few rows whose posterior variance is kept up to date while others are conditioned."""

from __future__ import annotations

import numpy as np

from synalign_agent.core.arrays import Array, FloatArray, IntArray, squared_norms
from synalign_agent.core.gp import Pivot
from synalign_agent.core.kernels import Kernel, KernelColumn

_FIRST_CAPACITY = 32


class CandidatePool:
    """Hold rows with their columns of the Cholesky factor, so that conditioning costs O(P (d + t)) for P rows.

    Memory is P (d + 2 t) values at most, in the precision of the rows.
    """

    def __init__(self, rows: IntArray, X: Array, scales: FloatArray, columns: Array, kernel: Kernel) -> None:
        """Take the rows as they are given what is conditioned.

        Args:
            rows: (P,) their indices, ascending.
            X: (P, d) the rows themselves.
            scales: (P,) what their variances are multiplied by, >= 0.
            columns: (P, t) from `PosteriorVariance.project`.
            kernel: the posterior's kernel.
        """
        self.rows = rows
        self._X = X
        self._scales: Array = scales.astype(X.dtype)
        self._column = KernelColumn(kernel)
        self._squared_norms = squared_norms(X)
        self._size = columns.shape[1]
        # Row s is column s of the factor, so that a step reads contiguously.
        self._factor = np.empty((self._size + _FIRST_CAPACITY, len(X)), X.dtype)
        self._factor[: self._size] = columns.T
        self._variance: Array = 1.0 - squared_norms(columns)

    @property
    def variance(self) -> Array:
        """Return (P,) posterior variances; round-off may leave them slightly below 0."""
        return self._variance

    def near_best(self, slack: float) -> IntArray:
        """Return the positions of rows that may be the best if every score may be wrong by `slack`; none if all are dropped."""
        scores = self._variance * self._scales
        best = float(scores.max(initial=-np.inf))
        return np.flatnonzero(scores >= best - 2.0 * slack) if best > -np.inf else np.zeros(0, dtype=np.intp)

    def drop(self, row: int) -> None:
        """Never return this row again; rows that are not held are ignored."""
        position = int(np.searchsorted(self.rows, row))
        if position < len(self.rows) and self.rows[position] == row:
            # A variance is finite, so the product with this loses against every row that is left.
            self._variance[position] = -np.inf
            self._scales[position] = 1.0

    def condition(self, x: Array, pivot: Pivot) -> None:
        """Follow the posterior, which was conditioned on the row x, (d,)."""
        if self._size == len(self._factor):
            grown = np.empty((2 * self._size, len(self.rows)), self._factor.dtype)
            grown[: self._size] = self._factor
            self._factor = grown
        column = self._column(self._X, self._squared_norms, x)
        if self._size:
            column -= pivot.known.astype(column.dtype) @ self._factor[: self._size]
        column /= pivot.root
        self._factor[self._size] = column
        self._size += 1
        column *= column
        self._variance -= column
