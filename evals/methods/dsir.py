"""DSIR: importance resampling with bags of hashed n-grams (Xie et al., NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax
from sklearn.feature_extraction.text import HashingVectorizer

from evals.methods.base import Weighted
from synalign_agent.core.arrays import Array, FloatArray

_BUCKETS = 10_000
"""The paper's."""
_SMOOTHING = 1.0
"""Added to every bucket: a few short reference texts fill a small part of them."""


def select(
    X_pool: Array, X_ref: Array, texts_pool: Sequence[str], texts_ref: Sequence[str], n: int, rng: np.random.Generator
) -> Weighted:
    """Weigh by the ratio of two multinomial models of words and word pairs, and draw n by Gumbel top-k (a `base.Select`).

    Texts are lower-cased: pools often are, and case is not what they are to be weighed by.
    """
    hashed = HashingVectorizer(ngram_range=(1, 2), n_features=_BUCKETS, alternate_sign=False, norm=None)
    pool, ref = hashed.transform(texts_pool), hashed.transform(texts_ref)
    log_ratio = pool @ (_log_shares(ref) - _log_shares(pool))
    log_weights = log_softmax(np.asarray(log_ratio, dtype=np.float64))
    selected = np.argsort(-(log_weights + rng.gumbel(size=len(log_weights))), kind="stable")[:n]
    return Weighted(np.exp(log_weights), np.sort(selected))


def _log_shares(counts: object) -> FloatArray:
    """Return (buckets,) logarithms of the smoothed shares of n-grams of a sparse (texts, buckets) matrix of counts."""
    totals = np.asarray(counts.sum(axis=0)).ravel() + _SMOOTHING  # type: ignore[attr-defined]
    shares: FloatArray = np.log(totals / totals.sum())
    return shares
