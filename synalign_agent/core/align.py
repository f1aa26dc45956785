"""Sampling weights that bring a synthetic pool closest to the real data in MMD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import Array, FloatArray, IntArray, as_rows, as_weights
from synalign_agent.core.block_sums import BLOCK_ROWS, self_sums, weighted_means
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.parallel import one_blas_thread
from synalign_agent.core.qp.ess_floor import solve_within_sphere
from synalign_agent.core.qp.pool_qp import Point, PoolQP, Solution
from synalign_agent.core.real_side import real_side
from synalign_agent.core.simplex import FORCED, check_cap, label_quotas, linear_minimum, project_capped_simplex
from synalign_agent.errors import InputError

__all__ = ["Weights", "fit_weights", "label_quotas", "linear_minimum", "project_capped_simplex"]


_SMALL_POOL_ROWS = 2048
"""Up to here a pool is solved in double precision, whatever it comes in, and on one thread: neither costs time that shows."""


class Weights(NamedTuple):
    """Fitted sampling weights, with a certificate of how good they are."""

    w: FloatArray
    """(m,), 0 <= w <= cap, sum 1"""
    objective: float
    """w'K_ss w - 2 w'k_sr: the MMD^2 to the real rows less a constant."""
    duality_gap: float
    """What was minimised (`objective` + `penalty`) is at most this much above its minimum under the constraints."""
    n_iterations: int
    converged: bool
    """Whether duality_gap <= tolerance."""
    k_sr: FloatArray
    """(m,) mean kernel value of each row with the real rows that were used."""
    penalty: float = 0.0
    """ridge * chi-square divergence from the prior."""
    ess_multiplier: float = 0.0
    """Of `min_ess`: the rise of the minimum for a rise of the limit 1 / min_ess on sum w^2, negated; 0 if it does not bind."""
    n_real: int = 0
    """Real rows that were used."""
    sampling_excess: float = 0.0
    """Bound, on average over subsamples, on how much worse the weights are on all real rows than the best; 0 if all were used."""
    objective_error: float = 0.0
    """Standard error of `objective` from the subsample of the real rows; it cancels in comparisons on the same subsample."""

    @property
    def support(self) -> int:
        """Number of rows with weight."""
        return int(np.count_nonzero(self.w))

    @property
    def ess(self) -> float:
        """Effective sample size, 1 / sum w^2."""
        return float(1.0 / (self.w @ self.w))


def fit_weights(
    X_syn: ArrayLike,
    X_real: ArrayLike,
    kernel: Kernel,
    *,
    cap: float,
    real_weights: ArrayLike | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
    ridge: float = 0.0,
    prior_weights: ArrayLike | None = None,
    min_ess: float | None = None,
    fixed: Mapping[int, float] | None = None,
    max_real_rows: int = 50_000,
    target_shift: ArrayLike | None = None,
    rng: np.random.Generator | None = None,
) -> Weights:
    """Minimise w'K_ss w - 2 w'k_sr + ridge * sum_i (w_i - p_i)^2 / p_i over the capped simplex.

    Exact to the duality gap, by column generation: kernel columns are computed for the free rows (0 < w < cap) and for the
    worst violators of a round alone, and the free rows' weights are settled by a dense active-set method (`pool_qp`). Memory
    is O(m * free), never O(m^2); with float32 rows the kernel values are float32, the small programs float64, and the gap is
    that of the weights returned up to about 2e-7.

    The real side enters through k_sr, streamed in blocks. Beyond `max_real_rows` a random subsample stands for it. With K_ss
    and k_sr from the same kernel the weights are a projection in the kernel's space, and projections bring points no farther
    apart: on all real rows the objective is worse by at most |mean of subsample - mean of all|^2, on average
    (1 / n_used - 1 / n)(1 - E k), 7e-6 for 50,000 rows and E k = 0.6. Random features err more at more cost, and next to an
    exact K_ss their errors no longer cancel.

    Args:
        X_syn: (m, d), the pool.
        X_real: (h, d), real rows to match, not the held-out ones; a memory map stays one.
        kernel: with k(x, x) = 1.
        cap: largest weight, >= 1 / m; 1 for none.
        real_weights: (h,) >= 0, sum 1; None for uniform.
        tolerance: duality gap to stop at, in units of MMD^2, > 0.
        max_iterations: most rounds of the working set, >= 0.
        ridge: >= 0; the price of the chi-square divergence from the prior, in units of MMD^2.
        prior_weights: (m,) > 0, sum 1, how much each row is wanted before the real rows are asked (its quality, for example);
            None for uniform. It acts through `ridge` alone, so it needs ridge > 0.
        min_ess: lower bound of 1 / sum w^2, <= m; None for none.
        fixed: row -> its weight in [0, cap], for rows that are decided already; the others share what is left of 1.
        max_real_rows: real rows used at most, >= 1.
        target_shift: (m,) added to k_sr, where the target is not the mean of the real rows itself (see `contrast`); `objective`
            and `k_sr` of the result are then those of the shifted target. None for no shift.
        rng: draws the subsample of the real rows; needed only where there are more than `max_real_rows`.

    Returns:
        The weights. Above 512 rows uniform weights may be better by up to the duality gap, below never.

    Raises:
        InputError: if a shape, a weight or a number is wrong, or nothing satisfies cap, fixed and min_ess together.
    """
    syn, real = as_rows(X_syn, "X_syn"), as_rows(X_real, "X_real")
    m = len(syn)
    check_cap(cap, m)
    cap = min(cap, 1.0)  # Beyond 1 a cap never binds.
    if not tolerance > 0 or max_iterations < 0:
        raise InputError("fit_weights needs tolerance > 0 and max_iterations >= 0.")
    held, held_w = _fixed_rows(fixed, m, cap)
    free = np.setdiff1d(np.arange(m), held)
    mass = 1.0 - float(held_w.sum())
    squares = _square_limit(min_ess, held_w, mass, len(free))
    divergence = _divergence_weights(ridge, prior_weights, m)
    target = real_side(syn, real, kernel, real_weights, max_real_rows, rng)
    if target_shift is not None:
        target = replace(target, k_sr=target.k_sr + _shift(target_shift, m))

    w = np.zeros(m)
    w[held] = held_w
    pull = weighted_means(syn, syn[held], held_w, kernel, BLOCK_ROWS) if len(held) else np.zeros(m)
    is_small = len(free) <= _SMALL_POOL_ROWS
    rows = syn[free].astype(np.float64) if is_small else syn if len(free) == m else syn[free]
    with one_blas_thread():
        solution, multiplier = _solve(
            rows,
            kernel,
            target.k_sr[free] - pull[free],
            divergence[free],
            cap,
            mass,
            squares,
            tolerance,
            max_iterations,
        )
    w[free] = solution.point.w
    objective = float(solution.point.w @ (solution.point.Kw + 2.0 * pull[free])) - 2.0 * float(w @ target.k_sr)
    objective += self_sums(syn[held], held_w, kernel, BLOCK_ROWS).total
    excess, error = target.sampling_errors(syn, w, kernel)
    return Weights(
        w=w,
        objective=objective,
        duality_gap=solution.gap,
        n_iterations=solution.n_rounds,
        converged=solution.gap <= tolerance,
        k_sr=target.k_sr,
        penalty=max(float(divergence @ np.square(w)) - ridge, 0.0),
        ess_multiplier=multiplier,
        n_real=len(target.rows),
        sampling_excess=excess,
        objective_error=error,
    )


def _solve(
    rows: Array,
    kernel: Kernel,
    linear: FloatArray,
    diagonal: FloatArray,
    cap: float,
    mass: float,
    squares: float,
    tolerance: float,
    max_rounds: int,
) -> tuple[Solution, float]:
    m = len(rows)
    if m == 0:
        return Solution(Point(np.zeros(0), np.zeros(0)), 0.0, 0), 0.0
    problem = PoolQP(rows, kernel, linear, cap=min(cap, mass), mass=mass)
    # Uniform weights are the only feasible ones under the tightest cap and under the highest floor.
    if mass <= FORCED or cap * m <= mass * (1.0 + FORCED) or squares * m <= mass**2 * (1.0 + FORCED):
        return Solution(problem.uniform(), 0.0, 0), 0.0
    if math.isinf(squares):
        return problem.solve(diagonal, tolerance=tolerance, max_rounds=max_rounds), 0.0
    return solve_within_sphere(problem, diagonal, squares, tolerance=tolerance, max_rounds=max_rounds)


def _shift(target_shift: ArrayLike, m: int) -> FloatArray:
    shift = np.asarray(target_shift, dtype=np.float64)
    if shift.shape != (m,) or not np.isfinite(shift).all():
        raise InputError(f"target_shift must be {m} finite numbers, got shape {shift.shape}.")
    return shift


def _fixed_rows(fixed: Mapping[int, float] | None, m: int, cap: float) -> tuple[IntArray, FloatArray]:
    """Return the rows that are fixed, in order, and their weights."""
    if not fixed:
        return np.zeros(0, dtype=np.intp), np.zeros(0)
    held = np.array(sorted(fixed), dtype=np.intp)
    weights = np.array([fixed[row] for row in held.tolist()], dtype=np.float64)
    if held[0] < 0 or held[-1] >= m:
        raise InputError(f"fixed names row {held[0] if held[0] < 0 else held[-1]}, but the pool has rows 0 to {m - 1}.")
    if not ((weights >= 0.0) & (weights <= cap * (1.0 + FORCED))).all():
        raise InputError(f"The weights in fixed must lie in [0, cap = {cap:.6g}].")
    total = float(weights.sum())
    if total > 1.0 + FORCED or (len(held) == m and total < 1.0 - 1e-9):
        raise InputError(f"The weights in fixed sum to {total!r}; with the other rows they must be able to sum to 1.")
    check_cap(cap, m - len(held), max(1.0 - total, 0.0)) if len(held) < m else None
    return held, weights


def _square_limit(min_ess: float | None, held_w: FloatArray, mass: float, n_free: int) -> float:
    """Return the largest sum of squares that the free weights may have; infinity without a floor."""
    if min_ess is None:
        return math.inf
    held = float(held_w @ held_w)
    least = mass**2 / n_free if n_free else 0.0
    if not 0.0 < min_ess * (held + least) <= 1.0 + 1e-9:
        raise InputError(f"min_ess must be > 0 and at most {1.0 / (held + least):.6g} here, got {min_ess:g}.")
    return max(1.0 / min_ess - held, least)


def _divergence_weights(ridge: float, prior_weights: ArrayLike | None, m: int) -> FloatArray:
    """Return ridge / p: sum (w - p)^2 / p is sum w^2 / p - 1 where both sum to 1."""
    if not (math.isfinite(ridge) and ridge >= 0.0):
        raise InputError(f"ridge must be finite and >= 0, got {ridge!r}.")
    if prior_weights is not None and ridge == 0.0:
        raise InputError("prior_weights act through ridge: pass ridge > 0 with them.")
    prior = as_weights(prior_weights, m, "prior_weights")
    if not (prior > 0.0).all():
        raise InputError("prior_weights must be > 0; leave a row out of the pool, or fix it at 0, to exclude it.")
    return ridge / prior
