"""k-means medoids of unit vectors: the baseline that covers the average rather than the extremes."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from synalign_agent.errors import InputError
from synalign_agent.stores.unit_vectors import BLOCK_ROWS, Vectors, unit_float32

_PASSES = 20
_ROWS_PER_CENTRE = 256  # what FAISS takes for enough
_LEAST_TRAINING_ROWS, _MOST_TRAINING_ROWS = 32_768, 131_072
_LEAST_ROWS_PER_CENTRE = 39


def kmeans_medoids(X: NDArray[np.floating[Any]], k: int, seed: int) -> list[int]:
    """Return the rows nearest to the k centres of spherical k-means (FAISS), largest cluster first.

    The centres are trained on all rows up to 32,768, then on a seeded sample of 256 rows a centre within
    [32,768, 131,072] (never under 39 a centre); sizes and medoids are of all rows.

    Args:
        X: (n, d), finite, no zero row; read in blocks, not copied as a whole.
        k: centres, >= 1.
        seed: of the sample and the first centres.

    Returns:
        At most min(k, n) distinct rows: empty clusters have no medoid, and two centres may share theirs. The lowest row
        wins ties. Time O(k d (20 sample + n)); memory: the sample, and blocks of 16,384 x k.

    Raises:
        InputError: k < 1, X has no rows, or a row is zero or not finite.
    """
    n = len(X)
    if n == 0 or k < 1:
        raise InputError(f"k-means needs at least one row and one centre, got {n} rows and k = {k}.")
    k = min(k, n)
    most = max(min(max(_ROWS_PER_CENTRE * k, _LEAST_TRAINING_ROWS), _MOST_TRAINING_ROWS), _LEAST_ROWS_PER_CENTRE * k)
    sample = slice(None) if n <= most else np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
    training = unit_float32(X[sample])
    kmeans = faiss.Kmeans(
        X.shape[1], k, niter=_PASSES, seed=seed % 2**31, spherical=True, verbose=False,
        min_points_per_centroid=1, max_points_per_centroid=len(training),
    )  # fmt: skip
    kmeans.train(training)
    centres: Vectors = np.asarray(kmeans.centroids, dtype=np.float32)
    sizes = np.zeros(k, dtype=np.int64)
    medoids = np.zeros(k, dtype=np.int64)
    nearest = np.full(k, -np.inf, dtype=np.float32)
    for start in range(0, n, BLOCK_ROWS):
        similarities = unit_float32(X[start : start + BLOCK_ROWS]) @ centres.T
        sizes += np.bincount(similarities.argmax(axis=1), minlength=k)
        rows = similarities.argmax(axis=0)
        best = similarities[rows, np.arange(k)]
        better = best > nearest
        medoids[better], nearest[better] = start + rows[better], best[better]
    order = np.argsort(-sizes, kind="stable")
    return list(dict.fromkeys(int(medoids[centre]) for centre in order if sizes[centre] > 0))
