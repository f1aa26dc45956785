"""Kernel herding: a selection grown one row at a time towards the real mean embedding."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.align import Weights
from synalign_agent.core.arrays import Array, FloatArray, IntArray, as_rows
from synalign_agent.core.certificate import MAX_REAL_ROWS, certify, kernel_means
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.real_side import real_side
from synalign_agent.core.resample import copies_within


def herding(
    X_syn: ArrayLike,
    X_real: ArrayLike,
    *,
    n: int,
    cap: float,
    kernel: Kernel,
    rng: np.random.Generator,
    tolerance: float,
) -> Weights:
    """Weigh n rows picked by kernel herding equally (an `objectives.Objective`).

    Chen, Welling and Smola, "Super-samples from kernel herding" (UAI 2010), restricted to the pool. Greedy, so it never
    takes a pick back. One kernel column a pick: O(n m) time, O(m) memory.

    Args:
        X_syn: (m, d), the pool.
        X_real: (h, d), real rows to match.
        n: rows to pick, >= 1.
        cap: largest weight; a row is picked floor(cap n) times at most, so 1 / n is herding without replacement.
        kernel: with k(x, x) = 1.
        rng: draws the real rows used where there are more than 50,000; herding itself is deterministic.
        tolerance: duality gap that counts as converged.

    Returns:
        Weights in multiples of 1 / n, with the objective and duality gap of `kernel`.

    Raises:
        InputError: if a shape is wrong, or n picks do not fit under the cap.
    """
    syn, real = as_rows(X_syn, "X_syn"), as_rows(X_real, "X_real")
    max_copies = copies_within(cap, n, len(syn))
    side = real_side(syn, real, kernel, None, MAX_REAL_ROWS, rng)
    copies = herd(syn, side.k_sr, np.zeros(len(syn), dtype=np.intp), n, kernel, max_copies)
    return certify(syn, side, copies / n, kernel, cap=cap, tolerance=tolerance, n_iterations=n)


def herd(X_syn: Array, k_sr: FloatArray, copies: IntArray, n: int, kernel: Kernel, max_copies: int) -> IntArray:
    """Add picks to a selection until it has n.

    Pick t + 1 maximises (t + 1) k_sr - (K c), which is the row that brings the mean embedding of the t + 1 rows closest to the
    real one, since k(x, x) is the same for all. Ties go to the lowest index.

    Args:
        X_syn: (m, d), checked.
        k_sr: (m,) mean kernel value of each row with the real rows.
        copies: (m,) what is chosen already, at most n rows, each within `max_copies`.
        n: rows wanted, <= m * max_copies.
        kernel: with k(x, x) = 1.
        max_copies: largest count of a row.

    Returns:
        (m,) a new array with sum n.
    """
    chosen = copies.copy()
    n_chosen = int(chosen.sum())
    score = (n_chosen + 1) * k_sr - kernel_means(X_syn, chosen, kernel)
    score[chosen >= max_copies] = -np.inf
    for _ in range(n - n_chosen):
        pick = int(np.argmax(score))
        chosen[pick] += 1
        score += k_sr - kernel(X_syn, X_syn[pick : pick + 1])[:, 0]
        if chosen[pick] >= max_copies:
            score[pick] = -np.inf
    return chosen
