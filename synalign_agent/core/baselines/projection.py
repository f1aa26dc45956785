"""The paper's alignment: match mean embeddings under random projections."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.align import Weights
from synalign_agent.core.arrays import FloatArray, as_rows
from synalign_agent.core.certificate import MAX_REAL_ROWS, certify
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.real_side import real_side
from synalign_agent.core.simplex import linear_minimum, project_capped_simplex

_PROJECTIONS = 8
_DIMENSIONS = 32
"""Of each projection."""
_MAX_ITERATIONS = 2000


def projection(
    X_syn: ArrayLike,
    X_real: ArrayLike,
    *,
    n: int,
    cap: float,
    kernel: Kernel,
    rng: np.random.Generator,
    tolerance: float,
) -> Weights:
    """Match the mean of the real rows under random projections (an `objectives.Objective`).

    Minimises the mean over projections T of ||sum_i w_i T'x_i - mean T'x_real||^2 (SynAlign, arXiv 2502.08661, section 3.3).
    The projections are linear, so this compares first moments only. It is a quadratic program, solved here to its optimum by
    accelerated projected gradient where the paper takes gradient steps on a softmax. Many weights share the optimum; starting
    from uniform ones, as both do, ends at evenly spread ones among them. Memory is 8 m * 256 bytes for the projected rows.

    Args:
        X_syn: (m, d), the pool.
        X_real: (h, d), real rows to match.
        n: unused.
        cap: largest weight, >= 1 / m.
        kernel: only scores the outcome.
        rng: draws 8 Gaussian projections to 32 dimensions.
        tolerance: duality gap to stop at, and what counts as converged in the kernel objective.

    Returns:
        The weights with the objective and duality gap of `kernel`, not of the projections.

    Raises:
        InputError: if a shape is wrong or cap * m < 1.
    """
    syn, real = as_rows(X_syn, "X_syn"), as_rows(X_real, "X_real")
    # Scaled so that the mean squared length of a projected row is that of the row.
    projections = rng.standard_normal((syn.shape[1], _PROJECTIONS * _DIMENSIONS)) / math.sqrt(
        _PROJECTIONS * _DIMENSIONS
    )
    projected = np.asarray(syn @ projections.astype(syn.dtype), dtype=np.float64)
    target = real.mean(axis=0, dtype=np.float64) @ projections
    w, n_iterations = match_mean(projected, target, cap, tolerance)
    side = real_side(syn, real, kernel, None, MAX_REAL_ROWS, rng)
    return certify(syn, side, w, kernel, cap=cap, tolerance=tolerance, n_iterations=n_iterations)


def match_mean(A: FloatArray, b: FloatArray, cap: float, tolerance: float) -> tuple[FloatArray, int]:
    """Minimise ||A'w - b||^2 over the capped simplex, from uniform weights.

    FISTA (Beck and Teboulle, 2009) with restarts where the objective would rise.

    Args:
        A: (m, p).
        b: (p,).
        cap: largest weight, >= 1 / m.
        tolerance: duality gap to stop at.

    Returns:
        The weights and the number of iterations, 2,000 at most.

    Raises:
        InputError: if cap * m < 1.
    """
    w = project_capped_simplex(np.full(len(A), 1.0 / len(A)), cap)
    # Feasible points differ by vectors of sum 0, so only the spread around the mean row curves the objective.
    centred = A - A.mean(axis=0)
    smoothness = 2.0 * float(np.linalg.eigvalsh(centred.T @ centred)[-1])
    residual = w @ A - b
    y, y_residual, momentum = w, residual, 1.0
    for iteration in range(_MAX_ITERATIONS):
        gradient = 2.0 * (A @ residual)
        if smoothness <= 0.0 or float(gradient @ w) - linear_minimum(gradient, min(cap, 1.0)) <= tolerance:
            return w, iteration
        new = project_capped_simplex(y - 2.0 * (A @ y_residual) / smoothness, cap)
        new_residual = new @ A - b
        if new_residual @ new_residual > residual @ residual:
            if momentum == 1.0:
                return w, iteration  # A plain step rises by round-off only: this is the minimum.
            y, y_residual, momentum = w, residual, 1.0
            continue
        following = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * momentum**2))
        push = (momentum - 1.0) / following
        y, y_residual = new + push * (new - w), new_residual + push * (new_residual - residual)
        w, residual, momentum = new, new_residual, following
    return w, _MAX_ITERATIONS
