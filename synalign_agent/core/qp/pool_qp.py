"""Weights of a pool by working sets: exact, from as few kernel columns as the solution has free weights.

Rows are at 0, free (0 < w < cap), or at the cap. Only the free ones and the worst violators have their kernel columns
computed; rows at the cap act through one summed column, which is a part of K w. So memory is O(m * free).
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from synalign_agent.core.arrays import Array, BoolArray, FloatArray, IntArray
from synalign_agent.core.block_sums import BLOCK_ROWS, symmetric_product, weighted_means
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.qp.box_qp import minimise_on_capped_simplex
from synalign_agent.core.qp.kernel_columns import KernelColumns
from synalign_agent.core.qp.nystrom import NystromModel
from synalign_agent.core.simplex import linear_minimum

_BATCH = 128
"""Violators that enter a round. Fewer make more rounds, more make columns that are dropped again."""
_SMALL_POOL = 512
"""Up to here all rows are free at first: the whole problem is one dense program."""
_SPARSE_START = 256
_RANK = 512
_DIRECT_FREE = 2048
"""Free rows up to which a Cholesky factor is faster than a pass over the whole kernel."""
_MAX_COLUMNS = 4096
_COLUMN_BYTES = 2**30
_MIN_COLUMNS = 1024
_INNER_TOLERANCE = 0.1
_MODEL_SHARE = 0.1
"""Of the tolerance, for the model's error in the gradient; the duality gap is linear in that, the model's own gap quadratic."""
_GOOD_PROGRESS = 0.9
_PATIENCE = 4
"""Rounds of the model without progress before a dense program, which takes seconds by then, is tried."""
_START_TOLERANCE = 1e-6
_ROUGH_TOLERANCE = 1e-6
_LOG_MULTIPLIERS = (-18.0, 12.0)
"""The search range of `model_multiplier`: below it nothing spreads, above it weights are uniform whatever the rows."""
_LOG_STEP, _LOG_ACCURACY = 0.05, 1e-4
_FIRST_LOG_STEP, _FIRST_LOG_ACCURACY = 0.5, 0.02
"""While the model has not met the kernel yet."""
_SUM_REPAIRS = 3
_AT_BOUND = 1e-9
"""Relative to the cap; what the float32 model leaves between a weight and its bound."""


class Point(NamedTuple):
    """Weights and what they make of the kernel."""

    w: FloatArray
    """(m,) on the capped simplex."""
    Kw: FloatArray
    """(m,), K w."""


class Solution(NamedTuple):
    """The best point found, and its certificate."""

    point: Point
    gap: float
    """Duality gap: at most so much above the minimum."""
    n_rounds: int


class PoolQP:
    """min w'(K + diag(diagonal)) w - 2 w'linear over 0 <= w <= cap, sum w = mass, for any diagonal.

    Columns and model are kept from one solve to the next. Memory: at most max(1 GiB, 1024 columns) of kernel columns and
    never more than 4096 of them, 8 * 4096^2 bytes a few times for the dense programs, and m * 512 values for the model
    where one is needed (a cap or a diagonal that spreads weight over many rows).
    """

    def __init__(self, rows: Array, kernel: Kernel, linear: FloatArray, *, cap: float, mass: float) -> None:
        """Set the problem up; nothing is computed yet.

        Args:
            rows: (m, d).
            kernel: with k(x, x) = 1.
            linear: (m,).
            cap: largest weight, mass / m < cap <= mass.
            mass: sum of the weights, > 0.
        """
        m = len(rows)
        self._rows, self._kernel, self._linear = rows, kernel, linear
        self._cap, self._mass = cap, mass
        affordable = _COLUMN_BYTES // (m * rows.dtype.itemsize)
        self._columns = KernelColumns(rows, kernel, min(m, _MAX_COLUMNS, max(_MIN_COLUMNS, affordable)))
        self._model: NystromModel | None = None

    def solve(self, diagonal: FloatArray, *, tolerance: float, max_rounds: int, start: Point | None = None) -> Solution:
        """Solve for one diagonal.

        Each round moves the free rows and the worst violators to their joint minimum (dense program), or, while more rows
        are free than a dense program is good for, all rows by a proximal Newton step on the low-rank model with an exact
        line search. No round raises the objective.

        Args:
            diagonal: (m,) >= 0.
            tolerance: duality gap to stop at.
            max_rounds: most rounds.
            start: a feasible point with its K w; None to begin from the problem alone.
        """
        point = start or self._start(diagonal)
        n_stalled = n_rounds = 0
        gap = least_gap = self.gap(point, diagonal)
        while gap > tolerance and n_rounds < max_rounds:
            n_rounds += 1
            working = self._working_set(point, diagonal)
            n_dense = _DIRECT_FREE if n_stalled < _PATIENCE else self._columns.capacity
            if len(working) <= n_dense:
                moved = self._dense_step(point, diagonal, working, tolerance)
            else:
                moved = self._model_step(point, diagonal, tolerance)
            if moved is point:
                break  # Round-off is all that is left.
            gap, point = self.gap(moved, diagonal), moved
            if len(working) > n_dense:
                # The objective falls in every round; the gap need not.
                n_stalled = 0 if gap <= _GOOD_PROGRESS * least_gap else n_stalled + 1
            least_gap = min(gap, least_gap)
        return Solution(point, gap, n_rounds)

    def uniform(self) -> Point:
        """Return equal weights."""
        return self._point(np.full(len(self._rows), self._mass / len(self._rows)))

    def model_multiplier(self, diagonal: FloatArray, squares: float, *, about: Point | None, near: float) -> float:
        """Estimate what has to be added to the diagonal for the solution to have a sum of squares, from the low-rank model.

        Args:
            diagonal: (m,) >= 0.
            squares: wanted sum of w^2.
            about: a point where the model is to be right in value and slope; the estimate is the better the closer the
                solution. None where there is none yet.
            near: a guess, > 0.

        Returns:
            A number >= 0; 0 where the sum is small enough without.
        """
        start: FloatArray | None = None

        @cache  # The root finder asks for its two ends again; from another start they could be of equal sign.
        def excess(log_multiplier: float) -> float:
            nonlocal start
            w, start = self._model_minimum(
                diagonal + math.exp(log_multiplier), _ROUGH_TOLERANCE * squares, about=about, start=start
            )
            return math.log(float(w @ w) / squares)

        at = min(max(math.log(near), _LOG_MULTIPLIERS[0]), _LOG_MULTIPLIERS[1])
        here = excess(at)
        step, accuracy = (_LOG_STEP, _LOG_ACCURACY) if about is not None else (_FIRST_LOG_STEP, _FIRST_LOG_ACCURACY)
        toward = step if here > 0.0 else -step
        while True:
            following = min(max(at + toward, _LOG_MULTIPLIERS[0]), _LOG_MULTIPLIERS[1])
            if following == at:
                return 0.0 if here <= 0.0 else math.exp(at)
            there = excess(following)
            if (there > 0.0) != (here > 0.0):
                break
            at, here, toward = following, there, 2.0 * toward
        return math.exp(float(brentq(excess, at, following, xtol=accuracy, rtol=_LOG_ACCURACY)))

    def gap(self, point: Point, diagonal: FloatArray) -> float:
        """Return gradient'w less its minimum over the feasible set (Jaggi, 2013)."""
        half = self._half_gradient(point, diagonal)
        return max(2.0 * float(half @ point.w - linear_minimum(half, self._cap, self._mass)), 0.0)

    def _half_gradient(self, point: Point, diagonal: FloatArray) -> FloatArray:
        return point.Kw + diagonal * point.w - self._linear

    def _start(self, diagonal: FloatArray) -> Point:
        m = len(self._rows)
        if m <= _SMALL_POOL:
            return self._point(np.full(m, self._mass / m))
        if diagonal.any() or self._cap * _SPARSE_START < self._mass:
            return self._point(self._model_minimum(diagonal, _START_TOLERANCE)[0])
        w = np.zeros(m)
        w[np.argpartition(-self._linear, _SPARSE_START)[:_SPARSE_START]] = self._mass / _SPARSE_START
        return self._point(w)

    def _point(self, w: FloatArray) -> Point:
        return Point(w, self._product(w))

    def _product(self, w: FloatArray) -> FloatArray:
        """Return K w from the fewest kernel values."""
        support = np.flatnonzero(w)
        if len(support) <= self._columns.capacity:
            # The rounds to come need most of these columns again.
            self._columns.hold(support)
            return self._columns.times(support, w[support])
        if 2 * len(support) > len(w):
            return symmetric_product(self._rows, w, self._kernel, BLOCK_ROWS)
        return weighted_means(self._rows, self._rows[support], w[support], self._kernel, BLOCK_ROWS)

    def _free(self, w: FloatArray) -> BoolArray:
        free: BoolArray = (w > 0.0) & (w < self._cap)
        return free

    def _working_set(self, point: Point, diagonal: FloatArray) -> IntArray:
        """Return the free rows, and from either bound the rows that gain most by an exchange of weight with another row."""
        half, w = self._half_gradient(point, diagonal), point.w
        can_rise, can_fall = w < self._cap, w > 0.0
        lowest, highest = half[can_rise].min(), half[can_fall].max()
        entering = _largest(np.where(can_fall, 0.0, highest - half))
        leaving = _largest(np.where(can_rise, 0.0, half - lowest))
        return np.unique(np.concatenate([np.flatnonzero(can_rise & can_fall), entering, leaving]))

    def _dense_step(self, point: Point, diagonal: FloatArray, working: IntArray, tolerance: float) -> Point:
        self._columns.hold(working)
        X = self._rows[working]
        H = 2.0 * self._kernel(X, X).astype(np.float64)
        H.flat[:: len(H) + 1] += 2.0 * diagonal[working]
        before, gradient = point.w[working], 2.0 * self._half_gradient(point, diagonal)[working]
        after = minimise_on_capped_simplex(H, before, gradient, self._cap, _INNER_TOLERANCE * tolerance)
        changed = after != before
        if not changed.any():
            return point
        w = point.w.copy()
        w[working] = after
        return Point(w, point.Kw + self._columns.times(working[changed], (after - before)[changed]))

    def _model_step(self, point: Point, diagonal: FloatArray, tolerance: float) -> Point:
        step = self._model_minimum(diagonal, (_MODEL_SHARE * tolerance) ** 2, about=point)[0] - point.w
        K_step = self._product(step)
        slope = 2.0 * float(step @ self._half_gradient(point, diagonal))
        curvature = 2.0 * float(step @ (K_step + diagonal * step))
        if not slope < 0.0 < curvature:
            return point
        length = min(1.0, -slope / curvature)
        return Point(point.w + length * step, point.Kw + length * K_step)

    def _model_minimum(
        self, diagonal: FloatArray, tolerance: float, *, about: Point | None = None, start: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Return the model's weights, with those that it means to be at a bound exactly there, and its dual point."""
        cap, mass = self._cap, self._mass
        linear, base = (self._linear, None) if about is None else (self._linear - about.Kw, about.w)
        w, dual = self._low_rank_model().minimise(
            linear, diagonal, cap=cap, mass=mass, tolerance=tolerance, about=base, start=start
        )
        # Off by round-off, each of them would count as free.
        w[w <= _AT_BOUND * cap] = 0.0
        w[w >= cap * (1.0 - _AT_BOUND)] = cap
        for _ in range(_SUM_REPAIRS):
            missing = mass - float(w.sum())
            movable = self._free(w)
            if not movable.any():
                movable = w < cap if missing > 0.0 else w > 0.0
            w[movable] = np.clip(w[movable] + missing / max(int(np.count_nonzero(movable)), 1), 0.0, cap)
        return w, dual

    def _low_rank_model(self) -> NystromModel:
        if self._model is None:
            self._model = NystromModel(self._rows, self._kernel, min(_RANK, len(self._rows)))
        return self._model


def _largest(gain: FloatArray) -> IntArray:
    """Return where the `_BATCH` largest gains are, as far as they are > 0."""
    found = np.argpartition(-gain, min(_BATCH, len(gain) - 1))[:_BATCH]
    return found[gain[found] > 0.0]
