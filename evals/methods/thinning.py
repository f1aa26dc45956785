"""Kernel thinning by goodpoints, its authors' package (Dwivedi and Mackey, COLT 2021), refined towards the real rows.

KT-SPLIT halves the pool, which keeps the pool's distribution; KT-SWAP then gets the mean kernel with the real rows as its
target, so that its exchanges lower the MMD to them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from evals.methods.base import Weighted, chosen, product_kernel
from synalign_agent.core.arrays import Array, FloatArray, IntArray, squared_norms
from synalign_agent.core.block_sums import BLOCK_ROWS, weighted_means
from synalign_agent.core.kernels import IsotropicKernel


def select(
    X_pool: Array, X_ref: Array, texts_pool: Sequence[str], texts_ref: Sequence[str], n: int, rng: np.random.Generator
) -> Weighted:
    """Halve n * 2^g random rows, as many as the pool has, g times and exchange rows with them (a `base.Select`)."""
    halvings = int(math.log2(len(X_pool) / n))
    rows = rng.choice(len(X_pool), n * 2**halvings, replace=False)
    kernel = product_kernel(X_ref)
    k_sr = weighted_means(X_pool[rows], X_ref, np.full(len(X_ref), 1.0 / len(X_ref)), kernel, BLOCK_ROWS)
    kept = thin_towards(X_pool[rows], k_sr, kernel, halvings, seed=int(rng.integers(2**31)))
    return chosen(rows[kept], len(X_pool))


def thin_towards(
    X: Array, k_sr: FloatArray, kernel: IsotropicKernel, halvings: int, *, seed: int, unique: bool = True
) -> IntArray:
    """Return the rows that goodpoints keeps of X (m, d): m // 2^halvings of them.

    Args:
        X: rows to thin.
        k_sr: (m,) mean kernel value of each with the real rows.
        kernel: of splits and exchanges.
        halvings: >= 0.
        seed: of the splits.
        unique: whether a row is kept once at most.

    Raises:
        ImportError: goodpoints is not installed (extra `eval`).
    """
    from goodpoints import kt

    norms = squared_norms(X)

    def values(y: Array, rows: Array) -> Array:
        """Compare the one row of y with all rows, or the rows of both pair by pair."""
        if len(y) > 1:
            return kernel.of_squared_distances(squared_norms(y - rows))
        squared: Array = rows @ y[0]
        squared *= -2.0
        squared += norms if rows is X else squared_norms(rows)
        squared += y[0] @ y[0]
        return kernel.of_squared_distances(np.maximum(squared, 0.0, out=squared))

    def swap_values(y: Array, rows: Array) -> Any:
        """Return a number for a single pair: goodpoints assigns it to an element, for which NumPy 2.4 takes no array of one."""
        compared = values(y, rows)
        return compared[0] if len(y) == len(rows) == 1 else compared

    kept: IntArray = kt.thin(X, halvings, values, swap_values, seed=seed, meanK=k_sr, unique=unique)
    return kept
