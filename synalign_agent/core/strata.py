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


def stratum_masses(masses: PerStratum | None, rows: dict[int, IntArray]) -> FloatArray:
    """Return the share of each stratum, in the order of `rows`.

    Args:
        masses: see `PerStratum`, not all 0; None for the share of the rows.
        rows: label -> rows, from `stratum_rows`.

    Returns:
        (number of strata,) >= 0, sum 1.

    Raises:
        InputError: as `per_stratum`, or if all masses are 0.
    """
    sizes = np.array([len(found) for found in rows.values()], dtype=np.float64)
    p = sizes if masses is None else per_stratum(masses, rows, "masses")
    if p.sum() <= 0:
        raise InputError("masses must not all be zero.")
    shares: FloatArray = p / p.sum()
    return shares


def same_strata(
    syn_strata: ArrayLike | None, n_syn: int, real_strata: ArrayLike | None, n_real: int
) -> tuple[dict[int, IntArray], dict[int, IntArray]]:
    """Group both sides of a comparison, which must have the same labels.

    Args:
        syn_strata: (n_syn,) integer labels; None for one stratum.
        n_syn: number of synthetic rows.
        real_strata: (n_real,) integer labels; None for one stratum.
        n_real: number of real rows.

    Returns:
        Label -> rows of the synthetic and of the real side, in the same order.

    Raises:
        InputError: if the labels are not integers, or one is on one side only.
    """
    syn_rows = stratum_rows(syn_strata, n_syn, "syn_strata")
    real_rows = stratum_rows(real_strata, n_real, "real_strata")
    if syn_rows.keys() != real_rows.keys():
        raise InputError(f"Strata differ: {list(syn_rows)} synthetic, {list(real_rows)} real.")
    return syn_rows, real_rows


def packed(rows: dict[int, IntArray]) -> tuple[IntArray, list[slice]]:
    """Lay the strata one after another.

    Args:
        rows: label -> rows.

    Returns:
        All rows, and where each stratum is among them.
    """
    ends = np.cumsum([len(found) for found in rows.values()]).tolist()
    starts = [0, *ends[:-1]]
    places = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
    return np.concatenate(list(rows.values())), places


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


def some_rows(rows: IntArray, most: int, rng: np.random.Generator) -> IntArray:
    """Return the rows if they are at most `most`, else that many drawn from them without replacement, ascending."""
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def some_of_strata(labels: IntArray, most: int, rng: np.random.Generator) -> IntArray:
    """Return places in (n,) labels, ascending: all n, or about `most` with the same share of each label (`subsample`)."""
    if len(labels) <= most:
        return np.arange(len(labels))
    kept = subsample(stratum_rows(labels, len(labels), "labels"), most, rng)
    return np.sort(np.concatenate(list(kept.values())))
