"""A pool's quadratic program with the kernel replaced by a low rank plus a diagonal: solved exactly, without K.

K is about F F' + diag(r): F from the columns of `rank` landmark rows (Nystrom), r what these leave of the diagonal (the
FITC correction of sparse Gaussian processes; Quinonero-Candela and Rasmussen, JMLR 2005). The diagonal carries each row's
pull on itself, so that the model knows which rows a cap holds.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from synalign_agent.core.arrays import Array, FloatArray
from synalign_agent.core.block_sums import blocks
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.parallel import for_each_tile

_BLOCK_ROWS = 4096
_SMALLEST_EIGENVALUE = 1e-6
"""Relative to the largest; below it float32 columns hold nothing but round-off."""
_SMALLEST_RESIDUAL = 1e-3
"""Keeps the model strictly convex where landmarks explain a row wholly."""
_MAX_STEPS = 50
_MAX_TRIALS = 12
_GOOD_SLOPE = 0.5


class NystromModel:
    """The model of one pool, for any linear term, extra diagonal and cap.

    Memory: m * rank values in the precision of the rows. Time to build: m * rank kernel values and 2 m rank^2 operations.
    """

    def __init__(self, rows: Array, kernel: Kernel, rank: int) -> None:
        """Compute the features.

        Args:
            rows: (m, d).
            kernel: with k(x, x) = 1.
            rank: landmarks, 1 <= rank <= m.
        """
        # A fixed choice, not a random input: the answer must depend on the rows alone.
        chosen = np.sort(np.random.default_rng(0).choice(len(rows), rank, replace=False))
        landmarks = rows[chosen]
        values, vectors = eigh(kernel(landmarks, landmarks).astype(np.float64))
        kept = values > _SMALLEST_EIGENVALUE * values[-1]
        whiten = (vectors[:, kept] / np.sqrt(values[kept])).astype(rows.dtype)
        self._features: Array = np.empty((len(rows), whiten.shape[1]), dtype=rows.dtype)
        self._residual = np.empty(len(rows))

        def fill(block: slice) -> None:
            features = kernel(rows[block], landmarks) @ whiten
            self._features[block] = features
            self._residual[block] = 1.0 - np.einsum("ij,ij->i", features, features)

        for_each_tile(fill, list(blocks(len(rows), _BLOCK_ROWS)))
        np.maximum(self._residual, _SMALLEST_RESIDUAL, out=self._residual)

    def minimise(
        self,
        linear: FloatArray,
        diagonal: FloatArray,
        *,
        cap: float,
        mass: float,
        tolerance: float,
        about: FloatArray | None = None,
        start: FloatArray | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Minimise s'(F F' + diag(r)) s + w'diag(diagonal) w - 2 w'linear, s = w - about, over the capped simplex.

        Semismooth Newton on the dual in the numbers z = F's (as Li, Sun and Toh, SIAM J. Optim. 2018, do for the lasso):
        given z the weights are a clipped line with one shift, found by sorting; the dual's gradient is 2 (F's - z), its
        Hessian -2 (I + F_f' (...) F_f) over the free rows f, and |F's - z|^2 the duality gap. A step costs a few passes
        over the features and f rank^2 operations.

        Args:
            linear: (m,).
            diagonal: (m,) >= 0.
            cap: largest weight, mass / m <= cap <= mass.
            mass: sum of the weights.
            tolerance: duality gap of this model at which to stop; best effort.
            about: (m,) the point around which the model stands for the kernel; None for 0.
            start: z to begin with, from a call for a similar problem; None for that of s = 0 or of uniform weights.

        Returns:
            Weights (m,), feasible up to round-off, and their z.
        """
        m, D = len(self._residual), self._residual + diagonal
        base = linear if about is None else linear + self._residual * about
        if start is not None:
            z = start
        else:
            z = self._backward(np.full(m, mass / m)) if about is None else np.zeros(self._features.shape[1])
        w, lag = self._respond(z, base, D, cap, mass, about)
        for _ in range(_MAX_STEPS):
            if float(lag @ lag) <= tolerance:
                break
            direction = self._newton_direction(w, D, cap, lag)
            slope = float(lag @ direction)
            low, low_slope, high, high_slope, length = 0.0, slope, math.inf, 0.0, 1.0
            for _ in range(_MAX_TRIALS):
                w, next_lag = self._respond(z + length * direction, base, D, cap, mass, about)
                # Slopes, not values: near the maximum these agree in all their digits.
                next_slope = float(next_lag @ direction)
                if abs(next_slope) <= _GOOD_SLOPE * slope:
                    break
                if next_slope > 0.0:
                    low, low_slope = length, next_slope
                else:
                    high, high_slope = length, next_slope
                if math.isinf(high):
                    length = 2.0 * low
                else:
                    share = low_slope / (low_slope - high_slope)
                    length = low + min(max(share, 0.1), 0.9) * (high - low)
            z, lag = z + length * direction, next_lag
        return w, z

    def _respond(
        self, z: FloatArray, base: FloatArray, D: FloatArray, cap: float, mass: float, about: FloatArray | None
    ) -> tuple[FloatArray, FloatArray]:
        """Return the weights that z calls for, and by how much their own z differs: half of the dual's gradient."""
        w = _clipped_line(base - self._forward(z), D, cap, mass)
        return w, self._backward(w if about is None else w - about) - z

    def _newton_direction(self, w: FloatArray, D: FloatArray, cap: float, residual: FloatArray) -> FloatArray:
        free = (w > 0.0) & (w < cap)
        hessian = np.eye(len(residual))
        if free.any():
            slope = 1.0 / D[free]
            features = self._features[free]
            # The shift that keeps the sum takes the mean of the free rows out of the Hessian. Taken out of the rows, and not
            # of the product, it leaves no difference of large numbers.
            features = features - (slope @ features / slope.sum()).astype(features.dtype)
            features *= np.sqrt(slope)[:, None].astype(features.dtype)
            hessian += features.T @ features
            hessian.flat[:: len(hessian) + 1] += np.finfo(features.dtype).eps * np.trace(hessian)
        direction: FloatArray = cho_solve(cho_factor(hessian), residual)
        return direction

    def _forward(self, y: FloatArray) -> FloatArray:
        return (self._features @ y.astype(self._features.dtype)).astype(np.float64)

    def _backward(self, w: FloatArray) -> FloatArray:
        return (self._features.T @ w.astype(self._features.dtype)).astype(np.float64)


def _clipped_line(pull: FloatArray, D: FloatArray, cap: float, mass: float) -> FloatArray:
    """Minimise sum D w^2 - 2 pull w over the capped simplex: clip((pull + t) / D, 0, cap) for the t that sums to mass."""
    at = np.concatenate([-pull, D * cap - pull])
    order = np.argsort(at, kind="stable")
    at = at[order]
    slope = np.cumsum(np.concatenate([1.0 / D, -1.0 / D])[order])
    sums = np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(at))])
    after = min(max(int(np.searchsorted(sums, mass)), 1), len(at) - 1)
    rise = slope[after - 1]
    shift = at[after - 1] + ((mass - sums[after - 1]) / rise if rise > 0.0 else 0.0)
    w: FloatArray = np.clip((pull + shift) / D, 0.0, cap)
    return w
