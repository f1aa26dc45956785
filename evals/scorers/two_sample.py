"""The classifier two-sample test: whether a classifier can tell the sets apart (Lopez-Paz and Oquab, ICLR 2017)."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from synalign_agent.core.arrays import Array

_FOLDS = 3


def c2st_auc(X_real: Array, X_syn: Array, rng: np.random.Generator) -> float:
    """Return the area under the ROC curve of a logistic regression that tells synthetic rows from real ones.

    Every row is scored by a model that was fitted to the other folds. 0.5: not to be told apart; 1: always.

    Args:
        X_real: (h, d); at most m of them are used, drawn at random, so that the classes have the same size.
        X_syn: (m, d), at most h of them are used; distinct rows, or copies end up on both sides of a fold.
        rng: draws rows and folds.
    """
    n = min(len(X_real), len(X_syn))
    real, syn = (X[np.sort(rng.choice(len(X), n, replace=False))] for X in (X_real, X_syn))
    X = np.concatenate([real, syn])
    is_syn = np.arange(2 * n) >= n
    areas = []
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
    for fit, held in folds.split(X, is_syn):
        model = LogisticRegression(max_iter=1000).fit(X[fit], is_syn[fit])
        # Each fold by itself: the scores of two models have no common scale.
        areas.append(roc_auc_score(is_syn[held], model.decision_function(X[held])))
    return float(np.mean(areas))
