"""Density-ratio weights from a classifier that tells real rows from synthetic ones (Sugiyama, Suzuki and Kanamori, 2012)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from evals.methods.base import Weighted, draw
from synalign_agent.core.arrays import Array


def select(
    X_pool: Array, X_ref: Array, texts_pool: Sequence[str], texts_ref: Sequence[str], n: int, rng: np.random.Generator
) -> Weighted:
    """Weigh by p / (1 - p), p the probability that a row is real by logistic regression, and draw n (a `base.Select`)."""
    X = np.concatenate([X_ref, X_pool])
    is_real = np.arange(len(X)) < len(X_ref)
    # Balanced, so that the two sides count alike however many rows they have; the constant it changes cancels.
    model = LogisticRegression(max_iter=1000, class_weight="balanced").fit(X, is_real)
    return draw(np.exp(log_softmax(model.decision_function(X_pool).astype(np.float64))), n, rng)
