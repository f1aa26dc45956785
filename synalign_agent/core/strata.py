"""Rows grouped by an integer label, and numbers given per label."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import FloatArray, IntArray
from synalign_agent.errors import InputError

PerStratum = Mapping[int, float] | ArrayLike
"""A mapping by label, an array in the order of the sorted labels, or, for a single
stratum, a number."""


def stratum_rows(strata: ArrayLike | None, n: int, name: str) -> dict[int, IntArray]:
    """Group the rows 0..n-1 by label; one stratum, labelled 0, for None.

    Args:
        strata: (n,) integer labels, or None.
        n: number of rows.
        name: what to call the argument in an error.

    Returns:
        Label -> its rows, ascending; labels ascending.

    Raises:
        InputError: if the labels are not n integers.
    """
    if strata is None:
        return {0: np.arange(n)}
    labels = np.asarray(strata)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{name} must be {n} integer labels, got {labels.shape}.")
    return {int(label): np.flatnonzero(labels == label) for label in np.unique(labels)}


def per_stratum(values: PerStratum, rows: dict[int, IntArray], name: str) -> FloatArray:
    """Return one number a stratum, in the order of `rows`.

    Args:
        values: see `PerStratum`.
        rows: label -> rows, from `stratum_rows`.
        name: what to call the argument in an error.

    Returns:
        (number of strata,) float64, finite and >= 0.

    Raises:
        InputError: if a label is missing, unknown (unless its value is 0), or a value
            is negative or not finite.
    """
    if isinstance(values, Mapping):
        unknown = [key for key, value in values.items() if value and key not in rows]
        missing = [label for label in rows if label not in values]
        if unknown or missing:
            raise InputError(f"{name} and the strata differ: no rows for {unknown}, no value for {missing}.")
        found = np.array([values[label] for label in rows], dtype=np.float64)
    else:
        found = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if found.shape != (len(rows),):
        raise InputError(f"{name} must have one value for each of {len(rows)} strata.")
    if not np.isfinite(found).all() or (found < 0).any():
        raise InputError(f"{name} must be finite and nonnegative.")
    return found


def subsample(rows: dict[int, IntArray], max_rows: int, rng: np.random.Generator) -> dict[int, IntArray]:
    """Cut every stratum by the same share, so that about `max_rows` rows are left.

    Args:
        rows: label -> rows.
        max_rows: rows kept in all; passed only to keep two rows of every stratum.
        rng: draws the rows kept.

    Returns:
        Label -> rows kept, ascending; unchanged if there are few enough.
    """
    total = sum(len(found) for found in rows.values())
    if total <= max_rows:
        return rows
    kept: dict[int, IntArray] = {}
    for label, found in rows.items():
        size = min(len(found), max(2, len(found) * max_rows // total))
        kept[label] = np.sort(rng.choice(found, size, replace=False))
    return kept
