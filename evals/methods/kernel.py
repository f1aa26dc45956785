"""Ours: exact weights of least MMD under a cap, systematic resampling and exchanges, as the product does it for each label.

`core.alignment.align_pool` does the same for all labels and scores the result; the evals score all methods alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evals.methods.base import Weighted, product_kernel
from synalign_agent.config import AlignConfig
from synalign_agent.core.align import fit_weights
from synalign_agent.core.arrays import Array, FloatArray
from synalign_agent.core.resample import resample
from synalign_agent.core.swaps import improve_by_swaps


def select(
    X_pool: Array, X_ref: Array, texts_pool: Sequence[str], texts_ref: Sequence[str], n: int, rng: np.random.Generator
) -> Weighted:
    """Weigh within the cap 1 / n, draw n rows, exchange rows while that lowers the MMD to the reference (a `base.Select`)."""
    kernel = product_kernel(X_ref)
    fit = fit_weights(X_pool, X_ref, kernel, cap=1.0 / n, tolerance=AlignConfig().tolerance, rng=rng)
    drawn = resample(fit.w, n, rng, max_copies=1).copies
    return Weighted(fit.w, np.flatnonzero(improve_by_swaps(X_pool, drawn, kernel, fit.k_sr).copies))


def weights_at(X_pool: Array, X_ref: Array, ess: float) -> FloatArray:
    """Return the weights (m,) of least MMD among those with an effective sample size of at least `ess`, in [1, m]."""
    fit = fit_weights(
        X_pool, X_ref, product_kernel(X_ref), cap=1.0, tolerance=AlignConfig().tolerance, min_ess=min(ess, len(X_pool))
    )
    return fit.w
