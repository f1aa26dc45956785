"""Ours: what the product does with the rows of a label. Between labels it does more, which `evals/training_sets.py` uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evals.methods.base import Weighted, product_kernel, product_options
from synalign_agent.config import AlignConfig
from synalign_agent.core.align import fit_weights
from synalign_agent.core.arrays import Array, FloatArray
from synalign_agent.core.pool_choice import Rows, choose_rows


def select(
    X_pool: Array, X_ref: Array, texts_pool: Sequence[str], texts_ref: Sequence[str], n: int, rng: np.random.Generator
) -> Weighted:
    """Weigh within the cap 1 / n, draw n rows, exchange rows while that lowers the MMD to the reference (a `base.Select`)."""
    pool, real = (Rows(X, np.zeros(len(X), dtype=np.intp)) for X in (X_pool, X_ref))
    choice = choose_rows(
        pool, real, product_kernel(X_ref), prior=np.ones(1), quotas=np.array([n]), rng=rng,
        options=product_options(),
    )  # fmt: skip
    return Weighted(choice.weights, np.flatnonzero(choice.copies))


def weights_at(X_pool: Array, X_ref: Array, ess: float) -> FloatArray:
    """Return the weights (m,) of least MMD among those with an effective sample size of at least `ess`, in [1, m]."""
    fit = fit_weights(
        X_pool, X_ref, product_kernel(X_ref), cap=1.0, tolerance=AlignConfig().tolerance, min_ess=min(ess, len(X_pool))
    )
    return fit.w
