"""Turn sampling weights into how often each row is taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import FloatArray, IntArray, as_weights
from synalign_agent.errors import InputError


def systematic(w: ArrayLike, n: int, rng: np.random.Generator) -> IntArray:
    """Draw n rows by systematic resampling: one random number, equal steps.

    Its variance is the lowest of the usual schemes (Carpenter et al., 1999). The whole
    part of n w_i is taken for certain and only fractions are drawn, so that round-off
    cannot take a row with w_i <= 1 / n twice.

    Args:
        w: (m,) >= 0, sum 1.
        n: rows to draw, >= 0.
        rng: source of the one random number.

    Returns:
        (m,) counts with sum n; count i is floor(n w_i) or ceil(n w_i), its mean n w_i.

    Raises:
        InputError: if the weights are not on the simplex or n is negative.
    """
    weights = as_weights(w, np.asarray(w).size, "w")
    if n < 0:
        raise InputError(f"n must be >= 0, got {n}.")
    target = n * weights
    counts: IntArray = np.floor(target).astype(np.intp)
    fraction: FloatArray = target - counts
    # A product that should be whole, such as n * (1 / n), may end just above it.
    fraction[fraction <= 64 * np.finfo(np.float64).eps * np.maximum(target, 1.0)] = 0.0
    left = n - int(counts.sum())
    ends = np.minimum(np.cumsum(fraction), left)
    ticks = np.ceil(ends - rng.random())
    drawn = np.minimum(np.diff(ticks, prepend=0.0), 1.0).astype(np.intp)
    # The steps reach n only if the fractions' sum is exactly whole; where round-off
    # made it smaller, the largest fraction that was passed over is the fair one to add.
    short = left - int(drawn.sum())
    if short > 0:
        passed_over = np.where(drawn == 0, fraction, -1.0)
        drawn[np.argsort(-passed_over, kind="stable")[:short]] += 1
    return counts + drawn


def effective_sample_size(w: ArrayLike) -> float:
    """Return 1 / sum w_i^2: the number of equal weights with the same variance (Kish).

    Args:
        w: (m,) >= 0, sum 1.

    Returns:
        A number in [1, m].

    Raises:
        InputError: if the weights are not on the simplex.
    """
    weights = as_weights(w, np.asarray(w).size, "w")
    return float(1.0 / (weights @ weights))
