"""Demonstration clusters: a seed row and its nearest free neighbours, however seeds are chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import BoolArray, IntArray, as_indices, unit_rows
from synalign_agent.errors import InputError

Neighbours = Callable[[int, int, BoolArray], IntArray]
"""(row, k, available) -> up to k nearest available rows other than row, nearest first.
"""

_TIE_DECIMALS = 12


class Cluster(NamedTuple):
    """A seed row and its neighbours."""

    seed: int
    members: tuple[int, ...]
    """Distinct rows, the seed first."""
    score: float | None
    """What the seed was picked by; None where nothing was measured (random, given)."""


def exact_neighbours(X: ArrayLike) -> Neighbours:
    """Make a brute-force neighbour search by cosine similarity.

    Args:
        X: (n, d), finite, no zero row; rows are scaled to norm 1.

    Returns:
        A `Neighbours`, O(n d) a call; the lowest index wins ties.

    Raises:
        InputError: if `X` is not a finite 2-D array or a row is zero.
    """
    rows = unit_rows(X)

    def nearest(row: int, k: int, available: BoolArray) -> IntArray:
        allowed = available.copy()
        allowed[row] = False
        candidates: IntArray = np.flatnonzero(allowed)
        k = min(k, len(candidates))
        if k <= 0:
            return candidates[:0]
        # BLAS may sum equal rows in another order; rounding makes them tie again.
        similarity = np.round(rows @ rows[row], _TIE_DECIMALS)[candidates]
        cut = np.partition(similarity, -k)[-k]
        near = np.flatnonzero(similarity >= cut)
        order = np.argsort(-similarity[near], kind="stable")[:k]
        return candidates[near[order]]

    return nearest


def take_cluster(seed: int, size: int, neighbours: Neighbours, free: BoolArray, score: float | None) -> Cluster:
    """Take a seed and its nearest free rows, and mark them taken in `free`.

    Raises:
        InputError: if the neighbour search returns rows that are taken, repeated, or too many.
    """
    free[seed] = False
    near: IntArray = np.zeros(0, dtype=np.intp)
    if size > 1:
        near = as_indices(neighbours(seed, size - 1, free), len(free), "neighbours")
    if not free[near].all() or len(np.unique(near)) != len(near) or len(near) >= size:
        raise InputError(f"The neighbour search of row {seed} broke its contract.")
    free[near] = False
    return Cluster(seed, (seed, *near.tolist()), score)


def check_sizes(n_clusters: int, cluster_size: int) -> None:
    """Refuse a negative number of clusters, and clusters without rows."""
    if n_clusters < 0:
        raise InputError(f"n_clusters must be >= 0, got {n_clusters}.")
    if cluster_size < 1:
        raise InputError(f"cluster_size must be >= 1, got {cluster_size}.")


def as_availability(available: ArrayLike | None, n: int) -> BoolArray:
    """Return a copy that a selection may change; None for all rows."""
    if available is None:
        return np.ones(n, dtype=np.bool_)
    mask = np.asarray(available)
    if mask.shape != (n,) or mask.dtype != np.bool_:
        raise InputError(f"available must be a boolean array of shape ({n},).")
    return mask.copy()
