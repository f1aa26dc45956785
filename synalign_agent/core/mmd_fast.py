"""Estimators in linear time, with standard errors: for sizes where the square of the rows is too much.

They average independent estimates from small disjoint blocks, so they are unbiased and asymptotically normal under the null
and the alternative alike, and their standard error comes from the spread of the blocks. The price is noise. The quadratic
U-statistic degenerates under the null and falls as 1 / n; block averages fall as 1 / sqrt(n block). With one synthetic row
in five among 600, against 600 real ones (AG News, level 5 %), the permutation test found 96 % of such sets, `cross_mmd` 77 %,
blocks of sqrt(n) rows 17 %, and the linear estimator 8 %. So: to decide whether two sets differ, use those tests, on as many
rows as they can take. Use these estimators to measure a distance that is large against its standard error, at any size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import Array, FloatArray, IntArray, as_rows
from synalign_agent.core.kernels import Kernel
from synalign_agent.errors import InputError

_TILE_PAIRS = 32
"""A kernel takes two sets of rows, so aligned pairs come from the diagonal of small tiles."""


class Estimate(NamedTuple):
    """An average of independent terms."""

    value: float
    standard_error: float
    """Of `value`: the standard deviation of the terms over the root of their number."""
    n_terms: int


def mmd2_linear(X: ArrayLike, Y: ArrayLike, kernel: Kernel, *, rng: np.random.Generator) -> Estimate:
    """Estimate MMD^2 from disjoint quadruples of rows.

    The mean of k(x, x') + k(y, y') - k(x, y') - k(x', y) (Gretton et al., JMLR 2012, lemma 14). The weakest estimator here:
    `mmd2_blocks` uses every row more often for about the same time. O(n) time; memory is O(1) beyond a permutation.

    Args:
        X: (n, d), n >= 4.
        Y: (m, d), m >= 4; rows beyond the size of the smaller side are left out, at random.
        kernel: with k(x, x) = 1.
        rng: pairs the rows, since those of a file are often sorted and then not independent of their neighbours.

    Returns:
        An unbiased estimate, which may be negative; a term is a quadruple.

    Raises:
        InputError: if a shape is wrong or a side has fewer than 4 rows.
    """
    x, y = as_rows(X, "X"), as_rows(Y, "Y")
    n_terms = min(len(x), len(y)) // 2
    if n_terms < 2:
        raise InputError(f"mmd2_linear needs at least 4 rows on both sides, got {len(x)} and {len(y)}.")
    x_rows = rng.permutation(len(x))[: 2 * n_terms].reshape(2, n_terms)
    y_rows = rng.permutation(len(y))[: 2 * n_terms].reshape(2, n_terms)
    terms = np.empty(n_terms)
    for start in range(0, n_terms, _TILE_PAIRS):
        tile = slice(start, start + _TILE_PAIRS)
        x1, x2, y1, y2 = x[x_rows[0, tile]], x[x_rows[1, tile]], y[y_rows[0, tile]], y[y_rows[1, tile]]
        terms[tile] = _pairs(x1, x2, kernel) + _pairs(y1, y2, kernel) - _pairs(x1, y2, kernel) - _pairs(x2, y1, kernel)
    return _average(terms)


def mmd2_blocks(
    X: ArrayLike, Y: ArrayLike, kernel: Kernel, *, rng: np.random.Generator, block_rows: int | None = None
) -> Estimate:
    """Average `mmd2_unbiased` over disjoint blocks of rows.

    The B-test statistic (Zaremba, Gretton and Blaschko, 2013). Larger blocks are better in everything but time: for a given
    number of rows the variance under the null falls as 1 / block_rows. O((n + m) block_rows) time and O(block_rows^2) memory.

    Args:
        X: (n, d), n >= 4.
        Y: (m, d), m >= 4. Sizes may differ: both sides are spread over as many blocks as the larger one fills; where the
            smaller has not 2 rows for each, the larger gives up rows, at random.
        kernel: with k(x, x) = 1.
        rng: deals the rows to blocks, since those of a file are often sorted.
        block_rows: rows of a block on the larger side, >= 2; None for the root of that side, as in the paper.

    Returns:
        An unbiased estimate, which may be negative; a term is a block. The standard error wants a dozen of them.

    Raises:
        InputError: if a shape is wrong, a side has fewer than 4 rows, or there are not 2 blocks.
    """
    x, y = as_rows(X, "X"), as_rows(Y, "Y")
    larger, smaller = max(len(x), len(y)), min(len(x), len(y))
    size = _block_size(larger, block_rows)
    n_blocks = min(larger // size, smaller // 2)
    if n_blocks < 2:
        raise InputError(
            f"mmd2_blocks needs 2 blocks and at least 4 rows on both sides, got {len(x)} and {len(y)} rows "
            f"in blocks of {size}."
        )
    dealt = zip(_deal(len(x), n_blocks, size, rng), _deal(len(y), n_blocks, size, rng), strict=True)
    terms = [
        _mean_of_pairs(kernel(x[i], x[i])) + _mean_of_pairs(kernel(y[j], y[j])) - 2.0 * _mean(kernel(x[i], y[j]))
        for i, j in dealt
    ]
    return _average(np.array(terms))


def mean_kernel_blocks(
    X: ArrayLike, kernel: Kernel, *, rng: np.random.Generator, block_rows: int | None = None
) -> Estimate:
    """Estimate E k(x, x') of two independent rows from pairs inside disjoint blocks.

    Unlike an MMD, E k does not degenerate: its error is that of a mean over rows, and blocks lose next to nothing against all
    pairs (`mmd.mean_kernel`). O(n block_rows) time and O(block_rows^2) memory.

    Args:
        X: (n, d), n >= 4.
        kernel: with k(x, x) = 1.
        rng: deals the rows to blocks.
        block_rows: >= 2; None for the root of n.

    Returns:
        An unbiased estimate; a term is a block.

    Raises:
        InputError: if the shape is wrong or there are not 2 blocks of 2 rows.
    """
    rows = as_rows(X)
    size = _block_size(len(rows), block_rows)
    n_blocks = min(len(rows) // size, len(rows) // 2)
    if n_blocks < 2:
        raise InputError(f"mean_kernel_blocks needs 2 blocks of 2 rows, got {len(rows)} rows in blocks of {size}.")
    return _average(np.array([_mean_of_pairs(kernel(rows[i], rows[i])) for i in _deal(len(rows), n_blocks, size, rng)]))


def _block_size(n: int, block_rows: int | None) -> int:
    size = max(2, math.isqrt(n)) if block_rows is None else block_rows
    if size < 2:
        raise InputError(f"block_rows must be >= 2, got {block_rows}.")
    return size


def _deal(n: int, n_blocks: int, size: int, rng: np.random.Generator) -> list[IntArray]:
    """Return `n_blocks` disjoint sets of rows that differ by one in size, of fewer than 2 `size` rows each."""
    return np.array_split(rng.permutation(n)[: n_blocks * (2 * size - 1)], n_blocks)


def _pairs(A: Array, B: Array, kernel: Kernel) -> Array:
    return np.diagonal(kernel(A, B))


def _mean(K: Array) -> float:
    return float(K.mean(dtype=np.float64))


def _mean_of_pairs(K: Array) -> float:
    """Return the mean over i != j."""
    n = len(K)
    return float((K.sum(dtype=np.float64) - np.trace(K, dtype=np.float64)) / (n * (n - 1)))


def _average(terms: FloatArray) -> Estimate:
    return Estimate(float(terms.mean()), float(terms.std(ddof=1) / math.sqrt(len(terms))), len(terms))
