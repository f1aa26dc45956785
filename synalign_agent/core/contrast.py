"""How far the reference can be believed about what tells labels apart.

Weights of least MMD, fitted label by label, move the mean embedding of every label's rows to that of its reference rows. What
all labels' means have in common is estimated from all reference rows; what tells them apart, the contrast, from each label's
few, and a classifier trained on the result learns the contrast, noise included. So the contrast is shrunk towards that of the
pool, as far as its size can be explained by chance: James and Stein's estimator, in the kernel's space as by Muandet et al.
(Kernel mean shrinkage estimators, JMLR 2016), with the pool's mean in place of 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from synalign_agent.core.arrays import Array, FloatArray, IntArray
from synalign_agent.core.block_sums import BLOCK_ROWS, blocks, weighted_means
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.mmd import mean_kernel
from synalign_agent.core.strata import some_rows

_MOST_ROWS = 2048
"""Of either side, over all labels, that stand for the others: their means are then known to a 2,048th of a row's variance."""
_LEAST_ROWS = 32


class Contrast(NamedTuple):
    """What the mean embeddings of the labels are moved by, besides fitting each label to its own rows."""

    kept: float
    """Share of the labels' contrast that is believed, in [0, 1]; 1 where there is one label only."""
    shifts: dict[int, FloatArray]
    """Label -> (rows of the pool with it,) to add to their mean kernel values with the label's reference rows; labels that the
    pool or the reference lacks are absent, and so are all where `kept` is 1."""


def shrink_contrast(
    X_pool: Array,
    pool_labels: IntArray,
    X_ref: Array,
    ref_labels: IntArray,
    kernel: Kernel,
    *,
    prior: FloatArray,
    rng: np.random.Generator,
) -> Contrast:
    """Estimate how much of the difference between labels is real, and what to change for it in each label's target.

    With d_l = (mean of label l's reference rows) - (mean of its pool rows) and p the prior, the contrast of l is
    c_l = d_l - sum_k p_k d_k. The expected size of sum_l p_l |c_l|^2 is that of the true contrasts plus
    sum_l p_l (1 - p_l) (1 - E k_l) / n_l, the noise of the n_l reference rows. The best share to keep, in mean square, is the
    first over the sum. Labels fitted to d_l - (1 - kept) c_l then differ by what is believed.

    Args:
        X_pool: (m, d).
        pool_labels: (m,) in [0, L).
        X_ref: (n, d) reference rows.
        ref_labels: (n,) in [0, L).
        kernel: with k(x, x) = 1.
        prior: (L,) label masses, sum 1.
        rng: draws the rows that stand for sides of more than 2,048 (or 32 of a label, if that is more).

    Returns:
        The share, and the changes. Time is min(m + n, 4,096)^2 + m min(m + n, 4,096) kernel values.
    """
    labels = np.intersect1d(np.unique(pool_labels), np.unique(ref_labels))
    labels = labels[prior[labels] > 0.0]
    if len(labels) < 2:
        return Contrast(1.0, {})
    p = prior[labels] / prior[labels].sum()
    most = max(_LEAST_ROWS, _MOST_ROWS // len(labels))
    ref = [some_rows(np.flatnonzero(ref_labels == label), most, rng) for label in labels]
    pool = [some_rows(np.flatnonzero(pool_labels == label), most, rng) for label in labels]
    Z = np.concatenate([*(X_ref[rows] for rows in ref), *(X_pool[rows] for rows in pool)])
    signs = _signs([len(rows) for rows in ref], [len(rows) for rows in pool])
    contrasts = signs - (signs @ p)[:, None]
    size = sum(
        float(np.sum(contrasts[i] * (kernel(Z[i], Z) @ contrasts), axis=0) @ p) for i in blocks(len(Z), BLOCK_ROWS)
    )
    spread = np.array([_variance(X_ref[rows], kernel) for rows in ref])
    pool_spread = np.array([_variance(X_pool[rows], kernel) for rows in pool])
    n_ref, n_pool = (np.array([(of == label).sum() for label in labels]) for of in (ref_labels, pool_labels))
    n_drawn, n_drawn_pool = (np.array([len(rows) for rows in side]) for side in (ref, pool))
    noise = p * (1.0 - p) * spread
    # The pool's mean is what it is: it has noise only where some of its rows stand for all.
    chance = noise @ (1.0 / n_drawn) + (p * (1.0 - p) * pool_spread) @ (1.0 / n_drawn_pool - 1.0 / n_pool)
    real = max(size - float(chance), 0.0)
    expected = float(noise @ (1.0 / n_ref))
    kept = real / (real + expected) if expected > 0.0 else 1.0
    shifts = {
        int(label): weighted_means(X_pool[pool_labels == label], Z, (kept - 1.0) * contrasts[:, at], kernel, BLOCK_ROWS)
        for at, label in enumerate(labels.tolist())
    }
    return Contrast(kept, shifts if kept < 1.0 else {})


def _signs(n_ref: list[int], n_pool: list[int]) -> FloatArray:
    """Return (all rows, labels) weights: column l is the mean of l's reference rows less that of its pool rows."""
    n_labels = len(n_ref)
    place = np.repeat(np.tile(np.arange(n_labels), 2), [*n_ref, *n_pool])
    values = np.repeat([*(1.0 / n for n in n_ref), *(-1.0 / n for n in n_pool)], [*n_ref, *n_pool])
    signs = np.zeros((len(place), n_labels))
    signs[np.arange(len(place)), place] = values
    return signs


def _variance(X: Array, kernel: Kernel) -> float:
    """Return 1 - E k(x, x'), the variance of a row in the kernel's space; 1, its bound, for a single row."""
    return 1.0 - mean_kernel(X, kernel) if len(X) > 1 else 1.0
