"""Posterior variance of a Gaussian process at any rows, given the rows conditioned so far.

The variance at x does not depend on observed values, only on where was looked, so it
tracks what has been explored (SynAlign, arXiv 2502.08661, section 3.1). Conditioning
row by row is a partial pivoted Cholesky factorisation (Harbrecht et al., 2012), the
same recursion as greedy MAP of a determinantal point process (Chen et al., 2018).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from synalign_agent.core.arrays import Array, FloatArray, squared_norms
from synalign_agent.core.kernels import Kernel, KernelColumn
from synalign_agent.errors import InputError

_SMALLEST_PIVOT = 1e-12
"""Below this a pivot is round-off of k(x, x) = 1, not information."""
_FIRST_JITTER = 1e-10
_FIRST_CAPACITY = 64
TILE_ROWS = 4096
"""Rows of X taken together: with 384 dimensions and 600 conditioned rows, 6 + 10 + 10 MB of float32."""
_TRIANGLE_COLUMNS = 256
"""Width of the column blocks in which a product with a triangular matrix skips the zeros."""


class Pivot(NamedTuple):
    """What conditioning on one row adds to the Cholesky factor L of K(S, S) + noise I."""

    known: FloatArray
    """(t,) the row's entries of L in the columns of the t rows conditioned before."""
    root: float
    """Its diagonal entry, the square root of the variance that was left plus noise (and jitter, where that was needed)."""
    variance: float
    """The variance that was left; round-off may put it slightly below 0."""


