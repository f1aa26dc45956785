"""How much of the data lies near, or between, the selected rows."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.spatial
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import (
    Array,
    FloatArray,
    as_indices,
    as_rows,
    squared_distances,
)
from synalign_agent.errors import InputError

_BLOCK_ROWS = 2048
_FLAT = 1e-9
"""Relative to the extent of the data: points this close to a line are on it."""


def radius_coverage(X: ArrayLike, selected: ArrayLike, radius: float) -> float:
    """Return the share of rows within `radius` of a selected row.

    Args:
        X: (n, d).
        selected: (t,) row indices; may be empty.
        radius: Euclidean distance, >= 0.

    Returns:
        A share in [0, 1]; selected rows always count.

    Raises:
        InputError: if a shape, index or the radius is wrong.
    """
    curve = coverage_curve(X, selected, radius)
    return float(curve[-1]) if len(curve) else 0.0


def coverage_curve(X: ArrayLike, selected: ArrayLike, radius: float) -> FloatArray:
    """Return the share of rows covered after the first, second, ... selected row.

    One pass over the data for all t shares: each row is counted at the first selected row that is within `radius` of it.
    That is O(n d) a selected row, by matrix products, with O(2048^2) values at a time.

    Args:
        X: (n, d).
        selected: (t,) row indices in the order of selection; may be empty.
        radius: Euclidean distance, >= 0.

    Returns:
        (t,) shares in [0, 1] that never fall; the last one is `radius_coverage` of them all.

    Raises:
        InputError: if a shape, index or the radius is wrong.
    """
    rows = as_rows(X)
    chosen = as_indices(selected, len(rows), "selected")
    if not (np.isfinite(radius) and radius >= 0):
        raise InputError(f"radius must be >= 0, got {radius!r}.")
    t = len(chosen)
    covered_by = np.full(len(rows), t)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        for first in range(0, t, _BLOCK_ROWS):
            near = squared_distances(block, rows[chosen[first : first + _BLOCK_ROWS]]) <= radius**2
            earliest = np.where(near.any(axis=1), first + near.argmax(axis=1), t)
            in_block = covered_by[start : start + _BLOCK_ROWS]
            np.minimum(in_block, earliest, out=in_block)
    # Their distance of 0 to themselves is only 0 up to round-off.
    np.minimum.at(covered_by, chosen, np.arange(t))
    curve: FloatArray = np.cumsum(np.bincount(covered_by, minlength=t + 1)[:t]) / len(rows)
    return curve


def hull_coverage(X: ArrayLike, selected: ArrayLike) -> float | None:
    """Return the share of rows inside the convex hull of the selected, in 2-D PCA.

    The picture of SynAlign (arXiv 2502.08661) as a number. The plane is that of the
    first two principal components of all rows.

    Args:
        X: (n, d).
        selected: (t,) row indices.

    Returns:
        A share in [0, 1], the border included; None if fewer than 3 selected rows, or
        all of them on a line: there is no hull then.

    Raises:
        InputError: if a shape or index is wrong.
    """
    rows = as_rows(X)
    chosen = np.unique(as_indices(selected, len(rows), "selected"))
    if len(chosen) < 3 or rows.shape[1] < 2:
        return None
    points = _first_two_components(rows)
    extent = float(np.abs(points).max())
    corners = points[chosen]
    spread = np.linalg.svd(corners - corners.mean(axis=0), compute_uv=False)
    if spread[1] <= _FLAT * extent:
        return None
    hull = scipy.spatial.ConvexHull(corners)
    outside = points @ hull.equations[:, :2].T + hull.equations[:, 2]
    return float((outside <= _FLAT * extent).all(axis=1).mean())


def _first_two_components(rows: Array) -> FloatArray:
    """Return (n, 2) float64, by blocks: centred copies of all rows are never held."""
    d = rows.shape[1]
    mean = rows.mean(axis=0, dtype=np.float64)
    blocks = [rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS)]
    scatter = np.zeros((d, d))
    for block in blocks:
        centred = block - mean
        scatter += centred.T @ centred
    _, axes = scipy.linalg.eigh(scatter, subset_by_index=[d - 2, d - 1])
    plane: FloatArray = np.concatenate([(block - mean) @ axes for block in blocks])
    return plane
