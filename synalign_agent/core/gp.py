"""Posterior variance of a Gaussian process, conditioned one row at a time.

The variance at x does not depend on observed values, only on where was looked, so it
tracks what has been explored (SynAlign, arXiv 2502.08661, section 3.1). Conditioning
row by row is a partial pivoted Cholesky factorisation (Harbrecht et al., 2012), the
same recursion as greedy MAP of a determinantal point process (Chen et al., 2018).
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import FloatArray, as_rows
from synalign_agent.core.kernels import Kernel
from synalign_agent.errors import InputError

_SMALLEST_PIVOT = 1e-12
"""Below this a pivot is round-off of k(x, x) = 1, not information."""
_FIRST_JITTER = 1e-10
_FIRST_CAPACITY = 16


class PosteriorVariance:
    """Hold the posterior variance at all rows, given the rows conditioned so far.

    variance(x) = k(x, x) - k(x, S) [K(S, S) + noise I]^-1 k(S, x), S = conditioned.

    Memory is O(n t) for t conditioned rows and never n x n. One step costs
    O(n (d + t)).
    """

    def __init__(self, X: ArrayLike, kernel: Kernel, noise: float = 1e-4) -> None:
        """Start with nothing conditioned, so variance 1 everywhere.

        Args:
            X: (n, d), finite.
            kernel: with k(x, x) = 1.
            noise: observation noise variance, >= 0.

        Raises:
            InputError: if `X` is not a finite 2-D array or `noise` is negative.
        """
        self._X = as_rows(X)
        if not (math.isfinite(noise) and noise >= 0):
            raise InputError(f"noise must be >= 0, got {noise!r}.")
        self._kernel = kernel
        self._noise = noise
        n = len(self._X)
        self._residual = np.ones(n)
        self._is_conditioned = np.zeros(n, dtype=np.bool_)
        self._conditioned: list[int] = []
        # Row s is column s of the Cholesky factor, so that a step reads contiguously.
        self._factor = np.empty((_FIRST_CAPACITY, n))

    @property
    def variance(self) -> FloatArray:
        """Return (n,) posterior variances in [0, 1], read-only."""
        clipped = np.maximum(self._residual, 0.0)
        clipped.flags.writeable = False
        return clipped

    @property
    def conditioned(self) -> tuple[int, ...]:
        """Return the conditioned rows in the order they came."""
        return tuple(self._conditioned)

    def condition(self, index: int) -> None:
        """Add one row to the conditioned set.

        Args:
            index: row of X in [0, n), not conditioned before.

        Raises:
            InputError: if it is out of range or was conditioned already.
        """
        i = operator.index(index)
        n, t = len(self._X), len(self._conditioned)
        if not 0 <= i < n:
            raise InputError(f"Row {i} is out of range for {n} rows.")
        if self._is_conditioned[i]:
            raise InputError(f"Row {i} is conditioned already.")
        if t == len(self._factor):
            self._grow()
        pivot = self._pivot(i)
        known = self._factor[:t]
        column = self._kernel(self._X[i : i + 1], self._X)[0] - known[:, i] @ known
        column /= pivot
        self._factor[t] = column
        self._residual -= column * column
        self._is_conditioned[i] = True
        self._conditioned.append(i)

    def condition_many(self, indices: Iterable[int]) -> None:
        """Add several rows, in order; see `condition`."""
        for index in indices:
            self.condition(index)

    def _pivot(self, i: int) -> float:
        squared = float(self._residual[i]) + self._noise
        if squared > _SMALLEST_PIVOT:
            return math.sqrt(squared)
        jitter = _FIRST_JITTER
        while squared + jitter <= _SMALLEST_PIVOT:
            jitter *= 10.0
        warnings.warn(
            f"Row {i} is determined by the rows conditioned before it (pivot "
            f"{squared:.1e}); added jitter {jitter:.0e}. A larger noise avoids this.",
            RuntimeWarning,
            stacklevel=3,
        )
        return math.sqrt(squared + jitter)

    def _grow(self) -> None:
        grown = np.empty((2 * len(self._factor), self._factor.shape[1]))
        grown[: len(self._factor)] = self._factor
        self._factor = grown
