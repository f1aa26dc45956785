"""What MMD^2 is between real and real: the noise floor and the permutation test.

Both compute every draw from one kernel matrix: a draw is a vector of weights u on its
rows, its statistic a quadratic form u'Ku, and all draws together one matrix product.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import FloatArray, IntArray, as_rows
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.strata import (
    PerStratum,
    packed,
    per_stratum,
    same_strata,
    stratum_masses,
    stratum_rows,
    subsample,
)
from synalign_agent.errors import InputError

_ROUND_OFF = 1e-12


class Floor(NamedTuple):
    """The null distribution of `mmd2_to_population`."""

    mean: float
    quantile: float
    """The (1 - alpha) quantile: real rows score above it with probability alpha."""
    draws: FloatArray
    """(n_draws,)"""
    alpha: float


def real_floor(
    X_real: ArrayLike,
    kernel: Kernel,
    *,
    n_syn: PerStratum,
    n_real: PerStratum,
    rng: np.random.Generator,
    strata: ArrayLike | None = None,
    masses: PerStratum | None = None,
    draw: Literal["bootstrap", "splits"] = "bootstrap",
    n_draws: int = 200,
    alpha: float = 0.05,
    max_rows: int = 3000,
) -> Floor:
    """Simulate `mmd2_to_population` when the "synthetic" rows are real ones.

    In each draw and stratum, `n_syn` real rows are the synthetic set and `n_real` the held-out sample.

    "splits" draws them without replacement and disjoint. A random split of i.i.d. rows is two independent i.i.d. samples,
    so every draw has exactly the null law at these sizes; it needs n_syn + n_real rows of every stratum, within
    `max_rows`. Use it where that is so.

    "bootstrap" lets the given rows stand for the population and draws with replacement, so it works at any size, also
    where more synthetic rows are asked for than real ones are at hand. It is an approximation, good once a stratum has some
    dozens of rows. Two equal rows of a draw are two rows of the (discrete) population, so they count as a pair i != j.
    h rows spread (h - 1) / h as much as what they were drawn from; the draws are scaled up by the exact ratio. The
    expectation is (1 - E k) / n_syn either way.

    Args:
        X_real: (h, d), h >= 2, i.i.d. within every stratum.
        kernel: with k(x, x) = 1.
        n_syn: synthetic rows of each stratum, >= 1 where it has mass.
        n_real: held-out rows of each stratum, >= 1 where it has mass.
        rng: source of the draws.
        strata: (h,) integer labels; None for one stratum.
        masses: mass of each stratum, scaled to sum 1; None for its share of X_real.
        draw: "bootstrap" or "splits".
        n_draws: number of draws, >= 1.
        alpha: in (0, 1).
        max_rows: rows used at most, by a random choice within strata; memory is
            O(max_rows^2 + max_rows n_draws).

    Returns:
        The draws, their mean and their (1 - alpha) quantile.

    Raises:
        InputError: if a shape, count or range is wrong, or there are too few rows for splits.
    """
    real = as_rows(X_real, "X_real")
    if n_draws < 1 or not 0 < alpha < 1:
        raise InputError("real_floor needs n_draws >= 1 and alpha between 0 and 1.")
    if draw not in ("bootstrap", "splits"):
        raise InputError(f'draw must be "bootstrap" or "splits", got {draw!r}.')
    rows = stratum_rows(strata, len(real), "strata")
    p = stratum_masses(masses, rows)
    syn_counts = _counts(n_syn, rows, p, "n_syn")
    real_counts = _counts(n_real, rows, p, "n_real")
    used = subsample(rows, max_rows, rng)
    kept, places = packed(used)
    # float64 also for float32 rows: numpy would convert the matrix anyway at every product with the draws.
    K = np.asarray(kernel(real[kept], real[kept]), dtype=np.float64)

    u = np.zeros((len(kept), n_draws))
    diagonal_correction = np.zeros(n_draws)
    of_population = of_sample = 0.0
    for label, place, mass, m, h in zip(used, places, p, syn_counts.astype(int), real_counts.astype(int), strict=True):
        if mass == 0:
            continue
        size = place.stop - place.start
        if draw == "splits":
            if size < m + h:
                raise InputError(
                    f"Splits of {m} + {h} rows need as many real rows of stratum {label}, and {size} are used: "
                    'ask for fewer, raise max_rows, or draw by "bootstrap".'
                )
            syn, held_out = _split(m, h, size, n_draws, rng)
        else:
            syn, held_out = _resampled(m, size, n_draws, rng), _resampled(h, size, n_draws, rng)
        u[place] = mass * (syn / m - held_out / h)
        inside = K[place, place]
        if h > 1:
            pairs = np.einsum("ib,ib->b", held_out, inside @ held_out)
            unbiased = (pairs - h) / (h * (h - 1))
            diagonal_correction += mass**2 * (unbiased - pairs / h**2)
        of_sample += mass**2 * (1.0 - float(inside.mean())) / m
        of_population += mass**2 * (1.0 - float(inside.mean())) / m * size / max(size - 1, 1)
    draws: FloatArray = np.einsum("ib,ib->b", u, K @ u) + diagonal_correction
    if draw == "bootstrap" and of_sample > _ROUND_OFF:
        draws *= of_population / of_sample
    return Floor(float(draws.mean()), float(np.quantile(draws, 1.0 - alpha)), draws, alpha)


def permutation_p_value(
    X_syn: ArrayLike,
    X_real: ArrayLike,
    kernel: Kernel,
    *,
    rng: np.random.Generator,
    syn_strata: ArrayLike | None = None,
    real_strata: ArrayLike | None = None,
    masses: PerStratum | None = None,
    n_permutations: int = 500,
    max_rows: int = 3000,
) -> float:
    """Test by permutation whether synthetic and real rows share a distribution.

    Rows change sides within their stratum; the statistic is `mmd2_biased` with the
    masses of the strata as weights (Gretton et al., JMLR 2012). It holds for distinct,
    unweighted rows. `cross_mmd.cross_mmd_test` needs no permutations and no matrix, with less power.

    Args:
        X_syn: (m, d).
        X_real: (h, d).
        kernel: with k(x, x) = 1.
        rng: source of the permutations.
        syn_strata: (m,) integer labels; None for one stratum.
        real_strata: (h,) integer labels, the same set; None for one stratum.
        masses: mass of each stratum, scaled to sum 1; None for its share of X_real.
        n_permutations: B >= 1.
        max_rows: rows used at most, by a random choice within strata and sides; memory
            is O(max_rows^2 + max_rows B).

    Returns:
        p = (1 + number of permutations at or above the observed) / (1 + B).

    Raises:
        InputError: if a shape is wrong, or a stratum has rows on one side only.
    """
    syn, real = as_rows(X_syn, "X_syn"), as_rows(X_real, "X_real")
    if n_permutations < 1:
        raise InputError(f"n_permutations must be >= 1, got {n_permutations}.")
    syn_rows, real_rows = same_strata(syn_strata, len(syn), real_strata, len(real))
    p = stratum_masses(masses, real_rows)
    syn_share = max_rows * len(syn) // (len(syn) + len(real))
    syn_kept, syn_places = packed(subsample(syn_rows, syn_share, rng))
    real_kept, real_places = packed(subsample(real_rows, max_rows - syn_share, rng))
    pool = np.concatenate([syn[syn_kept], real[real_kept]])

    offset = len(syn_kept)
    u = np.empty((n_permutations + 1, len(pool)))
    for mass, at_syn, at_real in zip(p, syn_places, real_places, strict=True):
        m, h = at_syn.stop - at_syn.start, at_real.stop - at_real.start
        observed = mass * np.repeat([1.0 / m, -1.0 / h], [m, h])
        members = np.r_[at_syn, at_real.start + offset : at_real.stop + offset]
        u[0, members] = observed
        shuffled = np.tile(observed, (n_permutations, 1))
        u[1:, members] = rng.permuted(shuffled, axis=1)
    K = np.asarray(kernel(pool, pool), dtype=np.float64)
    statistic = np.einsum("bi,bi->b", u @ K, u)
    # Permutations that only reorder a side give the observed value up to round-off.
    at_least = statistic[1:] >= statistic[0] - _ROUND_OFF
    return float((1 + np.count_nonzero(at_least)) / (1 + n_permutations))


def _counts(values: PerStratum, rows: dict[int, IntArray], p: FloatArray, name: str) -> FloatArray:
    counts = per_stratum(values, rows, name)
    if (counts != np.floor(counts)).any() or (counts[p > 0] < 1).any():
        raise InputError(f"{name} must be whole numbers >= 1 for strata with mass.")
    return counts


def _resampled(n: int, size: int, n_draws: int, rng: np.random.Generator) -> FloatArray:
    """Return (size, n_draws): how often each row is in each sample of n rows."""
    counts = rng.multinomial(n, np.full(size, 1.0 / size), size=n_draws)
    drawn: FloatArray = counts.T.astype(np.float64)
    return drawn


def _split(m: int, h: int, size: int, n_draws: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return two disjoint samples of m and of h rows, each (size, n_draws) zeros and ones."""
    side = np.repeat(np.array([1, 2, 0], dtype=np.int8), [m, h, size - m - h])
    sides = rng.permuted(np.tile(side, (n_draws, 1)), axis=1).T
    return (sides == 1).astype(np.float64), (sides == 2).astype(np.float64)
