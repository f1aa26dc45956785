"""Ours as a session does it: labels are not chosen one by one, because what tells them apart decides what trains a classifier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evals.methods.base import Weighted, by_label, product_kernel, product_options
from synalign_agent.core.arrays import Array
from synalign_agent.core.pool_choice import Rows, choose_rows


def select_all(X_pool: Sequence[Array], X_ref: Sequence[Array], n: int, rng: np.random.Generator) -> list[Weighted]:
    """Weigh and select n rows of every label with the product's defaults: shrunk contrast, no rows of doubtful label.

    Args:
        X_pool: for each label, (m, d) unit vectors of synthetic rows.
        X_ref: for each label, (h, d) unit vectors of real rows.
        n: rows to select of each label.
        rng: of all randomness.
    """
    pool, real = (
        Rows(np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts]))
        for parts in (X_pool, X_ref)
    )
    n_labels = len(X_pool)
    choice = choose_rows(
        pool, real, product_kernel(real.X), prior=np.full(n_labels, 1.0 / n_labels), quotas=np.full(n_labels, n), rng=rng,
        options=product_options(),
    )  # fmt: skip
    return by_label(choice, pool.label, n_labels)
