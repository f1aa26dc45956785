"""Rows of the pool as they come: what there is without alignment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evals.methods.base import Weighted, chosen
from synalign_agent.core.arrays import Array


def select(
    X_pool: Array, X_ref: Array, texts_pool: Sequence[str], texts_ref: Sequence[str], n: int, rng: np.random.Generator
) -> Weighted:
    """Select n rows at random (a `base.Select`)."""
    return chosen(rng.choice(len(X_pool), n, replace=False), len(X_pool))
