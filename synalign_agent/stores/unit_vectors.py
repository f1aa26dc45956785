"""Unit vectors in float32, the form in which every store and search of this package holds them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synalign_agent.errors import InputError

Vectors = NDArray[np.float32]
BLOCK_ROWS = 16_384


def unit_float32(X: NDArray[np.floating[Any]], out: Vectors | None = None) -> Vectors:
    """Return the rows of X scaled to norm 1.

    Args:
        X: (n, d), finite, no zero row. Not changed.
        out: (n, d) float32 to write into; None for a new array.

    Returns:
        (n, d) float32, within one unit in the last place of norm 1. Memory beyond it: a block of 16,384 rows.

    Raises:
        InputError: X is not two-dimensional, or a row (named by index) is zero or not finite.
    """
    if X.ndim != 2:
        raise InputError(f"Vectors must be a (rows, dimensions) array, got shape {X.shape}.")
    unit = np.empty(X.shape, dtype=np.float32) if out is None else out
    for start in range(0, len(X), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        unit[part] = X[part] / row_norms(X[part], start)[:, None]
    return unit


def row_norms(X: NDArray[np.floating[Any]], first_row: int = 0) -> NDArray[np.float64]:
    """Return (n,) Euclidean norms, summed in float64.

    Args:
        X: (n, d), converted to float64 as a whole: pass blocks.
        first_row: what to call the first row in an error.

    Raises:
        InputError: a row is zero or not finite.
    """
    norms: NDArray[np.float64] = np.linalg.norm(X.astype(np.float64), axis=1)
    usable = np.isfinite(norms) & (norms > 0)
    if not usable.all():
        row = int(np.argmin(usable))
        wrong = "is all zeros, so it has no direction" if norms[row] == 0 else "has a value that is not finite"
        raise InputError(f"Row {first_row + row} of the vectors {wrong}; remove it, or embed its text again.")
    return norms
