"""Training sets: some real rows, and synthetic rows that were chosen, weighed or spoilt in different ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from evals.datasets import Benchmark
from evals.methods.base import Weighted, by_label, product_kernel, product_options
from synalign_agent.core.arrays import Array, FloatArray, IntArray
from synalign_agent.core.block_sums import BLOCK_ROWS, weighted_means
from synalign_agent.core.pool_choice import Rows as LabelledRows
from synalign_agent.core.pool_choice import choose_rows
from synalign_agent.core.resample import resample

REAL, REPEATED, RAW = "real", "repeated", "raw"
ALIGNED, LOSS_WEIGHTS, SHUFFLED, ANTI_ALIGNED = "aligned", "loss_weights", "shuffled", "anti_aligned"
FULL_CONTRAST, UNCHECKED = "full_contrast", "unchecked"
LABELS = {
    REAL: "real rows alone",
    REPEATED: "real rows, repeated",
    RAW: "+ random synthetic rows",
    SHUFFLED: "+ synthetic rows by shuffled weights",
    ANTI_ALIGNED: "+ synthetic rows least like the reference",
    ALIGNED: "+ aligned rows",
    LOSS_WEIGHTS: "+ aligned, as loss weights",
    FULL_CONTRAST: "+ aligned, contrast as it is",
    UNCHECKED: "+ aligned, labels as they are",
}
"""What is trained on, in the order of tables."""
NEED_REFERENCE = (ALIGNED, LOSS_WEIGHTS, SHUFFLED, ANTI_ALIGNED, FULL_CONTRAST, UNCHECKED)


_CHANGES: dict[str, dict[str, Any]] = {
    FULL_CONTRAST: {"contrast_shrinkage": False},
    UNCHECKED: {"max_label_odds": None},
}
"""Variant of alignment -> how it differs from the product."""


class Source(NamedTuple):
    """Where rows come from."""

    benchmark: Benchmark
    X_ref: Array
    X_pool: Array

    @property
    def n_labels(self) -> int:
        """Return L."""
        return len(self.benchmark.label_names)


class TrainingSet(NamedTuple):
    """Rows of the reference and of the pool, and the weights of their losses."""

    real: IntArray
    """Reference rows; a row that is repeated comes more than once."""
    synthetic: IntArray
    """Pool rows."""
    weights: FloatArray
    """(real + synthetic,) >= 0; 1 for a row that counts once."""


class Aligned(NamedTuple):
    """What alignment made of the pool, for one reference and one number of rows."""

    per_label: tuple[Weighted, ...]
    """In the order of labels; rows are those of the label's part of the pool."""
    reference: IntArray
    """Reference rows that were fitted to."""


def draw_real(source: Source, k: int | None, rng: np.random.Generator) -> IntArray:
    """Return k reference rows of every label, or all rows for None."""
    labels = source.benchmark.ref.labels
    if k is None:
        return np.arange(len(labels))
    return np.concatenate(
        [
            rng.choice(rows, min(k, len(rows)), replace=False)
            for rows in (np.flatnonzero(labels == label) for label in range(source.n_labels))
        ]
    )


def alignment_of(arm: str) -> str:
    """Return which alignment an arm of `NEED_REFERENCE` uses: the product's, or the variant that the arm is named after."""
    return arm if arm in (FULL_CONTRAST, UNCHECKED) else ALIGNED


def align(source: Source, reference: IntArray, m: int, variant: str, rng: np.random.Generator) -> Aligned:
    """Weigh and select m pool rows, equally many of every label.

    Args:
        source: the rows.
        reference: reference rows to fit to, at least one of every label.
        m: rows to select in all.
        variant: `ALIGNED` as the product does it; `FULL_CONTRAST` without `contrast.shrink_contrast`; `UNCHECKED` with the pool
            rows that `label_odds.doubtful_rows` leaves out.
        rng: of the draw.
    """
    pool = LabelledRows(source.X_pool, source.benchmark.pool.labels)
    real = LabelledRows(source.X_ref[reference], source.benchmark.ref.labels[reference])
    places = [_pool_rows(source, label) for label in range(source.n_labels)]
    choice = choose_rows(
        pool, real, product_kernel(real.X), prior=np.full(source.n_labels, 1.0 / source.n_labels),
        quotas=np.array([_quota(source, m, rows) for rows in places]), rng=rng,
        options=product_options(**_CHANGES.get(variant, {})),
    )  # fmt: skip
    return Aligned(tuple(by_label(choice, pool.label, source.n_labels)), reference)


