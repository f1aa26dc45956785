"""Where the rows lie on the map: two directions (PCA), or neighbourhoods (t-SNE)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import FloatArray

MAX_ITERATIONS = 500
_N_COMPONENTS = 30
_PERPLEXITY = 30.0
_LEAST_ROWS = 10


def project_2d(reference: ArrayLike, others: Sequence[ArrayLike]) -> list[FloatArray]:
    """Project on the two directions in which the real rows vary most (PCA).

    Args:
        reference: (n, d) real rows; the directions and the origin come from them alone.
        others: arrays (k, d), each possibly empty.

    Returns:
        (n, 2) and then a (k, 2) for each of `others`. A direction in which the real rows do not vary is all 0. The sign
        is fixed: the largest loading of a direction is positive.
    """
    X = np.asarray(reference, dtype=np.float64)
    if not len(X):
        return [np.zeros((len(np.asarray(rows)), 2)) for rows in (reference, *others)]
    center = X.mean(axis=0)
    _, spread, directions = np.linalg.svd(X - center, full_matrices=False)
    axes = np.zeros((X.shape[1], 2))
    n_axes = min(2, int((spread > 1e-9 * max(float(np.abs(X).max()), 1e-300) * math.sqrt(X.size)).sum()))
    for place in range(n_axes):
        direction = directions[place]
        axes[:, place] = direction * np.sign(direction[np.argmax(np.abs(direction))])
    return [(np.asarray(rows, dtype=np.float64).reshape(-1, X.shape[1]) - center) @ axes for rows in (X, *others)]


def neighbourhoods(reference: ArrayLike, others: Sequence[ArrayLike]) -> list[FloatArray] | None:
    """Lay out all rows together so that near rows stay near (t-SNE, van der Maaten and Hinton, JMLR 2008).

    It starts from PCA and draws nothing at random, so that the same rows give the same map. Time grows as n log n: about 5 s
    for 1,500 rows. Sizes of groups and distances between them mean nothing.

    Args:
        reference: (n, d) real rows.
        others: arrays (k, d), each possibly empty.

    Returns:
        (n, 2) and a (k, 2) for each of `others`; None for fewer than 10 rows, or rows that are all the same.
    """
    groups = [np.asarray(rows, dtype=np.float64) for rows in (reference, *others)]
    sizes = [len(rows) for rows in groups]
    X = np.concatenate([rows for rows in groups if len(rows)]) if sum(sizes) else np.zeros((0, 1))
    n = len(X)
    if n < _LEAST_ROWS:
        return None
    from sklearn.manifold import TSNE

    directions, spread, _ = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    if spread[0] <= 1e-9 * max(float(np.abs(X).max()), 1e-300) * math.sqrt(X.size):
        return None
    n_components = min(_N_COMPONENTS, len(spread))
    components = directions[:, :n_components] * spread[:n_components]
    start = components[:, :2] / components[:, 0].std() * 1e-4  # as scikit-learn scales its own PCA start
    if start.shape[1] < 2:
        start = np.column_stack([start, np.zeros(n)])
    found = TSNE(
        2, perplexity=min(_PERPLEXITY, (n - 1) / 3), init=start.astype(np.float32), max_iter=MAX_ITERATIONS,
        random_state=0, n_jobs=1,
    ).fit_transform(components.astype(np.float32))  # fmt: skip
    ends = np.cumsum(sizes)[:-1]
    return [np.asarray(part, dtype=np.float64) for part in np.split(found, ends)]