class PosteriorVariance:
    """Hold the rows conditioned so far; compute the variance left at any other rows.

    variance(x) = k(x, x) - k(x, S) [K(S, S) + noise I]^-1 k(S, x), S = conditioned.

    With t conditioned rows of d dimensions: memory is O(t^2 + t d), conditioning costs O(t^2 + t d), and the variance of n
    rows costs n (2 t d + t^2) flops, nearly all of them in matrix products, with O(4096 (t + d)) memory.
    """

    def __init__(self, kernel: Kernel, noise: float = 1e-4) -> None:
        """Start with nothing conditioned, so variance 1 everywhere.

        Args:
            kernel: with k(x, x) = 1.
            noise: observation noise variance, >= 0.

        Raises:
            InputError: if `noise` is negative or not finite.
        """
        if not (math.isfinite(noise) and noise >= 0):
            raise InputError(f"noise must be >= 0, got {noise!r}.")
        self._kernel = kernel
        self._column = KernelColumn(kernel)
        self._noise = noise
        self._size = 0
        self._rows: FloatArray = np.empty((0, 0))
        self._norms: FloatArray = np.empty(0)
        self._factor: FloatArray = np.zeros((0, 0))
        # With L^-1 a row is conditioned, and a tile of rows projected, by products alone. The noise bounds the condition
        # number of L (sqrt(t / noise)), so the inverse is as good as a solve.
        self._inverse: FloatArray = np.zeros((0, 0))

    def __len__(self) -> int:
        return self._size

    def pivot(self, x: Array) -> Pivot:
        """Return what conditioning on one row, (d,), would add."""
        row, t = x.astype(np.float64), self._size
        self._reserve(t + 1, len(row))
        known = self._inverse[:t, :t] @ self._column(self._rows[:t], self._norms[:t], row)
        variance = 1.0 - float(known @ known)
        return Pivot(known, math.sqrt(max(variance + self._noise, 0.0)), variance)

    def condition(self, x: Array, pivot: Pivot | None = None) -> Pivot:
        """Add one row to the conditioned set.

        Args:
            x: (d,).
            pivot: of this row, where it is known and nothing was conditioned since.

        Returns:
            What was added, for those who hold columns of the factor (see `project`).
        """
        known, _, variance = pivot or self.pivot(x)
        t, root = self._size, self._root(variance + self._noise)
        self._factor[t, :t], self._factor[t, t] = known, root
        self._inverse[t, :t], self._inverse[t, t] = (known @ self._inverse[:t, :t]) / -root, 1.0 / root
        self._rows[t] = x
        self._norms[t] = self._rows[t] @ self._rows[t]
        self._size += 1
        return Pivot(known, root, variance)

    def pivots(self) -> Iterator[tuple[FloatArray, Pivot]]:
        """Yield every conditioned row, (d,), with what it added, in order."""
        for t in range(self._size):
            root = float(self._factor[t, t])
            yield self._rows[t], Pivot(self._factor[t, :t], root, root**2 - self._noise)

    def extend(self, X: Array) -> None:
        """Add many rows at once, in order: the same as `condition` for each, by matrix products.

        Args:
            X: (s, d); memory is O((t + s)^2).
        """
        if not len(X):
            return
        rows, t, end = X.astype(np.float64), self._size, self._size + len(X)
        known = self.project(rows)
        left = self._kernel(rows, rows) + self._noise * np.eye(len(rows)) - known @ known.T
        try:
            factor = np.linalg.cholesky(left)
        except np.linalg.LinAlgError:
            for row in rows:  # which adds jitter where it is needed, and says so
                self.condition(row)
            return
        self._reserve(end, rows.shape[1])
        inverse = solve_triangular(factor, np.eye(len(rows)), lower=True)
        self._factor[t:end, :t], self._factor[t:end, t:end] = known, factor
        self._inverse[t:end, t:end] = inverse
        self._inverse[t:end, :t] = -inverse @ (known @ self._inverse[:t, :t])
        self._rows[t:end], self._norms[t:end] = rows, squared_norms(rows)
        self._size = end

    def project(self, X: Array, known: Array | None = None) -> Array:
        """Return columns of K(X, S) L^-T, whose squares, summed, are the variance that is explained at X.

        Args:
            X: (n, d).
            known: (n, s) the first s <= t columns, computed when no more rows were conditioned; None for s = 0.

        Returns:
            (n, t - s), in the precision of X; held whole.
        """
        t = self._size
        s = 0 if known is None else known.shape[1]
        if s == t:
            return np.empty((len(X), 0), X.dtype)
        left = self._kernel(X, self._rows[s:t].astype(X.dtype, copy=False))
        if known is not None:
            left -= known @ self._factor[s:t, :s].astype(X.dtype, copy=False).T
        inverse = self._inverse[s:t, s:t].astype(X.dtype, copy=False)
        projected = np.empty_like(left)
        for start in range(0, t - s, _TRIANGLE_COLUMNS):
            stop = min(start + _TRIANGLE_COLUMNS, t - s)
            np.matmul(left[:, :stop], inverse[start:stop, :stop].T, out=projected[:, start:stop])
        return projected

    def variance(self, X: Array) -> Array:
        """Return (n,) posterior variances in [0, 1], in the precision of X.

        Args:
            X: (n, d), read in tiles, so that it may be a memory map.
        """
        left = np.ones(len(X), X.dtype)
        for start in range(0, len(X), TILE_ROWS):
            left[start : start + TILE_ROWS] -= squared_norms(self.project(X[start : start + TILE_ROWS]))
        return np.maximum(left, 0.0, out=left)

    def _root(self, squared: float) -> float:
        if squared > _SMALLEST_PIVOT:
            return math.sqrt(squared)
        jitter = _FIRST_JITTER
        while squared + jitter <= _SMALLEST_PIVOT:
            jitter *= 10.0
        warnings.warn(
            f"The row conditioned as number {self._size + 1} is determined by those before it (pivot "
            f"{squared:.1e}); added jitter {jitter:.0e}. A larger noise avoids this.",
            RuntimeWarning,
            stacklevel=3,
        )
        return math.sqrt(squared + jitter)

    def _reserve(self, size: int, dimension: int) -> None:
        if size <= len(self._inverse):
            return
        capacity = max(_FIRST_CAPACITY, size, 2 * self._size)
        grown = (np.zeros((capacity, capacity)), np.zeros((capacity, capacity)), np.empty((capacity, dimension)))
        self._norms = np.concatenate([self._norms, np.empty(capacity - len(self._norms))])
        if self._size:
            for new, old in zip(grown, (self._factor, self._inverse, self._rows), strict=True):
                new[: self._size, : old.shape[1]] = old[: self._size]
        self._factor, self._inverse, self._rows = grown
