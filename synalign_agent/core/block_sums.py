"""Weighted sums of a kernel matrix that is never held whole.

Every function walks blocks of `block_rows` x `block_rows`, so memory is
O(block_rows^2 + block_rows d) whatever the number of rows. Sums are float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from synalign_agent.core.arrays import FloatArray
from synalign_agent.core.kernels import Kernel
from synalign_agent.errors import InputError

BLOCK_ROWS = 2048
"""32 MiB a block: large enough for fast matrix products."""


class SelfSums(NamedTuple):
    """Sums of one set of rows against itself."""

    total: float
    """sum over all i, j of a_i a_j k(x_i, x_j)"""
    diagonal: float
    """sum over i of a_i^2 k(x_i, x_i)"""


def self_sums(A: FloatArray, a: FloatArray, kernel: Kernel, block: int) -> SelfSums:
    """Sum a_i a_j k(x_i, x_j) over all pairs, and apart over the diagonal.

    Args:
        A: (n, d).
        a: (n,) weights.
        kernel: symmetric, so that only half of the blocks are computed.
        block: rows in a block, >= 1.
    """
    total = diagonal = 0.0
    for i in _blocks(len(A), block):
        K = kernel(A[i], A[i])
        total += float(a[i] @ K @ a[i])
        diagonal += float(np.einsum("i,ii,i->", a[i], K, a[i]))
        for j in _blocks(len(A), block, start=i.stop):
            total += 2.0 * float(a[i] @ kernel(A[i], A[j]) @ a[j])
    return SelfSums(total, diagonal)


def cross_sum(
    A: FloatArray,
    a: FloatArray,
    B: FloatArray,
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


def weighted_means(Z: FloatArray, X: FloatArray, weights: FloatArray, kernel: Kernel, block: int) -> FloatArray:
    """Return (len(Z),) values sum_j weights_j k(z, x_j).

    Args:
        Z: (n, d).
        X: (m, d).
        weights: (m,).
        kernel: any kernel.
        block: rows in a block, >= 1.
    """
    means = np.zeros(len(Z))
    for i in _blocks(len(Z), block):
        for j in _blocks(len(X), block):
            means[i] += kernel(Z[i], X[j]) @ weights[j]
    return means


def _blocks(n: int, block: int, start: int = 0) -> Iterator[slice]:
    if block < 1:
        raise InputError(f"block_rows must be >= 1, got {block}.")
    for begin in range(start, n, block):
        yield slice(begin, min(begin + block, n))
