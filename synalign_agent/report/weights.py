"""The sampling weights as numbers: how evenly they are spread over the pool."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synalign_agent.core.resample import effective_sample_size

_N_BINS = 16
_ZERO = 1e-3
"""Relative to equal weights: below, a row plays no part."""


def weight_distribution(weights: NDArray[np.float64]) -> dict[str, Any]:
    """Describe weights in units of equal ones.

    Args:
        weights: (m,) sampling weights over the pool, >= 0.

    Returns:
        `n`; `n_zero` (rows with less than a thousandth of an equal weight); `largest` (1 if all are equal); `ess`, and
        `ess_share`, its share of the pool; and `histogram` with `edges` (17) and `counts` (16) of the rows above zero. All but
        `n` are None where nothing was weighed.
    """
    n = len(weights)
    total = float(weights.sum())
    if n == 0 or total <= 0:
        return {"n": n, **dict.fromkeys(("n_zero", "largest", "ess", "ess_share", "histogram"))}
    shares = weights / total
    times_equal = shares * n
    above = times_equal[times_equal > _ZERO]
    counts, edges = np.histogram(above, bins=_N_BINS, range=(0.0, float(above.max())))
    ess = effective_sample_size(shares)
    return {
        "n": n,
        "n_zero": int(n - len(above)),
        "largest": float(above.max()),
        "ess": ess,
        "ess_share": ess / n,
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }
