"""The row with the largest weighted posterior variance, without updating the rows that cannot be it.

Variance only falls when rows are conditioned, so a variance computed earlier is an upper bound (lazy greedy, Minoux, 1978).
A small *pool* of the best rows is kept up to date at every step; of all others only the bound is kept. While the best of the
pool beats every bound outside, it is the best of all. When it does not, the outside rows whose bounds reach it are computed
afresh, many at a time, by matrix products, and the best rows found are the next pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from synalign_agent.core.arrays import Array, BoolArray, FloatArray, IntArray
from synalign_agent.core.gp import Pivot, PosteriorVariance
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.selection.candidate_pool import CandidatePool
from synalign_agent.core.selection.device_pool import DevicePool
from synalign_agent.core.selection.stale_variance import StaleVariance

_TIE = 1e-12
"""Scores this close to the best tie with it: round-off of a variance is relative to the prior variance 1."""
_FIRST_SLACK = 2e-6
"""Error of a variance in float32 to begin with; it is measured at every pick and grows as needed."""
_SLACK_PER_ERROR = 4.0
_MANY_CONTENDERS = 512
"""When float32 cannot tell more rows than these apart, the work goes on in float64."""
_ALL_IN_POOL = 12_288
"""Up to here the pool is all rows: one pass over them is cheaper than looking after bounds."""
_LEAST_POOL = 2048
_MOST_POOL = 65_536
_FIRST_POOL_SHARE = 0.125


class Maximum(NamedTuple):
    """The best row."""

    row: int
    score: float
    """Variance times weight, in float64."""


class LazyMaximum:
    """Find the free row of largest weight x posterior variance, exactly, while rows are conditioned and taken.

    Rows in float32 are compared in float32 and decided in float64. Memory beside X: 9 bytes a row for bounds and their age,
    and the pool, max(2048, n / 100) rows of (d + 2 t) values; all n rows up to 12,288.
    """

    def __init__(
        self,
        X: Array,
        kernel: Kernel,
        noise: float,
        weights: FloatArray,
        free: BoolArray,
        n_steps: int,
        device: str | None = None,
    ) -> None:
        """Start with nothing conditioned.

        Args:
            X: (n, d), may be a memory map.
            kernel: with k(x, x) = 1.
            noise: observation noise variance, >= 0.
            weights: (n,) >= 0.
            free: (n,) rows that may be found; not copied: rows that the caller takes must be reported to `take`.
            n_steps: about how many rows will be conditioned; more is possible, and slower.
            device: of torch, to keep every row up to date there; None for this processor.
        """
        self._X, self._kernel, self._free, self._device = X, kernel, free, device
        self._weights = weights
        # Scores are compared relative to the largest weight, so that one slack fits all.
        self._scales: FloatArray = weights / max(float(weights.max()), np.finfo(np.float64).tiny)
        self._posterior = PosteriorVariance(kernel, noise)
        self._slack = _FIRST_SLACK if X.dtype == np.float32 else 0.0
        self._known = StaleVariance(X, self._posterior, X.dtype, 0 if len(X) <= _ALL_IN_POOL else n_steps)
        self._pool: CandidatePool | DevicePool | None = None
        self._best_outside = -np.inf
        self._span = 0.0
        self._pool_size = len(X) if len(X) <= _ALL_IN_POOL else _between_pools(_FIRST_POOL_SHARE * len(X))
        self._n_steps_of_pool = 0
        # Of a row that was found, because it is most often the next to be conditioned.
        self._pivots: dict[int, Pivot] = {}

    def find(self) -> Maximum | None:
        """Return the best free row, the lowest index among equals; None if no row is free."""
        if not self._free.any():
            return None
        if len(self._posterior) == 0:
            # Nothing conditioned, so every variance is exactly 1.
            scales = np.where(self._free, self._scales, -1.0)
            row = int(np.argmax(scales >= scales.max() - _TIE))
            if len(self._X) <= _ALL_IN_POOL:
                self._refill(-np.inf)  # Costs nothing as long as nothing is conditioned.
            return Maximum(row, float(self._weights[row]))
        is_refilled = self._pool is None
        pool = self._pool or self._refill(-np.inf)
        while True:
            positions = pool.near_best(max(self._slack, _TIE))
            if len(positions) > _MANY_CONTENDERS and self._known.precision == np.float32:
                pool, is_refilled = self._work_in_float64(), True
                continue
            score, row, variance = self._decide(pool, positions)
            # No row outside a new pool is better than all in it, and of equal ones those in it come first.
            if is_refilled or not self._may_be_beaten(score, row):
                return Maximum(row, variance * float(self._weights[row]))
            pool, is_refilled = self._refill(score), True

    def take(self, row: int) -> None:
        """Mark a row as not free."""
        self._free[row] = False
        if self._pool is not None:
            self._pool.drop(row)

    def condition(self, row: int) -> None:
        """Condition on a row, free or not."""
        self._n_steps_of_pool += 1
        expected = self._pivots.pop(row, None)
        self._pivots.clear()  # They were for the posterior as it was.
        pivot = self._posterior.condition(self._X[row], expected)
        if self._pool is not None:
            self._pool.condition(self._X[row].astype(self._known.precision, copy=False), pivot)

    def explore(self, rows: Sequence[int]) -> None:
        """Take rows and condition on them, one after the other."""
        for row in rows:
            self.take(row)
            self.condition(row)

    def condition_many(self, rows: IntArray) -> None:
        """Condition on many rows at once, as before a first `find`."""
        if len(rows):
            self._write_back()
            self._pool = None
            self._pivots.clear()
            self._posterior.extend(self._X[rows])

    def _decide(self, pool: CandidatePool | DevicePool, positions: IntArray) -> tuple[float, int, float]:
        """Return the best of these rows in float64: score relative to the largest weight, row, variance."""
        if len(positions) == 0:
            return -np.inf, -1, 0.0
        rows = pool.rows[positions]
        variance: FloatArray = pool.variance[positions].astype(np.float64)
        if self._known.precision == np.float32:
            approximate, variance = variance, self._exact_variance(rows)
            self._slack = max(self._slack, _SLACK_PER_ERROR * float(np.abs(variance - approximate).max()))
        scores = variance * self._scales[rows]
        best = int(np.argmax(scores >= scores.max() - _TIE))
        return float(scores.max()), int(rows[best]), max(float(variance[best]), 0.0)

    def _exact_variance(self, rows: IntArray) -> FloatArray:
        if len(rows) > 1:
            return self._posterior.variance(self._X[rows].astype(np.float64)).astype(np.float64)
        row = int(rows[0])
        self._pivots[row] = self._posterior.pivot(self._X[row])
        return np.array([max(self._pivots[row].variance, 0.0)])

    def _may_be_beaten(self, score: float, row: int) -> bool:
        """Return whether a row outside the pool may have a higher score, or the same and a lower index."""
        if self._best_outside + self._slack < score - _TIE:
            return False
        if self._slack > 0.0 or self._best_outside > score + _TIE or self._pool is None:
            return True
        ties = self._free & (self._known.bounds * self._scales >= score - _TIE)
        ties[self._pool.rows] = False
        return bool(ties[:row].any())

    def _refill(self, threshold: float) -> CandidatePool | DevicePool:
        """Bring every row up to date whose bound reaches the threshold, and take the best rows known into the pool."""
        if self._device is not None:
            return self._fill_device(self._device)
        self._write_back()
        # The next pool will span about as much as the last one: rows with a bound in that span would end it early.
        reach = self._known.bounds * self._scales >= threshold - self._slack - self._span
        self._adapt_pool_size(self._known.refresh(np.flatnonzero(self._free & reach)))
        scores = np.where(self._free, self._known.bounds * self._scales, -np.inf)
        rows = self._best_known(scores)
        self._span = float(np.ptp(scores[rows])) if len(rows) else 0.0
        X, columns = self._known.columns(rows)
        self._pool = CandidatePool(rows, X, self._scales[rows], columns, self._kernel)
        scores[rows] = -np.inf
        self._best_outside = float(scores.max())
        return self._pool

    def _best_known(self, scores: FloatArray) -> IntArray:
        """Return the rows of the next pool, ascending: the highest of the up-to-date scores, the lowest indices among equals."""
        known, size = np.flatnonzero(self._free & self._known.is_fresh), self._pool_size
        if len(known) <= size:
            return known
        found = scores[known]
        last = np.partition(found, len(found) - size)[len(found) - size]
        above = np.flatnonzero(found > last + _TIE)
        equal = np.flatnonzero(np.abs(found - last) <= _TIE)[: size - len(above)]
        best: IntArray = known[np.sort(np.concatenate([above, equal]))]
        return best

    def _fill_device(self, device: str) -> DevicePool:
        rows = np.flatnonzero(self._free)
        X = self._X[rows].astype(self._known.precision, copy=False)
        self._pool = DevicePool(rows, X, self._scales[rows], self._kernel, self._posterior, device)
        return self._pool

    def _adapt_pool_size(self, n_refreshed: int) -> None:
        """Balance the two costs: a larger pool is refilled less often, and updated at every step."""
        if len(self._X) > _ALL_IN_POOL and self._n_steps_of_pool:
            ratio = n_refreshed / (self._n_steps_of_pool * self._pool_size)
            self._pool_size = _between_pools(self._pool_size * min(max(ratio**0.5, 0.5), 2.0))
        self._n_steps_of_pool = 0

    def _write_back(self) -> None:
        if self._pool is not None:
            self._known.set(self._pool.rows, self._pool.variance)

    def _work_in_float64(self) -> CandidatePool | DevicePool:
        self._write_back()
        threshold = float((self._known.bounds * self._scales)[self._free].max()) - 4.0 * self._slack
        self._known = self._known.in_float64(self._slack)
        self._pool, self._slack = None, 0.0
        return self._refill(threshold)


def _between_pools(size: float) -> int:
    return int(min(max(size, _LEAST_POOL), _MOST_POOL))
