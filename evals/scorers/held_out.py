"""Distances of synthetic rows to held-out real rows, with what is the same for all selections computed once."""

from __future__ import annotations

import numpy as np

from evals.scorers.prdc import Prdc, neighbour_radii2, prdc
from synalign_agent.core.arrays import Array, FloatArray, IntArray
from synalign_agent.core.block_sums import BLOCK_ROWS, self_sums, weighted_means
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.mmd import mean_kernel


class HeldOut:
    """Real rows that score: they were not fitted to, and every label counts the same."""

    def __init__(self, X: Array, labels: IntArray, n_labels: int, kernel: Kernel) -> None:
        """Compute the real side.

        Args:
            X: (h, d) unit rows.
            labels: (h,) in [0, n_labels), every one of them present.
            n_labels: number of labels.
            kernel: of the distances, the same for all that is compared.
        """
        self.X = X
        self._kernel = kernel
        self._weights = 1.0 / (n_labels * np.bincount(labels, minlength=n_labels)[labels])
        self.mean_kernel = mean_kernel(X, kernel, weights=self._weights, strata=labels)
        """E k(x, x') of two independent rows of the population."""
        spreads = [1.0 - mean_kernel(X[labels == label], kernel) for label in range(n_labels)]
        self._mean_spread = float(np.mean(spreads))
        self._radii2 = neighbour_radii2(X)

    def mean_kernels(self, X: Array) -> FloatArray:
        """Return (n,) mean kernel values of rows (n, d) with the held-out rows; once for a pool serves all its subsets."""
        return weighted_means(X, self.X, self._weights, self._kernel, BLOCK_ROWS)

    def mmd2(self, X: Array, weights: FloatArray, mean_kernels: FloatArray) -> float:
        """Return the MMD^2 of weighted rows, as they are, to the population (`core.mmd.mmd2_to_population`).

        Args:
            X: (n, d).
            weights: (n,) >= 0, sum 1.
            mean_kernels: (n,) of these rows.
        """
        used = np.flatnonzero(weights)
        within = self_sums(X[used], weights[used], self._kernel, BLOCK_ROWS).total
        return float(within - 2.0 * weights @ mean_kernels + self.mean_kernel)

    def mean_mmd2(self, X: Array, labels: IntArray, counts: IntArray, mean_kernels: FloatArray) -> float:
        """Return the expected MMD^2 of rows drawn at random, every label for itself and no row again before all others.

        What one draw of a few rows scores is mostly luck; this is what all of them score on average, exactly.

        Args:
            X: (m, d) rows that are drawn from, of norm 1.
            labels: (m,).
            counts: rows drawn of each label, 0 where there are none; not all 0.
            mean_kernels: (m,) of these rows.
        """
        n, present = int(counts.sum()), np.bincount(labels, minlength=len(counts))
        weights = (counts / np.maximum(present, 1))[labels] / n
        total = self_sums(X, weights, self._kernel, BLOCK_ROWS).total
        for label in np.flatnonzero(counts):
            m = int(present[label])
            k = int(counts[label]) % m  # What is left to chance: all rows are taken as often as they go into the count.
            alone = k / m
            together = alone * (k - 1) / (m - 1) if m > 1 else 0.0
            pairs = self_sums(X[labels == label], np.ones(m), self._kernel, BLOCK_ROWS).total - m
            total += ((together - alone**2) * pairs + (alone - alone**2) * m) / n**2
        return float(total - 2.0 * weights @ mean_kernels + self.mean_kernel)

    def floor(self, n: int) -> float:
        """Return the expected MMD^2 of n real rows, the same number of every label."""
        # sum over L labels of (1 / L)^2 (1 - E k within the label) / (n / L)
        return self._mean_spread / n

    def prdc(self, X: Array) -> Prdc:
        """Return precision, recall, density and coverage of rows (n, d)."""
        return prdc(self.X, X, self._radii2)
