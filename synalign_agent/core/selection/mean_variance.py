"""The row that lowers the mean posterior variance most: integrated variance reduction (ALC; Cohn, 1996; Seo et al., 2000).

With c(z, x) the posterior covariance, conditioning on x lowers the variance at z by c(z, x)^2 / (c(x, x) + noise). The row
where that is largest on average is one that many others resemble and none explored so far does, while the row of largest
variance is one that nothing resembles at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synalign_agent.core.arrays import Array, BoolArray, FloatArray, IntArray, squared_norms
from synalign_agent.core.gp import PosteriorVariance
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.selection.lazy_maximum import Maximum
from synalign_agent.core.strata import some_rows

MOST_TARGETS = 2048
"""Rows that the mean is over at most: it is then known to 2 % of the variances' spread, the same for all candidates."""
MOST_CANDIDATES = 8192
"""Rows compared at a time: with 2,048 targets their covariances take 128 MiB."""
_TIE = 1e-12
"""Round-off of a variance, relative to the prior variance 1."""
_TILE_ROWS = 512
_FIRST_CAPACITY = 64


class MeanVarianceMaximum:
    """Find the free row whose conditioning lowers the weighted mean of all rows' variances most.

    Of n rows, at most `MOST_CANDIDATES` drawn at random compete, the next ones when those are taken, and the mean is over at
    most `MOST_TARGETS`; up to these sizes the pick is exact. With B candidates, m targets and t conditioned rows, a row is
    conditioned in O(B (m + t + d)), rows together in one pass over the B m covariances, and memory is 8 (B m + (B + m) t) bytes.
    """

    def __init__(
        self,
        X: Array,
        kernel: Kernel,
        noise: float,
        weights: FloatArray,
        free: BoolArray,
        rng: np.random.Generator,
    ) -> None:
        """Start with nothing conditioned.

        Args:
            X: (n, d), may be a memory map.
            kernel: with k(x, x) = 1.
            noise: observation noise variance, >= 0.
            weights: (n,) >= 0, what each row's variance counts in the mean; if all are 0, all rows count the same.
            free: (n,) rows that may be found; not copied, and watched.
            rng: draws targets and candidates, where there are more rows than are used.
        """
        self._X, self._kernel, self._free = X, kernel, free
        self._posterior = PosteriorVariance(kernel, noise)
        self._noise = noise
        n = len(X)
        targets = some_rows(np.arange(n), MOST_TARGETS, rng)
        self._targets = self._take(targets)
        mass = weights[targets]
        self._mass: FloatArray = mass / mass.sum() if mass.sum() > 0 else np.full(len(targets), 1.0 / len(targets))
        # Drawn whatever is free: a selection that goes on after a break compares the rows that it compared before.
        self._order = np.arange(n) if n <= MOST_CANDIDATES else rng.permutation(n)
        self._block = -1
        self._at_targets = _Columns(self._targets)
        self._candidates: IntArray = np.zeros(0, dtype=np.intp)

    def find(self) -> Maximum | None:
        """Return the best free row, the lowest index among equals; None if no row is free. The score is the fall of the mean."""
        while not self._free[self._candidates].any():
            if (self._block + 1) * MOST_CANDIDATES >= len(self._order):
                return None
            self._block += 1
            self._compare(self._block)
        falls = self._squares / np.maximum(self._variance + self._noise, _TIE)
        scores = np.where(self._free[self._candidates], falls, -np.inf)
        best = int(np.argmax(scores >= scores.max() - _TIE))
        return Maximum(int(self._candidates[best]), float(scores[best]))

    def explore(self, rows: Sequence[int]) -> None:
        """Condition on rows, free or not, in one pass over what is compared; that they are taken is seen in `free`."""
        if not len(rows):
            return
        self._posterior.extend(self._X[list(rows)])
        if self._block < 0:
            return
        before = self._at_candidates.known, self._at_targets.known
        at_candidates, at_targets = (
            columns.follow(self._posterior) for columns in (self._at_candidates, self._at_targets)
        )
        weighted = self._mass[:, None] * at_targets
        # sum_z w_z c_z (k(z, x) - what the rows before explain): with it the squares of the new covariances follow.
        together = self._K @ weighted - before[0] @ (before[1].T @ weighted)
        self._squares += ((at_candidates @ (weighted.T @ at_targets) - 2.0 * together) * at_candidates).sum(axis=1)
        self._variance -= squared_norms(at_candidates)

    def _compare(self, block: int) -> None:
        """Compute what a block of candidates needs from scratch."""
        self._candidates = np.sort(self._order[block * MOST_CANDIDATES : (block + 1) * MOST_CANDIDATES])
        rows = self._take(self._candidates)
        self._at_candidates = _Columns(rows)
        self._at_candidates.follow(self._posterior)
        self._at_targets.follow(self._posterior)
        at_candidates, at_targets = self._at_candidates.known, self._at_targets.known
        self._K = np.empty((len(rows), len(self._targets)))
        self._squares: FloatArray = np.empty(len(rows))
        for start in range(0, len(rows), _TILE_ROWS):
            tile = slice(start, start + _TILE_ROWS)
            self._K[tile] = self._kernel(rows[tile], self._targets)
            covariance = self._K[tile] - at_candidates[tile] @ at_targets.T
            self._squares[tile] = np.square(covariance) @ self._mass
        self._variance: Array = 1.0 - squared_norms(at_candidates)

    def _take(self, rows: IntArray) -> Array:
        return self._X[rows].astype(np.float64)


class _Columns:
    """What the conditioned rows explain at some rows: columns of K L^-T, see `PosteriorVariance.project`."""

    def __init__(self, rows: Array) -> None:
        self._rows = rows
        # Columns are appended, so they are rows of a matrix that grows.
        self._held: FloatArray = np.empty((_FIRST_CAPACITY, len(rows)))
        self._size = 0

    @property
    def known(self) -> FloatArray:
        """Return (rows, t)."""
        return self._held[: self._size].T

    def follow(self, posterior: PosteriorVariance) -> Array:
        """Append what was conditioned since, and return it, (rows, new)."""
        new: Array = posterior.project(self._rows, self.known)
        size = self._size + new.shape[1]
        if size > len(self._held):
            grown = np.empty((max(size, 2 * len(self._held)), len(self._rows)))
            grown[: self._size] = self._held[: self._size]
            self._held = grown
        self._held[self._size : size] = new.T
        self._size = size
        return new
