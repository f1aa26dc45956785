"""Weighted sums of a kernel matrix that is never held whole.

Every function walks blocks of `block_rows` x `block_rows`, one for each thread, so memory is O(block_rows^2 + block_rows d) a
thread whatever the number of rows; the digits of the result do not depend on the number of threads. float32 rows give
float32 blocks, whose products with the weights are float32 too; they are summed over the blocks in float64, which leaves an
error near 1e-7 of the largest sum. float64 rows give float64 throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from synalign_agent.core.arrays import Array, FloatArray
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.parallel import for_each_tile
from synalign_agent.errors import InputError

BLOCK_ROWS = 2048
"""16 MiB a block of float32: large enough for fast matrix products."""


class SelfSums(NamedTuple):
    """Sums of one set of rows against itself."""

    total: float
    """sum over all i, j of a_i a_j k(x_i, x_j)"""
    diagonal: float
    """sum over i of a_i^2 k(x_i, x_i)"""


def self_sums(A: Array, a: FloatArray, kernel: Kernel, block: int) -> SelfSums:
    """Sum a_i a_j k(x_i, x_j) over all pairs, and apart over the diagonal.

    Args:
        A: (n, d).
        a: (n,) weights.
        kernel: symmetric, so that only half of the blocks are computed.
        block: rows in a block, >= 1.
    """
    left = list(blocks(len(A), block))
    totals, diagonals = np.zeros(len(left)), np.zeros(len(left))

    def add_up(at: int) -> None:
        i = left[at]
        K = kernel(A[i], A[i])
        totals[at] = a[i] @ product(K, a[i])
        diagonals[at] = np.square(a[i]) @ np.diagonal(K)
        for j in left[at + 1 :]:
            totals[at] += 2.0 * float(a[i] @ product(kernel(A[i], A[j]), a[j]))

    for_each_tile(add_up, range(len(left)))
    return SelfSums(float(totals.sum()), float(diagonals.sum()))


def cross_sum(
    A: Array,
    a: FloatArray,
    B: Array,
    b: FloatArray,
    kernel: Kernel,
    block: int,
) -> float:
    """Sum a_i b_j k(x_i, z_j) over all pairs.

    Args:
        A: (n, d).
        a: (n,) weights.
        B: (m, d).
        b: (m,) weights.
        kernel: any kernel.
        block: rows in a block, >= 1.
    """
    return float(a @ weighted_means(A, B, b, kernel, block))


def weighted_means(Z: Array, X: Array, weights: FloatArray, kernel: Kernel, block: int) -> FloatArray:
    """Return (len(Z),) values sum_j weights_j k(z, x_j).

    Args:
        Z: (n, d).
        X: (m, d).
        weights: (m,).
        kernel: any kernel.
        block: rows in a block, >= 1.
    """
    means = np.zeros(len(Z))

    def add_up(i: slice) -> None:
        for j in blocks(len(X), block):
            means[i] += product(kernel(Z[i], X[j]), weights[j])

    for_each_tile(add_up, list(blocks(len(Z), block)))
    return means


def symmetric_product(X: Array, weights: FloatArray, kernel: Kernel, block: int) -> FloatArray:
    """Return K w, (n,): `weighted_means(X, X, w)` from half of the blocks.

    Args:
        X: (n, d).
        weights: (n,).
        kernel: symmetric.
        block: rows in a block, >= 1.
    """
    values = np.zeros(len(X))
    for i in blocks(len(X), block):
        right = list(blocks(len(X), block, start=i.start))
        to_i = np.zeros((len(right), i.stop - i.start))

        def add_up(at: int, i: slice = i, right: list[slice] = right, to_i: FloatArray = to_i) -> None:
            K, j = kernel(X[i], X[right[at]]), right[at]
            to_i[at] = product(K, weights[j])
            if j != i:
                values[j] += product(K.T, weights[i])

        for_each_tile(add_up, range(len(right)))
        # Summed here, in order, so that the digits do not depend on which thread was first.
        values[i] += to_i.sum(axis=0)
    return values


def product(K: Array, weights: FloatArray) -> Array:
    """Return K @ weights in the precision of K; a mixed product would copy all of K to float64 first."""
    result: Array = K @ weights.astype(K.dtype, copy=False)
    return result


def blocks(n: int, block: int, start: int = 0) -> Iterator[slice]:
    """Cut range(start, n) into slices of `block` rows.

    Raises:
        InputError: if `block` < 1.
    """
    if block < 1:
        raise InputError(f"block_rows must be >= 1, got {block}.")
    for begin in range(start, n, block):
        yield slice(begin, min(begin + block, n))
