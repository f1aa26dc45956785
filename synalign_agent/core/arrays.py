"""Array types and the checks that every function of the core makes first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synalign_agent.errors import InputError

Array = NDArray[np.floating[Any]]
"""float32 or float64: rows keep the precision that they came in, and kernel values have that of the rows."""
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

_WEIGHT_SUM_TOLERANCE = 1e-6
"""Loose enough for weights that were stored as float32."""
_CHECKED_ROWS = 65_536


def as_rows(X: ArrayLike, name: str = "X") -> Array:
    """Return `X` as a float32 or float64 matrix, after checking it.

    Args:
        X: (n, d), n >= 1, finite. float32 and float64 arrays come back as they are, memory maps too; anything else is
            copied to float64.
        name: what to call the argument in an error.

    Raises:
        InputError: if `X` is not a finite, non-empty 2-D array.
    """
    given = np.asarray(X)
    rows: Array = given if given.dtype in (np.float32, np.float64) else given.astype(np.float64)
    if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] == 0:
        raise InputError(f"{name} must be a non-empty (rows, dimensions) array, got {rows.shape}.")
    # By blocks: a mask of a million rows is as large as a quarter of them.
    for start in range(0, len(rows), _CHECKED_ROWS):
        finite = np.isfinite(rows[start : start + _CHECKED_ROWS]).all(axis=1)
        if not finite.all():
            raise InputError(f"{name} has a value that is not finite in row {start + int(np.argmin(finite))}.")
    return rows


def unit_rows(X: ArrayLike) -> Array:
    """Scale every row to Euclidean norm 1.

    Args:
        X: (n, d), finite, no zero row.

    Returns:
        (n, d) in the precision of `as_rows`, a new array.

    Raises:
        InputError: if `X` is not a finite 2-D array or a row is zero (named by index).
    """
    rows = as_rows(X)
    # Dividing by the largest entry first keeps tiny and huge rows from
    # under- or overflowing when they are squared.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    if not largest.all():
        zero = int(np.flatnonzero(largest[:, 0] == 0)[0])
        raise InputError(f"Row {zero} is all zeros, so it has no direction.")
    scaled = rows / largest
    unit: Array = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return unit


def as_weights(weights: ArrayLike | None, n: int, name: str = "weights") -> FloatArray:
    """Return `n` weights that sum to 1; uniform ones for None.

    Args:
        weights: (n,), nonnegative, sum 1 within 1e-6, or None.
        n: number of rows weighted.
        name: what to call the argument in an error.

    Raises:
        InputError: if the shape, a sign or the sum is wrong.
    """
    if weights is None:
        return np.full(n, 1.0 / n)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n,):
        raise InputError(f"{name} must have shape ({n},), got {w.shape}.")
    if not np.isfinite(w).all() or (w < 0).any():
        raise InputError(f"{name} must be finite and nonnegative.")
    total = float(w.sum())
    if abs(total - 1.0) > _WEIGHT_SUM_TOLERANCE:
        raise InputError(f"{name} must sum to 1, they sum to {total!r}.")
    return w / total


def as_indices(indices: ArrayLike, n: int, name: str) -> IntArray:
    """Return row indices as a 1-D integer array, after checking their range.

    Args:
        indices: (t,) integers in [0, n); may be empty.
        n: number of rows indexed.
        name: what to call the argument in an error.

    Raises:
        InputError: if they are not 1-D integers in range.
    """
    found = np.asarray(indices)
    if found.size == 0:
        return np.zeros(0, dtype=np.intp)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise InputError(f"{name} must be a 1-D array of row indices.")
    if found.min() < 0 or found.max() >= n:
        raise InputError(f"{name} must lie in [0, {n}).")
    return found.astype(np.intp)


def squared_norms(A: Array) -> Array:
    """Return (n,) squared Euclidean norms of the rows of A (n, d)."""
    norms: Array = np.einsum("ij,ij->i", A, A)
    return norms


def squared_distances(A: Array, B: Array) -> Array:
    """Compute all squared Euclidean distances by one matrix product.

    Args:
        A: (n, d).
        B: (m, d).

    Returns:
        (n, m), >= 0, float32 if both are; equal rows come out near the precision (1e-16 or 1e-7) times their squared norm.

    Raises:
        InputError: if the dimensions differ.
    """
    if A.shape[1] != B.shape[1]:
        raise InputError(f"Rows of {A.shape[1]} and of {B.shape[1]} dimensions cannot be compared.")
    squared: Array = A @ B.T
    squared *= -2.0
    squared += squared_norms(A)[:, None]
    squared += squared_norms(B)[None, :]
    # Cancellation can leave a tiny negative number for equal rows; a distance is never negative.
    return np.maximum(squared, 0.0, out=squared)
