"""Kernels: callables k(A, B) with k(x, x) = 1.

One convention everywhere: k(x, z) = exp(-||x - z||^2 / 2 l^2), l = lengthscale. Other
libraries write exp(-d^2 / s^2), with s = sqrt(2) l.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import FloatArray, as_rows, squared_distances
from synalign_agent.errors import InputError

_DIAGONAL_TOLERANCE = 1e-6
_EQUAL_DISTANCE = 1e-6
"""Relative to the largest row norm; float32 round-off of equal rows stays below it."""


class Kernel(Protocol):
    """A positive definite function of two rows with k(x, x) = 1."""

    def __call__(self, A: FloatArray, B: FloatArray, /) -> FloatArray:
        """Return the (n, m) float64 kernel matrix of `A` (n, d) and `B` (m, d)."""
        ...


@dataclass(frozen=True, slots=True)
class RBFMixture:
    """Average Gaussian (RBF) kernels of several lengthscales.

    k(x, z) = mean over l of exp(-||x - z||^2 / 2 l^2), in (0, 1]. It is characteristic,
    so an MMD of 0 means equal distributions (Gretton et al., JMLR 2012).

    Raises:
        InputError: if there is no lengthscale, or one is not positive and finite.
    """

    lengthscales: tuple[float, ...]
    """In the unit of the distances between rows."""

    def __post_init__(self) -> None:
        """Check the lengthscales."""
        if not self.lengthscales:
            raise InputError("RBFMixture needs at least one lengthscale.")
        for lengthscale in self.lengthscales:
            if not (math.isfinite(lengthscale) and lengthscale > 0):
                raise InputError(f"A lengthscale must be > 0, got {lengthscale!r}.")

    def __call__(self, A: FloatArray, B: FloatArray, /) -> FloatArray:
        """Return the (n, m) kernel matrix of `A` (n, d) and `B` (m, d)."""
        squared = squared_distances(np.asarray(A, float), np.asarray(B, float))
        first, *others = self.lengthscales
        total: FloatArray = np.exp(squared / (-2.0 * first**2))
        for lengthscale in others:
            term = squared / (-2.0 * lengthscale**2)
            total += np.exp(term, out=term)
        if others:
            total /= len(self.lengthscales)
        return total


def from_gpytorch(kernel: Any) -> Kernel:
    """Adapt a GPyTorch kernel: float64, without gradients, parameters copied.

    Args:
        kernel: a stationary `gpytorch.kernels.Kernel` without a batch shape and with
            k(x, x) = 1, so not wrapped in a ScaleKernel of another outputscale.

    Returns:
        A `Kernel` that does not follow later changes of the argument.

    Raises:
        InputError: here if the kernel is not stationary or has a batch shape; at a call
            if k(x, x) is not 1.
    """
    if not getattr(kernel, "is_stationary", False):
        raise InputError(
            f"{type(kernel).__name__} is not a stationary GPyTorch kernel; "
            "posterior variance and MMD here need k(x, x) = 1 for every x."
        )
    if len(kernel.batch_shape):
        raise InputError("A GPyTorch kernel with a batch shape holds several kernels.")
    return _GPyTorchKernel(copy.deepcopy(kernel).double().eval())


class _GPyTorchKernel:
    def __init__(self, module: Any) -> None:
        self._module = module

    def __call__(self, A: FloatArray, B: FloatArray, /) -> FloatArray:
        import torch  # Heavy, and only this adapter needs it.

        # torch.tensor copies: a read-only numpy view would make torch warn.
        left = torch.tensor(A, dtype=torch.float64)
        right = torch.tensor(B, dtype=torch.float64)
        with torch.no_grad():
            values: FloatArray = self._module(left, right).to_dense().numpy()
            at_zero = float(self._module(left[:1], left[:1]).to_dense().squeeze())
        if abs(at_zero - 1.0) > _DIAGONAL_TOLERANCE:
            raise InputError(
                f"This GPyTorch kernel has k(x, x) = {at_zero:.6g}; it must be 1. "
                "Pass the base kernel without its ScaleKernel."
            )
        return values


def median_distance(X: ArrayLike, rng: np.random.Generator, max_rows: int = 2000) -> float:
    """Return the median Euclidean distance over distinct pairs of rows.

    The usual choice of a lengthscale (Gretton et al., JMLR 2012, section 8).

    Args:
        X: (n, d).
        rng: draws the subsample when n > max_rows.
        max_rows: rows used at most; time and memory are O(max_rows^2).

    Returns:
        A distance > 0; 1.0 if there is no pair or the median pair is of equal rows.

    Raises:
        InputError: if `X` is not a finite 2-D array or `max_rows` < 2.
    """
    rows = as_rows(X)
    if max_rows < 2:
        raise InputError(f"max_rows must be >= 2, got {max_rows}.")
    if len(rows) > max_rows:
        rows = rows[np.sort(rng.choice(len(rows), max_rows, replace=False))]
    if len(rows) == 1:
        return 1.0
    pairs = squared_distances(rows, rows)[np.triu_indices(len(rows), k=1)]
    median = float(np.median(np.sqrt(pairs)))
    largest_norm = float(np.linalg.norm(rows, axis=1).max())
    # No scale can be read off equal rows, and with equal rows every kernel gives 1
    # whatever its lengthscale. 1.0 keeps the kernel defined where 0 would divide by 0.
    return median if median > _EQUAL_DISTANCE * largest_norm else 1.0
