"""The kernel objective of weights from any method, and a bound on how far it is from its minimum."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.align import Weights
from synalign_agent.core.arrays import Array, FloatArray, as_weights
from synalign_agent.core.block_sums import BLOCK_ROWS, symmetric_product, weighted_means
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.real_side import RealSide
from synalign_agent.core.simplex import linear_minimum

MAX_REAL_ROWS = 50_000
"""As in `align.fit_weights`; beyond it a random subsample stands for the real rows."""


def certify(
    X_syn: Array, real: RealSide, w: ArrayLike, kernel: Kernel, *, cap: float, tolerance: float, n_iterations: int
) -> Weights:
    """Score weights from any method by the kernel objective, so that methods can be compared.

    Args:
        X_syn: (m, d), checked.
        real: what `X_syn` is compared with.
        w: (m,) >= 0, sum 1, within the cap.
        kernel: with k(x, x) = 1.
        cap: largest weight allowed, >= 1 / m.
        tolerance: duality gap that counts as converged.
        n_iterations: what the method needed.

    Returns:
        The weights with w'K_ss w - 2 w'k_sr and its duality gap over the capped simplex: how much better the `kernel`
        objective could at most be. Time is m kernel values for each row with weight.
    """
    weights = as_weights(w, len(X_syn), "w")
    gradient = 2.0 * (kernel_means(X_syn, weights, kernel) - real.k_sr)
    gap = max(float(gradient @ weights) - linear_minimum(gradient, min(cap, 1.0)), 0.0)
    excess, error = real.sampling_errors(X_syn, weights, kernel)
    return Weights(
        w=weights,
        objective=float(0.5 * weights @ gradient - weights @ real.k_sr),
        duality_gap=gap,
        n_iterations=n_iterations,
        converged=gap <= tolerance,
        k_sr=real.k_sr,
        n_real=len(real.rows),
        sampling_excess=excess,
        objective_error=error,
    )


def kernel_means(X: Array, w: ArrayLike, kernel: Kernel) -> FloatArray:
    """Return (m,) values K w, computing the columns of nonzero w only, by blocks."""
    weights = np.asarray(w, dtype=np.float64)
    support = np.flatnonzero(weights)
    if len(support) == len(X):
        return symmetric_product(X, weights, kernel, BLOCK_ROWS)
    return weighted_means(X, X[support], weights[support], kernel, BLOCK_ROWS)
