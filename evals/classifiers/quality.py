"""How good a classifier's probabilities are. NumPy alone: the fine-tuning runs where the product is not installed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ECE_BINS = 15


def accuracy(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the share of rows whose most probable label is right.

    Args:
        probabilities: (n, L), rows sum to 1.
        labels: (n,) in [0, L).
    """
    return float((probabilities.argmax(axis=1) == labels).mean())


def macro_f1(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the mean over labels of 2 TP / (2 TP + FP + FN), over the L labels whether or not a row has them.

    A label that no row has and none is given counts 0, as in scikit-learn.
    """
    n_labels = probabilities.shape[1]
    confusion = np.zeros((n_labels, n_labels))
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1.0)
    both = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float(np.mean(2.0 * np.diag(confusion) / np.maximum(both, 1.0)))


def expected_calibration_error(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the mean gap between confidence and accuracy over 15 equal bins of confidence (Guo et al., 2017), in [0, 1]."""
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * ECE_BINS).astype(np.intp), ECE_BINS - 1)
    gaps = np.bincount(place, weights=is_right - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(labels))


METRICS = {"macro_f1": macro_f1, "accuracy": accuracy, "ece": expected_calibration_error}
