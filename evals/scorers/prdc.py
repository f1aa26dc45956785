"""Precision, recall, density and coverage by k nearest neighbours.

Kynkäänniemi et al., "Improved precision and recall metric" (NeurIPS 2019); Naeem et al., "Reliable fidelity and diversity
metrics" (ICML 2020). All depend on the numbers of rows and on k: compare only what has the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from synalign_agent.core.arrays import Array, FloatArray, squared_distances
from synalign_agent.errors import InputError

NEIGHBOURS = 5
"""Naeem et al. and the papers after it."""
_BLOCK_ROWS = 2048


class Prdc(NamedTuple):
    """How synthetic rows lie among real ones; all but `density` in [0, 1], and higher is better."""

    precision: float
    """Share of synthetic rows inside the ball of some real row, whose radius is the distance to its k-th nearest real one."""
    recall: float
    """Share of real rows inside the ball of some synthetic row."""
    density: float
    """Real balls that a synthetic row lies in, over k, on average: about 1 for real rows, may be above."""
    coverage: float
    """Share of real balls with a synthetic row inside."""


def neighbour_radii2(X: Array, k: int = NEIGHBOURS) -> FloatArray:
    """Return (n,) squared distances of each row of X (n, d) to its k-th nearest other row, n > k.

    Raises:
        InputError: there are too few rows.
    """
    if len(X) <= k:
        raise InputError(f"The {k}-th nearest of {len(X)} rows does not exist: give more rows, or a smaller k.")
    radii2 = np.empty(len(X))
    for start in range(0, len(X), _BLOCK_ROWS):
        squared = squared_distances(X[start : start + _BLOCK_ROWS], X)
        # The row itself is one of the k + 1 nearest.
        radii2[start : start + _BLOCK_ROWS] = np.partition(squared, k, axis=1)[:, k]
    return radii2


def prdc(X_real: Array, X_syn: Array, real_radii2: FloatArray, k: int = NEIGHBOURS) -> Prdc:
    """Compare synthetic rows with real ones.

    Args:
        X_real: (h, d).
        X_syn: (m, d), m > k.
        real_radii2: (h,) `neighbour_radii2` of X_real, which many comparisons share.
        k: of the neighbours.

    Raises:
        InputError: there are too few rows.
    """
    syn_radii2 = neighbour_radii2(X_syn, k)
    in_real_balls = np.zeros(len(X_syn), dtype=np.int64)
    recalled = covered = 0
    for start in range(0, len(X_real), _BLOCK_ROWS):
        squared = squared_distances(X_real[start : start + _BLOCK_ROWS], X_syn)
        in_real = squared <= real_radii2[start : start + _BLOCK_ROWS, None]
        in_real_balls += in_real.sum(axis=0)
        covered += int(in_real.any(axis=1).sum())
        recalled += int((squared <= syn_radii2).any(axis=1).sum())
    return Prdc(
        precision=float((in_real_balls > 0).mean()),
        recall=recalled / len(X_real),
        density=float(in_real_balls.mean()) / k,
        coverage=covered / len(X_real),
    )
