"""What a way to weigh and select synthetic rows is to the evals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from synalign_agent.config import AlignConfig
from synalign_agent.core.arrays import Array, FloatArray, IntArray
from synalign_agent.core.kernels import RBFMixture, median_distance
from synalign_agent.core.pool_choice import ChoiceOptions, PoolChoice
from synalign_agent.core.resample import resample


class Weighted(NamedTuple):
    """What a method makes of the pool rows of one label."""

    weights: FloatArray
    """(m,) >= 0, sum 1: the method's own weights, before anything is drawn; uniform on what is chosen where it only chooses."""
    selected: IntArray
    """(n,) distinct pool rows, in order; fewer where the pool, or what has weight, is smaller."""


class Select(Protocol):
    """A method, called label by label."""

    def __call__(
        self,
        X_pool: Array,
        X_ref: Array,
        texts_pool: Sequence[str],
        texts_ref: Sequence[str],
        n: int,
        rng: np.random.Generator,
    ) -> Weighted:
        """Weigh synthetic rows by real ones and select n.

        Args:
            X_pool: (m, d) unit vectors of synthetic rows.
            X_ref: (h, d) unit vectors of real rows.
            texts_pool: (m,) their texts.
            texts_ref: (h,) their texts.
            n: rows to select, 1 <= n <= m.
            rng: of all randomness.
        """
        ...


def product_kernel(X_ref: Array) -> RBFMixture:
    """Return the kernel that the product would fit with: its multiples of the median distance of the reference rows (h, d)."""
    scale = median_distance(X_ref, np.random.default_rng(0))
    return RBFMixture(tuple(scale * factor for factor in AlignConfig().lengthscale_multipliers))


def product_options(**changes: Any) -> ChoiceOptions:
    """Return the options that the product chooses with by default, and some that differ."""
    config = AlignConfig()
    options = ChoiceOptions(
        objective=config.objective, max_copies=config.max_copies, min_ess=config.min_ess, swaps=config.swaps,
        contrast_shrinkage=config.contrast_shrinkage, max_label_odds=config.max_label_odds, tolerance=config.tolerance,
    )  # fmt: skip
    return replace(options, **changes)


def by_label(choice: PoolChoice, labels: IntArray, n_labels: int) -> list[Weighted]:
    """Return what was chosen of each label's part of a pool with these labels (m,); every label has something chosen."""
    parts = (np.flatnonzero(labels == label) for label in range(n_labels))
    return [
        Weighted(choice.weights[rows] / choice.weights[rows].sum(), np.flatnonzero(choice.copies[rows]))
        for rows in parts
    ]


def draw(weights: FloatArray, n: int, rng: np.random.Generator) -> Weighted:
    """Select n rows without replacement with probabilities proportional to weights (m,), cut where a row would come twice."""
    return Weighted(weights, np.flatnonzero(resample(weights, n, rng, max_copies=1).copies))


def chosen(selected: IntArray, m: int) -> Weighted:
    """Return a selection of m rows with uniform weights on it."""
    weights = np.zeros(m)
    weights[selected] = 1.0 / len(selected)
    return Weighted(weights, np.sort(selected))
