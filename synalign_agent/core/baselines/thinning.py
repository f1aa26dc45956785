"""Kernel thinning: halve a larger draw so that what is left has its mean embedding, then refine.

Dwivedi and Mackey, "Kernel thinning" (COLT 2021) and "Generalized kernel thinning" (ICLR 2022): the variant that splits with
the target kernel itself. A random half of N rows is 1 / sqrt(N) away from them in MMD, a thinned one about 1 / N.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.align import Weights, fit_weights
from synalign_agent.core.arrays import Array, IntArray, as_rows
from synalign_agent.core.baselines.herding import herd
from synalign_agent.core.block_sums import BLOCK_ROWS, weighted_means
from synalign_agent.core.certificate import MAX_REAL_ROWS, certify, kernel_means
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.real_side import real_side
from synalign_agent.core.resample import copies_within, systematic
from synalign_agent.core.swaps import improve_by_swaps

_ROUNDS = 2
"""Halvings, so 4 candidates for each row that is kept."""
_FAILURE = 0.5
"""The paper's delta, shared out over the pairs: the probability that some pair exceeds its bound."""
_BLOCK_PAIRS = 256


def thinning(
    X_syn: ArrayLike,
    X_real: ArrayLike,
    *,
    n: int,
    cap: float,
    kernel: Kernel,
    rng: np.random.Generator,
    tolerance: float,
) -> Weights:
    """Weigh n rows left by kernel thinning equally (an `objectives.Objective`).

    Thinning keeps the distribution of its input, which here must become the real one. So its input is a systematic resample
    of 4 n candidates by the weights of the `kernel` objective. Two rounds of halving make 4 selections of n rows. In each,
    copies beyond the cap are replaced by herding; the one closest to the real rows is refined by exchanges with the
    whole pool (`swaps.improve_by_swaps`, which goes on where the paper's KT-SWAP stops after one pass).

    Time is that of the weights plus 12 n^2 kernel values and the exchanges; memory O(m + block^2) beside the weights'.

    Args:
        X_syn: (m, d), the pool.
        X_real: (h, d), real rows to match.
        n: rows to keep, >= 1.
        cap: largest weight; a row is kept floor(cap n) times at most.
        kernel: with k(x, x) = 1.
        rng: draws the candidates, their order and the splits.
        tolerance: duality gap of the weights, and what counts as converged in the end.

    Returns:
        Weights in multiples of 1 / n, with the objective and duality gap of `kernel`.

    Raises:
        InputError: if a shape is wrong, or n rows do not fit under the cap.
    """
    syn, real = as_rows(X_syn, "X_syn"), as_rows(X_real, "X_real")
    m = len(syn)
    max_copies = copies_within(cap, n, m)
    side = real_side(syn, real, kernel, None, MAX_REAL_ROWS, rng)
    k_sr = side.k_sr
    fit = fit_weights(syn, side.rows, kernel, cap=max_copies / n, tolerance=tolerance)
    candidates = np.repeat(np.arange(m), systematic(fit.w, 2**_ROUNDS * n, rng))
    selections = [rng.permutation(candidates)]
    for _ in range(_ROUNDS):
        selections = [kept[half] for kept in selections for half in halve(syn[kept], kernel, rng)]

    best, least = np.zeros(m, dtype=np.intp), math.inf
    for kept in selections:
        within = np.minimum(np.bincount(kept, minlength=m), max_copies)
        copies = herd(syn, k_sr, within, n, kernel, max_copies)
        objective = float(copies @ (kernel_means(syn, copies, kernel) / n - 2.0 * k_sr)) / n
        if objective < least:
            best, least = copies, objective
    refined = improve_by_swaps(syn, best, kernel, k_sr, max_copies=max_copies)
    return certify(syn, side, refined.copies / n, kernel, cap=cap, tolerance=tolerance, n_iterations=refined.n_swaps)


def halve(X: Array, kernel: Kernel, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Split rows into two halves with nearly the same mean embedding.

    Kernel halving (Generalized kernel thinning, algorithm 1a with one round): the rows of each consecutive pair go to
    different halves, by a biased coin that favours the balance of what came before. O(N^2) time; memory is O(block^2).

    Args:
        X: (N, d), N >= 2, in random order; of an odd number the last row is left out.
        kernel: with k(x, x) = 1.
        rng: one number a pair.

    Returns:
        The rows of either half, N // 2 indices each.
    """
    n_pairs = len(X) // 2
    coins = rng.random(n_pairs)
    first, second = 2 * np.arange(n_pairs), 2 * np.arange(n_pairs) + 1
    signs = np.zeros(2 * n_pairs)
    sub_gaussian2 = 0.0
    log_term = 2.0 * math.log(2.0 / (_FAILURE / len(X)))
    for start in range(0, n_pairs, _BLOCK_PAIRS):
        stop = min(start + _BLOCK_PAIRS, n_pairs)
        block = X[2 * start : 2 * stop]
        K = np.asarray(kernel(block, block), dtype=np.float64)
        # The balance so far, at the rows of this block: first halves less second halves.
        balance = weighted_means(block, X[: 2 * start], signs[: 2 * start], kernel, BLOCK_ROWS)
        for pair in range(stop - start):
            one, two = 2 * pair, 2 * pair + 1
            b2 = max(2.0 - 2.0 * float(K[one, two]), 0.0)
            bound = max(math.sqrt(b2 * sub_gaussian2 * log_term), b2)
            if bound > 0.0:
                sub_gaussian2 += b2 * max(1.0 + (b2 - 2.0 * bound) * sub_gaussian2 / bound**2, 0.0)
                # Positive where the first row resembles the first half more than the second row does.
                lean = float(balance[one] - balance[two]) / bound
                if coins[start + pair] < 0.5 * (1.0 + lean):
                    one, two = two, one
            balance += K[:, one] - K[:, two]
            first[start + pair], second[start + pair] = 2 * start + one, 2 * start + two
        signs[first[start:stop]], signs[second[start:stop]] = 1.0, -1.0
    return first, second