def training_set(
    arm: str, source: Source, real: IntArray, m: int, rng: np.random.Generator, aligned: Aligned | None
) -> TrainingSet:
    """Put a training set together.

    Args:
        arm: one of `LABELS`.
        source: the rows.
        real: reference rows to train on; may be empty.
        m: synthetic rows to add; 0 for `real`.
        rng: of what is drawn.
        aligned: for the arms in `NEED_REFERENCE`, by `alignment_of` the arm.
    """
    if arm == REAL:
        return _counted(real, np.zeros(0, dtype=np.intp))
    if arm == REPEATED:
        return _counted(np.resize(rng.permutation(real), len(real) + m), np.zeros(0, dtype=np.intp))
    if arm == RAW:
        return _counted(real, _by_label(source, lambda label, rows: rng.choice(rows, _quota(source, m, rows), False)))
    assert aligned is not None
    if arm == LOSS_WEIGHTS:
        return _weighted(source, real, m, aligned)
    if arm in (ALIGNED, FULL_CONTRAST, UNCHECKED):
        return _counted(real, _by_label(source, lambda label, rows: rows[aligned.per_label[label].selected]))
    choose = {
        SHUFFLED: lambda label, rows: _shuffled(rows, aligned.per_label[label], _quota(source, m, rows), rng),
        ANTI_ALIGNED: lambda label, rows: _least_like(source, aligned, label, rows, _quota(source, m, rows)),
    }[arm]
    return _counted(real, _by_label(source, choose))


def _counted(real: IntArray, synthetic: IntArray) -> TrainingSet:
    return TrainingSet(real, synthetic, np.ones(len(real) + len(synthetic)))


def _weighted(source: Source, real: IntArray, m: int, aligned: Aligned) -> TrainingSet:
    """Take every row with weight; the weights of a label's rows sum to as many rows as would be selected."""
    rows, weights = [], []
    for label, found in enumerate(aligned.per_label):
        pool, has_weight = _pool_rows(source, label), np.flatnonzero(found.weights)
        rows.append(pool[has_weight])
        weights.append(found.weights[has_weight] * _quota(source, m, pool))
    return TrainingSet(real, np.concatenate(rows), np.concatenate([np.ones(len(real)), *weights]))


def _shuffled(rows: IntArray, found: Weighted, n: int, rng: np.random.Generator) -> IntArray:
    """Draw by the same weights, dealt to other rows of the label: what the weights' unevenness does by itself."""
    return rows[np.flatnonzero(resample(rng.permutation(found.weights), n, rng, max_copies=1).copies)]


def _least_like(source: Source, aligned: Aligned, label: int, rows: IntArray, n: int) -> IntArray:
    """Return the n rows with the lowest mean kernel value with the reference: alignment, backwards."""
    reference = aligned.reference[source.benchmark.ref.labels[aligned.reference] == label]
    X = source.X_ref[reference]
    nearness = weighted_means(source.X_pool[rows], X, np.full(len(X), 1.0 / len(X)), product_kernel(X), BLOCK_ROWS)
    return rows[np.argsort(nearness, kind="stable")[:n]]


def _by_label(source: Source, choose: Callable[[int, IntArray], IntArray]) -> IntArray:
    return np.concatenate([choose(label, _pool_rows(source, label)) for label in range(source.n_labels)])


def _pool_rows(source: Source, label: int) -> IntArray:
    return np.flatnonzero(source.benchmark.pool.labels == label)


def _quota(source: Source, m: int, rows: IntArray) -> int:
    return min(m // source.n_labels, len(rows))
