"""The real rows as an alignment sees them: the mean kernel value of every synthetic row with them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import Array, FloatArray, as_weights
from synalign_agent.core.block_sums import BLOCK_ROWS, self_sums, weighted_means
from synalign_agent.core.kernels import Kernel
from synalign_agent.errors import InputError

_ROWS_FOR_ERRORS = 4096
"""Enough to know a standard error to 2 %."""


@dataclass(frozen=True, slots=True)
class RealSide:
    """Real rows, or a subsample of them, and k_sr."""

    rows: Array
    """(n_used, d)"""
    weights: FloatArray
    """(n_used,), sum 1"""
    k_sr: FloatArray
    """(m,): sum_j weights_j k(s_i, x_j)"""
    variance_factor: float
    """The variance of a mean over the subsample, over the variance of one row; 0 where all rows are used."""

    def sampling_errors(self, X_syn: Array, w: FloatArray, kernel: Kernel) -> tuple[float, float]:
        """Return what the subsample costs weights that were fitted to it.

        Both from up to 4,096 of its rows.

        Args:
            X_syn: (m, d).
            w: (m,) the weights.
            kernel: with k(x, x) = 1.

        Returns:
            The mean excess of the objective over all real rows that is not exceeded, and the standard error of the objective.
        """
        if self.variance_factor == 0.0:
            return 0.0, 0.0
        # The rows of a subsample are in random order.
        some = self.rows[:_ROWS_FOR_ERRORS]
        n = len(some)
        if n < 2:
            return self.variance_factor, math.inf
        sums = self_sums(some, np.ones(n), kernel, BLOCK_ROWS)
        mean_kernel = (sums.total - sums.diagonal) / (n * (n - 1))
        support = np.flatnonzero(w)
        pulls = weighted_means(some, X_syn[support], w[support], kernel, BLOCK_ROWS)
        error = 2.0 * float(np.std(pulls, ddof=1)) * math.sqrt(self.variance_factor)
        return self.variance_factor * max(1.0 - mean_kernel, 0.0), error


def real_side(
    X_syn: Array,
    X_real: Array,
    kernel: Kernel,
    real_weights: ArrayLike | None,
    max_rows: int,
    rng: np.random.Generator | None,
) -> RealSide:
    """Compute k_sr, from a random subsample where there are more than `max_rows` real rows.

    The subsample is without replacement for uniform weights, and otherwise drawn in proportion to the weights, with
    replacement, and then weighted uniformly. Time is m * min(h, max_rows) kernel values.

    Args:
        X_syn: (m, d).
        X_real: (h, d).
        kernel: any kernel.
        real_weights: (h,) >= 0, sum 1; None for uniform.
        max_rows: >= 1.
        rng: draws the subsample.

    Raises:
        InputError: if the weights are wrong, max_rows < 1, or a subsample is needed and there is no `rng`.
    """
    h = len(X_real)
    if max_rows < 1:
        raise InputError(f"max_real_rows must be >= 1, got {max_rows}.")
    weights, variance_factor = as_weights(real_weights, h, "real_weights"), 0.0
    if h > max_rows:
        if rng is None:
            raise InputError(f"{h} real rows are more than max_real_rows = {max_rows}: pass rng to draw from them.")
        uniform = real_weights is None
        drawn = rng.choice(h, max_rows, replace=not uniform, p=None if uniform else weights)
        variance_factor = 1.0 / max_rows - 1.0 / h if uniform else 1.0 / max_rows
        X_real, weights = X_real[drawn], np.full(max_rows, 1.0 / max_rows)
    return RealSide(X_real, weights, weighted_means(X_syn, X_real, weights, kernel, BLOCK_ROWS), variance_factor)
