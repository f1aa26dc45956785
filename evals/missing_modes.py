"""Which kinds of real rows a selection lacks, in words that may be published: no row of the data is quoted."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from evals.datasets import Benchmark
from evals.methods.base import product_kernel
from synalign_agent.core import alignment
from synalign_agent.core.arrays import Array, IntArray
from synalign_agent.core.gap_map import Gap, gap_map, region_count
from synalign_agent.stores.vectors import kmeans_medoids

_EXAMPLES = 40
"""Rows of a region that its words are taken from."""
_WORDS = 6
_LEAST_ROWS = 3
"""Of the examples, with the word: what only one row says is no kind."""
_MODES = 10


def find(
    benchmark: Benchmark, X_ref: Array, X_pool: Array, X_test: Array, pool_rows: IntArray, selected: IntArray
) -> list[dict[str, Any]]:
    """List the regions where a selection has less mass than the test rows (`core.gap_map`), by their part of the MMD^2.

    Args:
        benchmark: labels and texts.
        X_ref: (n, d) of all its reference rows; regions are cut there.
        X_pool: (m, d) of its pool.
        X_test: (h, d) of its test rows; masses are those of the test rows.
        pool_rows: pool rows that could be selected.
        selected: those that were.

    Returns:
        label, words that are common there and rare elsewhere in the label, and shares of test rows, selection and pool.
    """
    reference = alignment.Rows(X_ref, benchmark.ref.labels)
    scoring = alignment.Rows(X_test, benchmark.test.labels)
    pool = alignment.Rows(X_pool[pool_rows], benchmark.pool.labels[pool_rows])
    copies = np.isin(pool_rows, selected).astype(np.int64)
    centres: list[int] = []
    for label in range(len(benchmark.label_names)):
        rows = np.flatnonzero(benchmark.ref.labels == label)
        n_regions = region_count(int((benchmark.test.labels == label).sum()))
        centres += rows[kmeans_medoids(X_ref[rows], n_regions, 0)].tolist()
    prior = np.full(len(benchmark.label_names), 1.0 / len(benchmark.label_names))
    gaps = gap_map(
        reference,
        scoring,
        pool,
        copies,
        centres,
        product_kernel(X_ref),
        prior=prior,
        n_examples=_EXAMPLES,
        max_gaps=_MODES,
    )
    return [
        {
            "label": benchmark.label_names[gap.label],
            "words": _words(benchmark, gap),
            "test": gap.mass,
            "selected": gap.synthetic_mass,
            "pool": gap.pool_mass,
            "witness": gap.witness,
        }
        for gap in gaps
    ]


def _words(benchmark: Benchmark, gap: Gap) -> list[str]:
    """Return words that more rows of the region have than rows of the label do, by the difference of the logarithms."""
    of_label = benchmark.ref.take(benchmark.ref.labels == gap.label).texts
    examples = [benchmark.ref.texts[row] for row in gap.examples]
    counter = CountVectorizer(binary=True, stop_words="english", token_pattern=r"(?u)\b[^\W\d]{3,}\b")
    in_label = np.asarray(counter.fit_transform(of_label).sum(axis=0)).ravel()
    inside = np.asarray(counter.transform(examples).sum(axis=0)).ravel()
    lift = np.log((inside + 0.5) / len(examples)) - np.log((in_label + 0.5) / len(of_label))
    # How telling a word is, times how many rows have it.
    score = np.where(inside >= _LEAST_ROWS, inside * lift, -np.inf)
    best = np.argsort(-score, kind="stable")[:_WORDS]
    names = counter.get_feature_names_out()
    return [str(names[word]) for word in best if np.isfinite(score[word])]
