"""Weights under a floor on their effective sample size, by the multiplier of that constraint."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from synalign_agent.core.arrays import FloatArray
from synalign_agent.core.qp.pool_qp import Point, PoolQP, Solution

_SOLVE_SHARE = 0.3
"""Of the tolerance that one solve may use; the rest is for the constraint."""
_AIM = 0.3
"""Of the tolerance, for the distance from the sphere."""
_FIRST_GUESS = 0.3
_SMALLEST_GUESS = 1e-3
_MAX_SOLVES = 40


class _Try(NamedTuple):
    multiplier: float
    point: Point


def solve_within_sphere(
    problem: PoolQP, diagonal: FloatArray, squares: float, *, tolerance: float, max_rounds: int
) -> tuple[Solution, float]:
    """Minimise f(w) = w'(K + diag(diagonal)) w - 2 w'linear over the capped simplex and sum w^2 <= squares.

    With the multiplier u of the constraint the problem is the same one with u added to the diagonal, and the sum of squares
    falls as u rises. The low-rank model of the pool, corrected to be right at the last solution, gives the next u. Where
    solutions on both sides of the sphere are known, the segment between them meets it in a point whose K w costs nothing. By
    weak duality f(w) is at most

        gap of w at u  +  u (squares - sum w^2)

    above the constrained minimum, for every feasible w and u >= 0: that is the gap returned.

    Args:
        problem: the pool's problem.
        diagonal: (m,) >= 0.
        squares: largest sum of w^2, >= mass^2 / m.
        tolerance: duality gap to stop at.
        max_rounds: most rounds in all.

    Returns:
        A feasible solution and its multiplier u; u = 0 where the floor does not bind.
    """
    concentrated: _Try | None = None
    spread: _Try | None = None
    about: Point | None = None
    multiplier = _FIRST_GUESS
    n_rounds = 0
    for _ in range(_MAX_SOLVES):
        # Aimed inside the sphere by what the certificate allows: then one solve, if the model is right, is enough.
        allowed = _AIM * tolerance / max(multiplier, _SMALLEST_GUESS)
        aim = max(squares - allowed, 0.5 * squares)
        guess = problem.model_multiplier(diagonal, aim, about=about, near=max(multiplier, _SMALLEST_GUESS))
        multiplier = _within(guess, concentrated, spread)
        solved = problem.solve(
            diagonal + multiplier, tolerance=_SOLVE_SHARE * tolerance, max_rounds=max_rounds - n_rounds, start=about
        )
        n_rounds += solved.n_rounds
        current = _Try(multiplier, solved.point)
        about = current.point
        excess = _squares(current) - squares
        if excess <= 0.0:
            spread = current
            gap = solved.gap - multiplier * excess
            if gap <= tolerance:
                return Solution(current.point, gap, n_rounds), multiplier
        else:
            concentrated = current
        if concentrated is not None and spread is not None:
            middle = _on_sphere(concentrated, spread, squares)
            gap = problem.gap(middle.point, diagonal + middle.multiplier)
            if gap <= tolerance:
                return Solution(middle.point, gap, n_rounds), middle.multiplier
        if n_rounds >= max_rounds:
            break
    return _feasible(problem, diagonal, squares, concentrated, spread, n_rounds)


def _within(guess: float, concentrated: _Try | None, spread: _Try | None) -> float:
    """Return the guess if it is inside the bracket, otherwise a multiplier that is."""
    low = concentrated.multiplier if concentrated else 0.0
    high = spread.multiplier if spread else math.inf
    if low < guess < high or (guess == 0.0 and concentrated is None):
        return guess
    if math.isinf(high):
        return max(2.0 * low, _SMALLEST_GUESS)
    # Without a lower end the floor may not bind at all, which no multiplier above 0 can show.
    return 0.0 if concentrated is None else 0.5 * (low + high)


def _feasible(
    problem: PoolQP,
    diagonal: FloatArray,
    squares: float,
    concentrated: _Try | None,
    spread: _Try | None,
    n_rounds: int,
) -> tuple[Solution, float]:
    """Return a feasible point of a search that ran out of rounds, with its true certificate."""
    if spread is None:
        spread = _Try(concentrated.multiplier if concentrated else 0.0, problem.uniform())
    best = _on_sphere(concentrated, spread, squares) if concentrated is not None else spread
    gap = problem.gap(best.point, diagonal + best.multiplier) + best.multiplier * (squares - _squares(best))
    return Solution(best.point, gap, n_rounds), best.multiplier


def _squares(attempt: _Try) -> float:
    return float(attempt.point.w @ attempt.point.w)


def _on_sphere(outside: _Try, inside: _Try, squares: float) -> _Try:
    """Return the point between the two with the given sum of squares, and the multiplier interpolated alike."""
    w, toward = outside.point.w, inside.point.w - outside.point.w
    a, b, c = float(toward @ toward), float(w @ toward), float(w @ w) - squares
    # The smaller root of a t^2 + 2 b t + c = 0, in the form that does not cancel; b < 0 < c.
    root = math.sqrt(max(b * b - a * c, 0.0))
    t = min(c / (root - b), 1.0) if root > b else 1.0
    point = Point(w + t * toward, outside.point.Kw + t * (inside.point.Kw - outside.point.Kw))
    if float(np.square(point.w).sum()) > squares:
        # Round-off left it outside by a hair.
        t = min(t * (1.0 + 1e-12) + 1e-15, 1.0)
        point = Point(w + t * toward, outside.point.Kw + t * (inside.point.Kw - outside.point.Kw))
    return _Try(outside.multiplier + t * (inside.multiplier - outside.multiplier), point)
