"""The copy check in numbers: how near the dataset comes to real rows, beside how near real rows come to each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synalign_agent.core.strata import some_rows
from synalign_agent.stores.vectors import VectorStore

_MOST_REAL_ROWS = 1000
_QUANTILE = 0.95


def copy_check(
    similarities: NDArray[np.float64], copies: NDArray[np.int64], real_vectors: VectorStore, rng: np.random.Generator
) -> dict[str, Any]:
    """Describe the similarity of each row to its nearest real row.

    Args:
        similarities: (n,) cosine of each distinct row of the dataset to its nearest real row.
        copies: (n,) how often the row is in the dataset, >= 1.
        real_vectors: all real rows.
        rng: draws the 1,000 real rows that stand for all.

    Returns:
        `selected` and `real` (each real row beside its nearest other one), with `n`, `median`, `p95` and `max`, which are None
        without rows; and `share_above_real_p95`: 0.05 is what as many new real rows would have.
    """
    rows = some_rows(np.arange(len(real_vectors)), _MOST_REAL_ROWS, rng)
    among_real = np.empty(0)
    if len(real_vectors) > 1:
        found, cosines = real_vectors.search(real_vectors.matrix[rows], 2)
        # The row itself is the nearest, unless another one has the same vector; that one is as near.
        itself = found[:, 0] == rows
        among_real = np.where(itself, cosines[:, 1], cosines[:, 0]).astype(np.float64)
    selected = np.repeat(similarities, copies)
    real = _described(among_real)
    above = float((selected > real["p95"]).mean()) if len(selected) and real["p95"] is not None else None
    return {"selected": _described(selected), "real": real, "share_above_real_p95": above}


def _described(values: NDArray[np.float64]) -> dict[str, Any]:
    if len(values) == 0:
        return {"n": 0, "median": None, "p95": None, "max": None}
    return {
        "n": len(values),
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, _QUANTILE)),
        "max": float(values.max()),
    }
