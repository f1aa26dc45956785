"""Kernel herding (Chen, Welling and Smola, UAI 2010) within the pool, without replacement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evals.methods.base import Weighted, chosen, product_kernel
from synalign_agent.config import AlignConfig
from synalign_agent.core.arrays import Array
from synalign_agent.core.baselines.herding import herding


def select(
    X_pool: Array, X_ref: Array, texts_pool: Sequence[str], texts_ref: Sequence[str], n: int, rng: np.random.Generator
) -> Weighted:
    """Pick n rows one by one towards the real mean embedding (a `base.Select`)."""
    fit = herding(
        X_pool, X_ref, n=n, cap=1.0 / n, kernel=product_kernel(X_ref), rng=rng, tolerance=AlignConfig().tolerance
    )
    return chosen(np.flatnonzero(fit.w), len(X_pool))
