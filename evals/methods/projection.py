"""The paper's alignment: weights that match the mean of the real rows under random projections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evals.methods.base import Weighted, draw, product_kernel
from synalign_agent.config import AlignConfig
from synalign_agent.core.arrays import Array
from synalign_agent.core.baselines.projection import projection


def select(
    X_pool: Array, X_ref: Array, texts_pool: Sequence[str], texts_ref: Sequence[str], n: int, rng: np.random.Generator
) -> Weighted:
    """Weigh within the cap 1 / n by `core.baselines.projection` and draw n rows (a `base.Select`)."""
    fit = projection(
        X_pool, X_ref, n=n, cap=1.0 / n, kernel=product_kernel(X_ref), rng=rng, tolerance=AlignConfig().tolerance
    )
    return draw(fit.w, n, rng)
