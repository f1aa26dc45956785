"""Maximum mean discrepancy between synthetic and real rows, always squared.

MMD^2 = E k(x, x') - 2 E k(x, z) + E k(z, z') (Gretton et al., JMLR 2012). Three
estimators differ only in the pairs i = j: `mmd2_biased` (V-statistic, >= 0, two
weighted sets as they are), `mmd2_unbiased` (U-statistic, two i.i.d. samples), and
`mmd2_to_population` (one set as it is against the population behind the other).

All take time in the square of the rows and memory in the square of a block. float32 rows
are never copied to float64: their kernel blocks are float32, and only the sums are wider.
`mmd_fast` has estimators in linear time, `cross_mmd` a test without permutations.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import Array, FloatArray, IntArray, as_rows, as_weights
from synalign_agent.core.block_sums import (
    BLOCK_ROWS,
    cross_sum,
    self_sums,
    weighted_means,
)
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.mmd_null import Floor, permutation_p_value, real_floor
from synalign_agent.core.strata import stratum_rows
from synalign_agent.errors import InputError

__all__ = [
    "Floor",
    "equivalent_rows",
    "mean_kernel",
    "mmd2_biased",
    "mmd2_to_population",
    "mmd2_unbiased",
    "permutation_p_value",
    "real_floor",
    "witness",
]

_EQUAL_WEIGHTS = 1e-6
"""Relative; loose enough for weights that were stored as float32."""


def mmd2_biased(
    X: ArrayLike,
    Y: ArrayLike,
    kernel: Kernel,
    *,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
    block_rows: int = BLOCK_ROWS,
) -> float:
    """Return the squared distance of two weighted empirical measures (V-statistic).

    a'K_xx a - 2 a'K_xy b + b'K_yy b (Gretton et al., JMLR 2012, equation 5).

    Args:
        X: (n, d).
        Y: (m, d).
        kernel: with k(x, x) = 1.
        x_weights: (n,) >= 0, sum 1; None for uniform.
        y_weights: (m,) >= 0, sum 1; None for uniform.
        block_rows: memory is O(block_rows^2).

    Returns:
        A number >= 0; 0 if the measures are equal.

    Raises:
        InputError: if a shape or a weight is wrong.
    """
    x, y = as_rows(X, "X"), as_rows(Y, "Y")
    a = as_weights(x_weights, len(x), "x_weights")
    b = as_weights(y_weights, len(y), "y_weights")
    within = self_sums(x, a, kernel, block_rows).total
    within += self_sums(y, b, kernel, block_rows).total
    # A squared norm: anything below 0 is round-off.
    return max(within - 2.0 * cross_sum(x, a, y, b, kernel, block_rows), 0.0)


def mmd2_unbiased(X: ArrayLike, Y: ArrayLike, kernel: Kernel, *, block_rows: int = BLOCK_ROWS) -> float:
    """Return the unbiased estimate from two i.i.d. samples (U-statistic).

    Only for distinct, unweighted rows (Gretton et al., JMLR 2012, equation 3).

    Args:
        X: (n, d), n >= 2.
        Y: (m, d), m >= 2.
        kernel: with k(x, x) = 1.
        block_rows: memory is O(block_rows^2).

    Returns:
        A number that may be negative.

    Raises:
        InputError: if a shape is wrong or a side has fewer than 2 rows.
    """
    x, y = as_rows(X, "X"), as_rows(Y, "Y")
    if min(len(x), len(y)) < 2:
        raise InputError("mmd2_unbiased needs at least 2 rows on both sides.")
    a, b = as_weights(None, len(x)), as_weights(None, len(y))
    within = _mean_of_pairs(x, kernel, block_rows)
    within += _mean_of_pairs(y, kernel, block_rows)
    return within - 2.0 * cross_sum(x, a, y, b, kernel, block_rows)


def mmd2_to_population(
    X_syn: ArrayLike,
    X_real: ArrayLike,
    kernel: Kernel,
    *,
    syn_weights: ArrayLike | None = None,
    real_weights: ArrayLike | None = None,
    real_strata: ArrayLike | None = None,
    block_rows: int = BLOCK_ROWS,
) -> float:
    """Estimate the squared distance of a synthetic set from the real population.

    w'K_ss w - 2 w'K_sr v + E k_rr. The synthetic rows are taken as the set they are
    (V-statistic), the real rows as a sample of a population (`mean_kernel`). m i.i.d.
    real rows with uniform weights score (1 - E k) / m on average.

    Args:
        X_syn: (m, d).
        X_real: (h, d), i.i.d. within every stratum.
        kernel: with k(x, x) = 1.
        syn_weights: (m,) >= 0, sum 1; None for uniform.
        real_weights: (h,) >= 0, sum 1, equal within a stratum; None for uniform.
        real_strata: (h,) integer labels; None for one stratum.
        block_rows: memory is O(block_rows^2).

    Returns:
        A number that may be slightly negative.

    Raises:
        InputError: if a shape or a weight is wrong.
    """
    syn, real = as_rows(X_syn, "X_syn"), as_rows(X_real, "X_real")
    w = as_weights(syn_weights, len(syn), "syn_weights")
    v = as_weights(real_weights, len(real), "real_weights")
    within = self_sums(syn, w, kernel, block_rows).total
    across = cross_sum(syn, w, real, v, kernel, block_rows)
    return within - 2.0 * across + _population(real, v, real_strata, kernel, block_rows)


def mean_kernel(
    X_real: ArrayLike,
    kernel: Kernel,
    *,
    weights: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    block_rows: int = BLOCK_ROWS,
) -> float:
    """Estimate E k(x, x') of two independent rows of the real population.

    Within stratum l of mass p_l: p_l^2 times the mean of k over pairs i != j, so that
    no row is compared with itself. Between strata: the weighted double sum. A stratum
    with a single row has no such pair and falls back to k(x, x).

    Args:
        X_real: (h, d), i.i.d. within every stratum.
        kernel: with k(x, x) = 1.
        weights: (h,) >= 0, sum 1, equal within a stratum; None for uniform.
        strata: (h,) integer labels; None for one stratum.
        block_rows: memory is O(block_rows^2).

    Returns:
        A number in [0, 1] for kernels with values in [0, 1].

    Raises:
        InputError: if a shape or a weight is wrong.
    """
    real = as_rows(X_real, "X_real")
    v = as_weights(weights, len(real))
    return _population(real, v, strata, kernel, block_rows)


def equivalent_rows(mmd2: float, mean_k: float) -> float | None:
    """Return how many i.i.d. real rows would be as close: n_eq = (1 - E k) / MMD^2.

    Args:
        mmd2: distance to the population, from `mmd2_to_population`.
        mean_k: E k of the population, from `mean_kernel`.

    Returns:
        A number of rows, or None if `mmd2` <= 0: closer than can be measured.
    """
    return (1.0 - mean_k) / mmd2 if mmd2 > 0 else None


def witness(
    Z: ArrayLike,
    X_real: ArrayLike,
    X_syn: ArrayLike,
    kernel: Kernel,
    *,
    real_weights: ArrayLike | None = None,
    syn_weights: ArrayLike | None = None,
    block_rows: int = BLOCK_ROWS,
) -> FloatArray:
    """Return the witness function at the rows of Z: where the two sets differ most.

    sum_j v_j k(z, x_real_j) - sum_i w_i k(z, x_syn_i) (Gretton et al., 2012, 2.3).

    Args:
        Z: (n, d).
        X_real: (h, d).
        X_syn: (m, d).
        kernel: with k(x, x) = 1.
        real_weights: (h,) >= 0, sum 1; None for uniform.
        syn_weights: (m,) >= 0, sum 1; None for uniform.
        block_rows: memory is O(block_rows^2).

    Returns:
        (n,), positive where real mass is missing, negative where there is too much
        synthetic mass.

    Raises:
        InputError: if a shape or a weight is wrong.
    """
    z = as_rows(Z, "Z")
    real, syn = as_rows(X_real, "X_real"), as_rows(X_syn, "X_syn")
    v = as_weights(real_weights, len(real), "real_weights")
    w = as_weights(syn_weights, len(syn), "syn_weights")
    difference: FloatArray = weighted_means(z, real, v, kernel, block_rows)
    difference -= weighted_means(z, syn, w, kernel, block_rows)
    return difference


def _mean_of_pairs(rows: Array, kernel: Kernel, block: int) -> float:
    """Return the mean of k over pairs i != j; k(x, x) for a single row."""
    n = len(rows)
    sums = self_sums(rows, np.ones(n), kernel, block)
    if n == 1:
        return sums.total
    return (sums.total - sums.diagonal) / (n * (n - 1))


def _population(
    real: Array,
    v: FloatArray,
    strata: ArrayLike | None,
    kernel: Kernel,
    block: int,
) -> float:
    rows = stratum_rows(strata, len(real), "real_strata")
    total = 0.0
    for label, found in rows.items():
        inside = v[found]
        if np.ptp(inside) > _EQUAL_WEIGHTS * inside.max():
            raise InputError(f"Real weights differ inside stratum {label}.")
        total += inside.sum() ** 2 * _mean_of_pairs(_rows_at(real, found), kernel, block)
    for one, two in combinations(rows.values(), 2):
        total += 2.0 * cross_sum(real[one], v[one], real[two], v[two], kernel, block)
    return float(total)


def _rows_at(rows: Array, found: IntArray) -> Array:
    """Return rows[found], without a copy where that is all of them."""
    return rows if len(found) == len(rows) else rows[found]
