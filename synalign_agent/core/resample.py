"""Turn sampling weights into how often each row is taken."""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import FloatArray, IntArray, as_weights
from synalign_agent.errors import InputError

_ROUND_OFF = 64 * np.finfo(np.float64).eps
"""Relative; n w_i this little above a whole number was meant to be one."""


class Duplicates(Enum):
    """Whether a row was taken more than once, and why."""

    NONE = "none"
    FROM_WEIGHTS = "from_weights"
    """A row weighs more than 1 / n: weights with a cap of 1 / n, or max_copies = 1, would have avoided it."""
    UNAVOIDABLE = "unavoidable"
    """More rows were asked for than have a weight above 0: only a larger pool would have avoided it."""


class Resample(NamedTuple):
    """Rows drawn by weight, and what stood in the way."""

    copies: IntArray
    """(m,) how often each row is taken."""
    duplicates: Duplicates
    n_missing: int
    """Rows asked for that could not be drawn: all rows with weight have `max_copies` copies then."""

    @property
    def n_distinct(self) -> int:
        """Number of rows taken at least once."""
        return int(np.count_nonzero(self.copies))


def resample(w: ArrayLike, n: int, rng: np.random.Generator, *, max_copies: int | None = None) -> Resample:
    """Draw n rows by `systematic` resampling, with at most `max_copies` of each, and say what could not be met.

    Weights above max_copies / n are cut there, and what they lose goes to the others in proportion, as in sampling with
    probability proportional to size (Särndal et al., 1992, section 3.6.2). A row without weight is never taken, so n is
    out of reach when fewer than n / max_copies rows have weight; then each of them gives `max_copies`.

    Args:
        w: (m,) >= 0, sum 1.
        n: rows to draw, >= 0.
        rng: source of randomness.
        max_copies: >= 1; None for as many as the weights say.

    Returns:
        Copies with sum n - n_missing.

    Raises:
        InputError: if the weights are not on the simplex, or a number is out of range.
    """
    weights = as_weights(w, np.asarray(w).size, "w")
    if max_copies is not None and max_copies < 1:
        raise InputError(f"max_copies must be >= 1 or None, got {max_copies}.")
    support = int(np.count_nonzero(weights))
    n_drawn = n if max_copies is None else min(n, max_copies * support)
    if max_copies is not None and n_drawn > 0:
        weights = _cut(weights, max_copies / n_drawn)
    copies = systematic(weights, n_drawn, rng)
    if copies.max() <= 1:
        duplicates = Duplicates.NONE
    else:
        duplicates = Duplicates.UNAVOIDABLE if n_drawn > support else Duplicates.FROM_WEIGHTS
    return Resample(copies, duplicates, n - n_drawn)


def systematic(w: ArrayLike, n: int, rng: np.random.Generator) -> IntArray:
    """Draw n rows by systematic resampling: rows in random order, one random number, equal steps.

    Without the shuffle, equal steps through rows that come in a pattern (every second one of a kind) can miss a kind.
    The variance is the lowest of the usual schemes (Carpenter et al., 1999). The whole part of n w_i is taken for certain
    and only fractions are drawn, so that round-off cannot take a row with w_i <= 1 / n twice.

    Args:
        w: (m,) >= 0, sum 1.
        n: rows to draw, >= 0.
        rng: source of the order and the number.

    Returns:
        (m,) counts with sum n; count i is floor(n w_i) or ceil(n w_i), its mean n w_i.

    Raises:
        InputError: if the weights are not on the simplex or n is negative.
    """
    weights = as_weights(w, np.asarray(w).size, "w")
    if n < 0:
        raise InputError(f"n must be >= 0, got {n}.")
    target = n * weights
    counts: IntArray = np.floor(target).astype(np.intp)
    fraction: FloatArray = target - counts
    # A product that should be whole, such as n * (1 / n), may end just above it.
    fraction[fraction <= _ROUND_OFF * np.maximum(target, 1.0)] = 0.0
    left = n - int(counts.sum())
    order = rng.permutation(len(weights))
    ends = np.minimum(np.cumsum(fraction[order]), left)
    ticks = np.ceil(ends - rng.random())
    drawn = np.zeros(len(weights), dtype=np.intp)
    drawn[order] = np.minimum(np.diff(ticks, prepend=0.0), 1.0)
    # The steps reach n only if the fractions' sum is exactly whole; where round-off
    # made it smaller, the largest fraction that was passed over is the fair one to add.
    short = left - int(drawn.sum())
    if short > 0:
        passed_over = np.where(drawn == 0, fraction, -1.0)
        drawn[np.argsort(-passed_over, kind="stable")[:short]] += 1
    return counts + drawn


def copies_within(cap: float, n: int, m: int) -> int:
    """Return how many copies of a row may be among n equally weighted picks.

    Args:
        cap: largest weight.
        n: picks, each of weight 1 / n.
        m: rows to pick from.

    Returns:
        floor(cap n), at most n.

    Raises:
        InputError: if n < 1, or n picks within the cap do not exist.
    """
    if n < 1:
        raise InputError(f"n must be >= 1, got {n}.")
    copies = math.floor(min(cap, 1.0) * n * (1.0 + 1e-9))
    if copies * m < n:
        raise InputError(
            f"{n} picks of weight 1/{n} from {m} rows do not fit under a cap of {cap:.6g}: "
            f"raise the cap to {math.ceil(n / m) / n:.6g} or ask for fewer rows."
        )
    return copies


def effective_sample_size(w: ArrayLike) -> float:
    """Return 1 / sum w_i^2: the number of equal weights with the same variance (Kish).

    Args:
        w: (m,) >= 0, sum 1.

    Returns:
        A number in [1, m].

    Raises:
        InputError: if the weights are not on the simplex.
    """
    weights = as_weights(w, np.asarray(w).size, "w")
    return float(1.0 / (weights @ weights))


def _cut(weights: FloatArray, cap: float) -> FloatArray:
    """Scale up the weights below the cap until all sum to 1 again; cap * support >= 1."""
    if weights.max() <= cap * (1.0 + _ROUND_OFF / 2):
        return weights
    order = np.argsort(-weights, kind="stable")
    sorted_weights = weights[order]
    rest = np.cumsum(sorted_weights[::-1])[::-1]
    # With the `at` largest at the cap, the others share 1 - at * cap; the first `at` for which the largest of them fits.
    at = np.arange(len(weights))
    with np.errstate(all="ignore"):
        scale = (1.0 - at * cap) / rest
        fits = (rest > 0) & (scale * sorted_weights <= cap * (1.0 + _ROUND_OFF / 2))
    n_full = int(np.argmax(fits)) if fits.any() else int(np.count_nonzero(weights))
    cut = np.zeros_like(weights)
    cut[order[:n_full]] = cap
    if fits.any():
        cut[order[n_full:]] = np.minimum(sorted_weights[n_full:] * max(scale[n_full], 0.0), cap)
    shared: FloatArray = cut / cut.sum()
    return shared
