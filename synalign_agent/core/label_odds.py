"""Which pool rows carry a label that the reference speaks against.

Rows that belong to another label are few in a good pool and many in a bad one, and weights of least MMD within a label keep some
of them: those that make up for what the label's other rows lack. A classifier trained on the selection learns them as they are
labelled. The odds come from a logistic regression on the reference rows. Its penalty makes it modest where rows are few, so that
the same bound on the odds rejects next to nothing with five rows a label and what is plainly wrong with thousands.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synalign_agent.core.arrays import Array, FloatArray, IntArray
from synalign_agent.core.parallel import one_blas_thread
from synalign_agent.core.strata import some_rows

_INVERSE_PENALTY = 1.0
_MOST_ITERATIONS, _TOLERANCE = 300, 1e-3
_MOST_ROWS = 10_000
"""Of the reference: a thousand rows a label tell all that a linear boundary in a few hundred dimensions can use."""


def label_probabilities(
    X_train: Array,
    labels: IntArray,
    weights: FloatArray,
    X_test: Array,
    n_labels: int,
    *,
    inverse_penalty: float = _INVERSE_PENALTY,
) -> NDArray[np.float64]:
    """Fit a logistic regression to weighted rows and return the probabilities of the labels of other rows.

    Args:
        X_train: (n, d) unit vectors.
        labels: (n,) in [0, n_labels), at least two of them present.
        weights: (n,) >= 0, weights of the rows' losses; their sum counts against the penalty, as rows would.
        X_test: (t, d).
        n_labels: L.
        inverse_penalty: scikit-learn's C, > 0.

    Returns:
        (t, L); 0 for labels that no training row has.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=inverse_penalty, max_iter=_MOST_ITERATIONS, tol=_TOLERANCE)
    # BLAS threads that wait for each other make fits of this size fifty times slower on a busy machine.
    with one_blas_thread():
        model.fit(X_train, labels, sample_weight=weights)
        found = model.predict_proba(X_test)
    probabilities = np.zeros((len(X_test), n_labels))
    probabilities[:, model.classes_] = found
    return probabilities


def doubtful_rows(
    X_pool: Array,
    pool_labels: IntArray,
    X_ref: Array,
    ref_labels: IntArray,
    *,
    max_odds: float,
    at_least: IntArray,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Mark pool rows for which some other label is more than `max_odds` times as probable as their own.

    Labels count alike whatever their frequency: a rare one is not outvoted by its rarity.

    Args:
        X_pool: (m, d).
        pool_labels: (m,) in [0, L).
        X_ref: (n, d) reference rows; more than 10,000 are represented by a random 10,000 of them.
        ref_labels: (n,) in [0, L).
        max_odds: >= 1.
        at_least: (L,) rows of each label that stay unmarked, those of the least odds, however bad they are.
        rng: draws the rows that stand for the reference.

    Returns:
        (m,) marks; none where the reference has fewer than two labels. Rows of a label that the reference lacks are not marked.
    """
    marked = np.zeros(len(X_pool), dtype=np.bool_)
    counts = np.bincount(ref_labels, minlength=len(at_least))
    if np.count_nonzero(counts) < 2 or not len(X_pool):
        return marked
    if len(X_ref) > _MOST_ROWS:
        some = some_rows(np.arange(len(X_ref)), _MOST_ROWS, rng)
        X_ref, ref_labels = X_ref[some], ref_labels[some]
        counts = np.bincount(ref_labels, minlength=len(at_least))
        if np.count_nonzero(counts) < 2:  # a second label so rare that none of its rows was drawn
            return marked
    alike = (len(X_ref) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[ref_labels]
    probabilities = label_probabilities(X_ref, ref_labels, alike, X_pool, len(at_least))
    own = probabilities[np.arange(len(X_pool)), pool_labels]
    odds = probabilities.max(axis=1) / np.maximum(own, np.finfo(np.float64).tiny)
    odds[counts[pool_labels] == 0] = 1.0
    for label, n in enumerate(at_least.tolist()):
        rows = np.flatnonzero(pool_labels == label)
        worst_first = rows[np.argsort(-odds[rows], kind="stable")]
        marked[worst_first[: max(0, len(rows) - n)]] = True
    too_high: NDArray[np.bool_] = odds > max_odds
    return marked & too_high
