"""How good a method's answer is, by the same functions for all, after its time and memory were taken."""

from __future__ import annotations

from typing import Any

import numpy as np

from evals.bench.spec import Alignment, Spec, uniform
from synalign_agent.core.arrays import Array, IntArray
from synalign_agent.core.block_sums import BLOCK_ROWS, weighted_means
from synalign_agent.core.certificate import certify
from synalign_agent.core.gp import PosteriorVariance
from synalign_agent.core.mmd import equivalent_rows, mean_kernel, mmd2_to_population
from synalign_agent.core.real_side import RealSide

_MAX_PAIRS = 4e8
"""Kernel values up to which objective and gap are computed again in float64, and a held-out MMD^2 at all."""


def score_picks(X: Array, picks: IntArray, spec: Spec) -> dict[str, float]:
    """Return mean and maximum posterior variance over all rows, given the picks."""
    posterior = PosteriorVariance(spec.kernel, spec.noise)
    posterior.extend(X[picks])
    variance = posterior.variance(X)
    return {"mean_variance": float(variance.mean(dtype=np.float64)), "max_variance": float(variance.max())}


def first_difference(X: Array, ours: IntArray, theirs: IntArray, spec: Spec) -> tuple[int, float] | None:
    """Return where two orders of picks part, and by how much ours is the better pick there.

    Args:
        X: (n, d), may be a memory map.
        ours: picks in order.
        theirs: as many or fewer.
        spec: kernel and noise.

    Returns:
        The number of picks that are the same, and the variance of our next pick less that of theirs, in float64; None if all
        are the same.
    """
    differs = np.flatnonzero(ours[: len(theirs)] != theirs)
    if not len(differs):
        return None
    t = int(differs[0])
    posterior = PosteriorVariance(spec.kernel, spec.noise)
    if t > 0:
        posterior.extend(X[ours[:t]].astype(np.float64))
    variance = posterior.variance(X[[ours[t], theirs[t]]].astype(np.float64))
    return t, float(variance[0] - variance[1])


def score_weights(syn: Array, real: Array, held_out: Array | None, found: Alignment, spec: Spec) -> dict[str, Any]:
    """Return objective, duality gap and effective sample size of weights and, given held-out rows, how close they come to them.

    Objective and gap are in float64 up to 4e8 kernel values; beyond it they are the method's own account. Under a floor of
    the effective sample size the gap is the method's own too, since a bound there needs its multiplier.
    """
    w, kernel = found.w, spec.kernel
    support = np.flatnonzero(w)
    scores: dict[str, Any] = {
        "gap": found.own_gap,
        "own_gap": found.own_gap,
        "n_iterations": found.n_iterations,
        "objective_error": found.objective_error,
        "sampling_excess": found.sampling_excess,
        "ess": float(1.0 / (w @ w)),
        "support": len(support),
        "largest_weight_times_m": float(w.max() * spec.m),
    }
    if held_out is not None and len(support) ** 2 <= _MAX_PAIRS:
        mmd2, mean_k = (
            mmd2_to_population(syn[support], held_out, kernel, syn_weights=w[support]),
            mean_kernel(held_out, kernel),
        )
        scores |= {"mmd2_held_out": mmd2, "n_eq": equivalent_rows(mmd2, mean_k), "floor_times_rows": 1.0 - mean_k}
    if spec.m * spec.n <= _MAX_PAIRS and len(support) * spec.m <= _MAX_PAIRS:
        double = syn.astype(np.float64)
        weights = uniform(len(real))
        k_sr = weighted_means(double, real.astype(np.float64), weights, kernel, BLOCK_ROWS)
        side = RealSide(real, weights, k_sr, 0.0)
        exact = certify(double, side, w, kernel, cap=spec.cap, tolerance=spec.tolerance, n_iterations=0)
        scores["objective"] = exact.objective
        if spec.min_ess is None:
            scores["gap"] = exact.duality_gap
    return scores
