"""Nearest-real voting, the selection step of Private Evolution (Lin et al., ICLR 2024), without its noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evals.methods.base import Weighted, draw
from synalign_agent.core.arrays import Array

_MORE_RANKS = 2
"""How many more nearest rows get a vote when too few have one."""


def select(
    X_pool: Array, X_ref: Array, texts_pool: Sequence[str], texts_ref: Sequence[str], n: int, rng: np.random.Generator
) -> Weighted:
    """Let every real row vote for its nearest synthetic rows and draw n by votes (a `base.Select`).

    In the paper a row votes for the nearest one, and rows are drawn with replacement. Here rows are distinct, so where fewer
    than n would have a vote, every real row votes for its nearest 2, 4, 8, ... rows, the fewest that suffice.
    """
    similarity = X_ref @ X_pool.T
    ranks = 1
    while True:
        nearest = np.argpartition(-similarity, ranks - 1, axis=1)[:, :ranks]
        votes = np.bincount(nearest.ravel(), minlength=len(X_pool))
        if np.count_nonzero(votes) >= n:
            return draw(votes / votes.sum(), n, rng)
        ranks = min(_MORE_RANKS * ranks, len(X_pool))
