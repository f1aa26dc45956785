"""A dense quadratic program over a capped simplex, by an active-set Newton method."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from synalign_agent.core.arrays import BoolArray, FloatArray
from synalign_agent.core.simplex import linear_minimum, project_capped_simplex

_FIRST_JITTER = 1e-10
_LAST_JITTER = 1e2
_JITTER_FACTOR = 100.0
_MAX_STEPS = 200
_WELL_INSIDE = 1e-6
_AT_BOUND = 1e-12
"""Relative to the cap: what round-off leaves between an entry and its bound."""


def minimise_on_capped_simplex(
    H: FloatArray, x: FloatArray, gradient: FloatArray, cap: float, tolerance: float
) -> FloatArray:
    """Minimise gradient'(y - x) + (y - x)'H (y - x) / 2 over {y: 0 <= y_i <= cap, sum y = sum x}.

    Until the duality gap is closed: the entries inside their bounds, and those at a bound that the multiplier of the sum
    wants to leave it, are free; they make a Newton step under the sum constraint (Cholesky, O(f^3) for f free). It is taken
    whole if it stays inside. Otherwise the best of three shorter steps is: to the first bound; to the projection of the
    Newton point, which settles many bounds at once; along the way to that projection to the minimum. What is held by a
    bound is fixed, and the others make their Newton step. Every step lowers the objective. A singular H (duplicated rows) is
    met by a jitter in the Newton matrix alone, which bends the direction but does not move the minimum.

    Args:
        H: (b, b) symmetric, positive semidefinite up to round-off.
        x: (b,) feasible start.
        gradient: (b,) at x.
        cap: upper bound of every entry, >= sum x / b.
        tolerance: duality gap at which to stop; after 200 steps the point reached so far is returned.

    Returns:
        (b,) not worse than x; entries that a bound holds are exactly there.
    """
    x, gradient = x.copy(), gradient.copy()
    mass = float(x.sum())
    n_steps = 0
    while n_steps < _MAX_STEPS and float(gradient @ x) - linear_minimum(gradient, min(cap, mass), mass) > tolerance:
        free = np.flatnonzero(_may_move(x, gradient, cap))
        started = n_steps
        while _can_trade(x[free], cap) and n_steps < _MAX_STEPS:
            n_steps += 1
            H_free = H[np.ix_(free, free)]
            newton = _newton_step(H_free, gradient[free])
            step = _longest_good_step(H_free, x[free], gradient[free], newton, cap)
            moved = _snapped(x[free] + step, cap)
            gradient += H[:, free] @ (moved - x[free])
            x[free] = moved
            if step is newton:
                break
            held = ((moved <= 0.0) & (newton < 0.0)) | ((moved >= cap) & (newton > 0.0))
            free = free[~held]
        if n_steps == started:
            break  # Nothing is left to trade weight with: what remains of the gap is round-off.
    inside = (x > 0.0) & (x < cap)
    if inside.any():
        # Snapping and long sums round; left alone, the errors of many calls would add up.
        x[inside] += (mass - x.sum()) / np.count_nonzero(inside)
    return np.clip(x, 0.0, cap)


def _may_move(x: FloatArray, gradient: FloatArray, cap: float) -> BoolArray:
    """Return which entries are inside the bounds, or at one that they would leave."""
    inside = (x > 0.0) & (x < cap)
    # A hair from its bound an entry may have any gradient.
    well_inside = np.minimum(x, cap - x) > _WELL_INSIDE * cap
    if well_inside.any():
        multiplier = float(np.median(gradient[well_inside]))
    else:
        multiplier = 0.5 * float(gradient[x < cap].min() + gradient[x > 0.0].max())
    moves: BoolArray = inside | ((x <= 0.0) & (gradient < multiplier)) | ((x >= cap) & (gradient > multiplier))
    return moves


def _can_trade(x: FloatArray, cap: float) -> bool:
    """Return whether the entries have weight to give and room to take it."""
    return len(x) >= 2 and 0.0 < float(x.sum()) < cap * len(x)


def _newton_step(H: FloatArray, gradient: FloatArray) -> FloatArray:
    """Return the minimiser of gradient's + s'Hs / 2 over steps s of sum 0."""
    right = np.stack([-gradient, np.ones(len(H))], axis=1)
    jitter = _FIRST_JITTER
    while True:
        damped = H.copy()
        damped.flat[:: len(H) + 1] += jitter
        # The transpose of a C-ordered symmetric matrix is what LAPACK can overwrite in place.
        factor, failed_at = dpotrf(damped.T, lower=1, overwrite_a=1)
        if failed_at == 0:
            solved, _ = dpotrs(factor, right, lower=1)
            # Under the sum constraint the gradient may differ by a constant, and so the step by a multiple of H^-1 1.
            step: FloatArray = solved[:, 0] - solved[:, 1] * (solved[:, 0].sum() / solved[:, 1].sum())
            if float(gradient @ step) <= 0.0 or jitter >= _LAST_JITTER:
                return step
        jitter *= _JITTER_FACTOR


def _longest_good_step(
    H: FloatArray, x: FloatArray, gradient: FloatArray, newton: FloatArray, cap: float
) -> FloatArray:
    """Return the Newton step if it is feasible, otherwise the best of three that are."""
    target = x + newton
    if target.min() >= 0.0 and target.max() <= cap:
        return newton
    room = np.where(newton < 0.0, x, cap - x)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(newton != 0.0, room / np.abs(newton), np.inf)
    to_bound = min(float(ratios.min()), 1.0) * newton
    projected = project_capped_simplex(target, cap, float(x.sum())) - x
    image = H @ projected
    slope, curvature = float(gradient @ projected), float(projected @ image)
    along = min(1.0, -slope / curvature) if slope < 0.0 < curvature else 0.0
    changes = {
        "bound": float(gradient @ to_bound + 0.5 * to_bound @ (H @ to_bound)),
        "projection": slope + 0.5 * curvature,
        "line": along * slope + 0.5 * along**2 * curvature,
    }
    best = min(changes, key=changes.__getitem__)
    if best == "bound":
        return to_bound
    return projected if best == "projection" else along * projected


def _snapped(x: FloatArray, cap: float) -> FloatArray:
    x = np.clip(x, 0.0, cap)
    x[x <= _AT_BOUND * cap] = 0.0
    x[x >= cap * (1.0 - _AT_BOUND)] = cap
    return x
