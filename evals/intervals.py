"""Means over seeds with 95 % intervals: of one condition, or of the differences of two on the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
BOOTSTRAP_SEEDS = 10
"""Least values for a bootstrap. Below, Student's t: for normal values the percentile interval of five covers the mean 83 times
in 100 and not 95, of ten 90 times; t covers it 95 times whatever their number."""
_RESAMPLES = 10_000


class Interval(NamedTuple):
    """A mean and where it may be."""

    n: int
    """Values, one a seed."""
    mean: float
    low: float | None
    """None for a single value, whose spread nobody knows."""
    high: float | None
    method: str
    """`t`, `bootstrap` (percentile), or `none` for a single value."""

    @property
    def excludes_zero(self) -> bool:
        """Return whether the mean is above or below 0 beyond noise; False where the interval is not known."""
        return self.low is not None and self.high is not None and (self.low > 0.0 or self.high < 0.0)


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of values (n >= 1, finite) of independent seeds, with its 95 % interval."""
    found = np.asarray(values, dtype=np.float64)
    n, mean = len(found), float(found.mean())
    if n == 1:
        return Interval(1, mean, None, None, "none")
    if n < BOOTSTRAP_SEEDS:
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2.0, n - 1) * found.std(ddof=1) / math.sqrt(n))
        return Interval(n, mean, mean - half, mean + half, "t")
    draws = np.random.default_rng(0).integers(n, size=(_RESAMPLES, n))
    low, high = np.quantile(found[draws].mean(axis=1), [0.5 - CONFIDENCE / 2.0, 0.5 + CONFIDENCE / 2.0])
    return Interval(n, mean, float(low), float(high), "bootstrap")
