"""Exact nearest available rows, one query at a time, for selection: many queries, each needing the answer of the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synalign_agent.errors import InputError
from synalign_agent.stores.unit_vectors import BLOCK_ROWS, Vectors, row_norms

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]

_BOUNDED_ROWS = 20_000
"""From this many rows on, bounds on a quarter of the dimensions save more than they cost."""
_SAMPLE_ROWS = 8_192
_GROUPS = 1_024
_WIDE = 0.125
"""Above this share of rows that a bound leaves, reading all of them in order is faster than picking them out."""
_FLOAT32_SLACK = 1e-5
_TIE_DECIMALS = 12


def nearest_available(X: Array) -> Callable[[int, int, Mask], Rows]:
    """Return a search for the nearest available rows of X by cosine similarity, always exact.

    From 20,000 rows on, rows are first bounded from above on their leading d / 4 principal directions: with P the
    projection and r = sqrt(1 - |P x|^2) what it leaves of a unit row, Cauchy-Schwarz gives <x, y> <= <P x, P y> + r_x r_y.
    Only rows whose bound reaches the k-th best similarity found so far are compared in full.

    Args:
        X: (n, d), finite, no zero row; float32 or float64, kept and read, not copied. Must not change.

    Returns:
        (row, k, available (n,)) -> up to k nearest available rows other than `row`, nearest first; of rows whose
        similarities agree to 12 decimals the lowest comes first. Memory: 4 n bytes, from 20,000 rows on n d more
        (a quarter of X in float32).

    Raises:
        InputError: X is not two-dimensional, or a row is zero or not finite.
    """
    if X.ndim != 2:
        raise InputError(f"X must be a (rows, dimensions) array, got shape {X.shape}.")
    n, d = X.shape
    norms = np.empty(n, dtype=np.float32)
    for start in range(0, n, BLOCK_ROWS):
        norms[start : start + BLOCK_ROWS] = row_norms(X[start : start + BLOCK_ROWS], start)
    bounds = _bounding_rows(X, norms) if n >= _BOUNDED_ROWS and d >= 16 else None

    def similarities(row: int, rows: Rows) -> NDArray[np.float64]:
        """Return cosines up to the constant |x_row|, in the precision of X."""
        query = X[row]
        if len(rows) > _WIDE * n:
            found = np.asarray(X @ query)[rows]
        else:
            found = np.concatenate([X[rows[s : s + BLOCK_ROWS]] @ query for s in range(0, len(rows), BLOCK_ROWS)])
        cosines: NDArray[np.float64] = found / (norms[rows].astype(np.float64) * float(norms[row]))
        return cosines

    def neighbours(row: int, k: int, available: Mask) -> Rows:
        allowed = available.copy()
        allowed[row] = False
        n_allowed = int(np.count_nonzero(allowed))
        k = min(k, n_allowed)
        if k <= 0:
            return np.empty(0, dtype=np.int64)
        candidates: Rows
        if bounds is None or n_allowed <= _GROUPS + k:
            candidates = np.flatnonzero(allowed)
        else:
            bound = bounds @ bounds[row]
            bound[~allowed] = -np.inf
            first = _best_of_groups(bound)
            first = first[allowed[first]]
            if len(first) < k:
                first = np.flatnonzero(allowed)[: _GROUPS + k]
            reached = np.partition(similarities(row, first), -k)[-k]
            candidates = np.flatnonzero(bound >= reached - _FLOAT32_SLACK)
        cosines = similarities(row, candidates)
        near = candidates[cosines >= np.partition(cosines, -k)[-k] - _FLOAT32_SLACK]
        nearest: Rows = near[_by_exact_cosine(X, row, near)[:k]]
        return nearest

    return neighbours


def _bounding_rows(X: Array, norms: Vectors) -> Vectors:
    """Return (n, d // 4): the unit rows on their leading principal directions, and last the norm of what that leaves."""
    n, d = X.shape
    # Evenly spread rows say enough of the directions; which ones they are changes the speed, never the answer.
    sample = np.linspace(0, n - 1, min(n, _SAMPLE_ROWS)).astype(np.int64)
    rows = X[sample].astype(np.float64) / norms[sample, None]
    _, directions = np.linalg.eigh(rows.T @ rows)
    leading = directions[:, -(d // 4 - 1) :]
    bounds = np.empty((n, d // 4), dtype=np.float32)
    for start in range(0, n, BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        projected = (X[part] @ leading.astype(X.dtype)) / norms[part, None]
        bounds[part, :-1] = projected
        # The added 1e-6 is above the rounding of the sum, so that the bound stays one where almost nothing is left.
        bounds[part, -1] = np.sqrt(np.maximum(1.0 - np.einsum("ij,ij->i", projected, projected), 0.0) + 1e-6)
    return bounds


def _best_of_groups(values: Vectors) -> Rows:
    """Return the row of the largest value in each of 1,024 runs of rows (a cheap stand-in for the largest 1,024)."""
    size = len(values) // _GROUPS
    best: Rows = np.argmax(values[: size * _GROUPS].reshape(_GROUPS, size), axis=1) + np.arange(_GROUPS) * size
    return best


def _by_exact_cosine(X: Array, row: int, rows: Rows) -> Rows:
    """Return the order of ascending `rows` by cosine to `row` in float64, nearest first; equal ones keep their order."""
    query = X[row].astype(np.float64)
    parts = []
    for start in range(0, len(rows), BLOCK_ROWS):
        block = X[rows[start : start + BLOCK_ROWS]].astype(np.float64)
        # einsum sums every row in one order, which BLAS does not: equal rows get equal cosines.
        parts.append(np.einsum("ij,j->i", block, query) / np.sqrt(np.einsum("ij,ij->i", block, block)))
    cosines = np.round(np.concatenate(parts) / np.linalg.norm(query), _TIE_DECIMALS)
    order: Rows = np.argsort(-cosines, kind="stable")
    return order
