"""Where a synthetic selection lacks real mass: regions of the real rows, each with its share of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.alignment import Rows
from synalign_agent.core.arrays import Array, FloatArray, IntArray, as_indices
from synalign_agent.core.block_sums import BLOCK_ROWS, weighted_means
from synalign_agent.core.kernels import Kernel
from synalign_agent.errors import InputError

_ROWS_A_REGION = 10
_MAX_REGIONS = 32


@dataclass(frozen=True, slots=True)
class Gap:
    """A region with less synthetic than real mass."""

    label: int
    examples: tuple[int, ...]
    """Reference rows, nearest to the centre first; the centre itself is the first."""
    size: int
    """Scoring rows in the region."""
    mass: float
    """Share of the real population, in (0, 1]."""
    synthetic_mass: float
    """Share of the selection that has this label and lies here."""
    pool_mass: float
    """The same share of the pool: at 0 there is nothing to select here, more has to be written."""
    witness: float
    """Mean witness of the region's scoring rows, > 0."""
    z: float
    """The missing mass in units of its standard error."""


def region_count(n_scoring: int) -> int:
    """Return how many regions to cut a label into: about ten scoring rows each, so that a share means something.

    Args:
        n_scoring: scoring rows of the label, >= 0.

    Returns:
        A number in [1, 32].
    """
    return max(1, min(n_scoring // _ROWS_A_REGION, _MAX_REGIONS))


def gap_map(
    reference: Rows,
    scoring: Rows,
    pool: Rows,
    copies: ArrayLike,
    centres: ArrayLike,
    kernel: Kernel,
    *,
    prior: FloatArray,
    n_examples: int = 3,
    max_gaps: int = 10,
    min_z: float = 2.0,
) -> list[Gap]:
    """List the regions where the selection has less mass than the population of the scoring rows.

    A label's region is the set of rows that are nearer (in cosine) to one of its centres than to its others. Shares and
    witness are of the scoring rows, which neither weights nor centres were fitted to; examples are reference rows, so that
    they may be shown to a model. The witness function is that of rows with their labels (kernel k(x, x') [same label]),
    sum over real - sum over selected rows (Gretton et al., JMLR 2012, section 2.3), and leaves a row's value at itself out:

        witness(x) = prior * mean over other scoring rows of k(x, .) - sum over selected rows of k(x, .) / selected rows.

    A region is listed if its mean witness is positive and its mass is short by `min_z` standard errors of the difference
    of two binomial shares (pooled), so that what two samples of one population would show is not.

    Args:
        reference: (n, d) unit rows that the centres are taken from.
        scoring: (h, d) unit rows; every label with a prior above 0 needs one.
        pool: (m, d) unit rows; may be empty.
        copies: (m,) integers >= 0, how often each pool row is selected.
        centres: (r,) distinct reference rows, such as k-means medoids; at least one of every label with scoring rows.
        kernel: with k(x, x) = 1.
        prior: (L,) label masses, sum 1.
        n_examples: reference rows per gap, >= 1.
        max_gaps: most gaps returned, >= 0.
        min_z: least missing mass in standard errors.

    Returns:
        At most `max_gaps`, by missing mass times witness (the region's part of the MMD2, up to what varies inside it),
        largest first.

    Raises:
        InputError: if a shape or an index is wrong, or a label with scoring rows has no centre.
    """
    chosen = as_indices(centres, len(reference.X), "centres")
    counts = np.asarray(copies)
    if counts.shape != (len(pool.X),) or (counts < 0).any():
        raise InputError(f"copies must be ({len(pool.X)},) counts >= 0, got shape {counts.shape}.")
    gaps: list[Gap] = []
    for label in np.unique(scoring.label[prior[scoring.label] > 0]).tolist():
        own = chosen[reference.label[chosen] == label]
        if len(own) == 0:
            raise InputError(f"Label {label} has scoring rows but no centre.")
        gaps += _label_gaps(
            label, own, reference, scoring, pool, counts, kernel, float(prior[label]), n_examples, min_z
        )
    gaps.sort(key=lambda gap: (-(gap.mass - gap.synthetic_mass) * gap.witness, gap.label, gap.examples))
    return gaps[:max_gaps]


def _label_gaps(
    label: int, centres: IntArray, reference: Rows, scoring: Rows, pool: Rows, copies: IntArray, kernel: Kernel,
    prior: float, n_examples: int, min_z: float,
) -> list[Gap]:  # fmt: skip
    real = scoring.X[scoring.label == label]
    in_pool = np.flatnonzero(pool.label == label)
    n_selected = int(copies.sum())
    shares = copies[in_pool] / max(n_selected, 1)
    C = reference.X[centres]
    region_of_real, region_of_pool = _nearest(real, C), _nearest(pool.X[in_pool], C)
    witness = _witness(real, pool.X[in_pool], shares, kernel, prior)
    size = np.bincount(region_of_real, minlength=len(C))
    mass = prior * size / len(real)
    synthetic_mass = np.bincount(region_of_pool, weights=shares, minlength=len(C)).astype(np.float64)
    pool_mass = np.bincount(region_of_pool, minlength=len(C)) / max(len(pool.X), 1)
    z = (mass - synthetic_mass) / _standard_error(mass, len(scoring.X), synthetic_mass, n_selected)
    mean_witness = np.bincount(region_of_real, weights=witness, minlength=len(C)) / np.maximum(size, 1)
    listed = np.flatnonzero((mean_witness > 0) & (z >= min_z) & (mass > synthetic_mass))
    rows = np.flatnonzero(reference.label == label)
    region_of_reference = _nearest(reference.X[rows], C)
    return [
        Gap(
            label=label,
            examples=_examples(int(centres[region]), rows[region_of_reference == region], reference.X, n_examples),
            size=int(size[region]),
            mass=float(mass[region]),
            synthetic_mass=float(synthetic_mass[region]),
            pool_mass=float(pool_mass[region]),
            witness=float(mean_witness[region]),
            z=float(z[region]),
        )
        for region in listed.tolist()
    ]


def _nearest(X: Array, centres: Array) -> IntArray:
    nearest = np.zeros(len(X), dtype=np.intp)
    for start in range(0, len(X), BLOCK_ROWS):
        nearest[start : start + BLOCK_ROWS] = np.argmax(X[start : start + BLOCK_ROWS] @ centres.T, axis=1)
    return nearest


def _witness(real: Array, synthetic: Array, shares: FloatArray, kernel: Kernel, prior: float) -> FloatArray:
    n = len(real)
    among_real = weighted_means(real, real, np.full(n, 1.0 / n), kernel, BLOCK_ROWS)
    # k(x, x) = 1 is left out; a single row has no others, so nothing is known to be missing around it.
    values: FloatArray = prior * (n * among_real - 1.0) / max(n - 1, 1)
    held = shares > 0
    if held.any():
        values -= weighted_means(real, synthetic[held], shares[held], kernel, BLOCK_ROWS)
    return values


def _standard_error(mass: FloatArray, n_real: int, synthetic_mass: FloatArray, n_synthetic: int) -> FloatArray:
    """Return the standard error of the difference of two binomial shares of one population."""
    pooled = (mass * n_real + synthetic_mass * n_synthetic) / (n_real + n_synthetic)
    # Shares of exactly 0 or 1 have no spread of their own; half a row keeps the error above 0.
    least = 0.5 / (n_real + n_synthetic)
    pooled = np.clip(pooled, least, 1.0 - least)
    # An empty selection is no sample: that it has nothing is certain.
    per_row = 1.0 / n_real + (1.0 / n_synthetic if n_synthetic else 0.0)
    error: FloatArray = np.sqrt(pooled * (1.0 - pooled) * per_row)
    return error


def _examples(centre: int, region: IntArray, X: Array, n: int) -> tuple[int, ...]:
    similarity = X[region] @ X[centre]
    order = np.argsort(-similarity, kind="stable")
    nearest = [row for row in region[order].tolist() if row != centre]
    return (centre, *nearest[: n - 1])
