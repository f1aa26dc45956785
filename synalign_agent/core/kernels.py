"""Kernels: callables k(A, B) with k(x, x) = 1.

One convention everywhere: k(x, z) = exp(-||x - z||^2 / 2 l^2), l = lengthscale. Other
libraries write exp(-d^2 / s^2), with s = sqrt(2) l.
"""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import Array, as_rows, squared_distances, squared_norms
from synalign_agent.core.strata import some_rows
from synalign_agent.errors import InputError

_DIAGONAL_TOLERANCE = 1e-6
_EQUAL_DISTANCE = 1e-6
"""Relative to the largest row norm; float32 round-off of equal rows stays below it."""
_TILE_VALUES = 2**18
"""Kernel values computed together: 1 MiB of float32, so that the passes after the matrix product stay in the cache."""
_AUGMENTED_ROWS = 512
"""From here on, copying the rows is cheaper than more passes over the values."""


class Kernel(Protocol):
    """A positive definite function of two rows with k(x, x) = 1."""

    def __call__(self, A: Array, B: Array, /) -> Array:
        """Return the (n, m) kernel matrix of `A` (n, d) and `B` (m, d): float32 if both are, else float64."""
        ...


@runtime_checkable
class IsotropicKernel(Kernel, Protocol):
    """A kernel of the distance alone, for callers who have the distances already."""

    def of_squared_distances(self, squared: Array) -> Array:
        """Return the kernel values at these squared distances (>= 0), which are overwritten."""
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

    def __call__(self, A: Array, B: Array, /) -> Array:
        """Return the (n, m) kernel matrix of `A` (n, d) and `B` (m, d)."""
        left, right = _same_precision(A, B)
        return self._of_exponents(_scaled_exponents(left, right, 1.0 / max(self.lengthscales) ** 2))

    def of_squared_distances(self, squared: Array) -> Array:
        squared *= -0.5 / max(self.lengthscales) ** 2
        return self._of_exponents(np.atleast_2d(squared)).reshape(squared.shape)

    def _of_exponents(self, values: Array) -> Array:
        """Turn -||a - b||^2 / 2 l^2, with the widest l, into kernel values, in place."""
        widest, *narrower = sorted(self.lengthscales, reverse=True)
        # A pass over the values costs a tenth of the matrix product, so they are finished tile by tile, in the cache.
        tile_rows = max(1, _TILE_VALUES // max(1, values.shape[1]))
        for start in range(0, len(values), tile_rows):
            tile = values[start : start + tile_rows]
            # Round-off can leave a tiny positive exponent for equal rows.
            np.exp(np.minimum(tile, 0.0, out=tile), out=tile)
            if narrower:
                self._add_narrower(tile, widest, narrower)
        return values

    def _add_narrower(self, tile: Array, widest: float, narrower: list[float]) -> None:
        """Replace the widest kernel's values by the mean of all of them.

        exp(-s / 2 l^2) is a power of the next wider one: for lengthscales in steps of 2, squaring twice is cheaper than `exp`.
        """
        power, total, wider = tile, tile.copy(), widest
        for lengthscale in narrower:
            ratio = (wider / lengthscale) ** 2
            power = np.square(np.square(power)) if ratio == 4.0 else np.power(power, ratio)
            total += power
            wider = lengthscale
        np.divide(total, len(self.lengthscales), out=tile)


class KernelColumn:
    """Kernel values of the same rows with one row after another.

    With an isotropic kernel the squared norms of the rows are computed once, which halves the reading of the rows.
    """

    def __init__(self, kernel: Kernel) -> None:
        """Choose the way once: `isinstance` of a protocol is slow.

        Args:
            kernel: any kernel.
        """
        self._kernel = kernel
        self._isotropic = kernel if isinstance(kernel, IsotropicKernel) else None

    def __call__(self, X: Array, norms: Array, x: Array) -> Array:
        """Return (n,) values k(X, x).

        Args:
            X: (n, d).
            norms: (n,) its `squared_norms`.
            x: (d,), in the precision of X.
        """
        if self._isotropic is None:
            column: Array = self._kernel(X, x[None, :])[:, 0]
            return column
        squared: Array = X @ (-2.0 * x)
        squared += norms
        squared += x @ x
        return self._isotropic.of_squared_distances(np.maximum(squared, 0.0, out=squared))


def _same_precision(A: Array, B: Array) -> tuple[Array, Array]:
    if A.shape[1] != B.shape[1]:
        raise InputError(f"Rows of {A.shape[1]} and of {B.shape[1]} dimensions cannot be compared.")
    precision = np.float32 if A.dtype == B.dtype == np.float32 else np.float64
    return A.astype(precision, copy=False), B.astype(precision, copy=False)


def _scaled_exponents(A: Array, B: Array, scale: float) -> Array:
    """Return -scale ||a - b||^2 / 2 for all pairs, (n, m)."""
    a_terms = -0.5 * scale * squared_norms(A)
    b_terms = -0.5 * scale * squared_norms(B)
    if min(len(A), len(B)) < _AUGMENTED_ROWS:
        exponents: Array = A @ B.T
        exponents *= scale
        exponents += a_terms[:, None]
        exponents += b_terms
        return exponents
    # One matrix product, [scale a, a_term, 1] [b, 1, b_term]', and no further pass over the result.
    ones = np.ones((max(len(A), len(B)), 1), A.dtype)
    augmented: Array = np.hstack([scale * A, a_terms[:, None], ones[: len(A)]])
    return augmented @ np.hstack([B, ones[: len(B)], b_terms[:, None]]).T


@dataclass(frozen=True, slots=True)
class Cosine:
    """Cosine similarity, k(x, z) = x'z / ||x|| ||z||, in [-1, 1].

    A linear kernel on normalised rows: it compares means of directions only, so it is not characteristic. An MMD of 0 does
    not mean equal distributions; use it for exploration or to reproduce first-moment methods.
    """

    def __call__(self, A: Array, B: Array, /) -> Array:
        """Return the (n, m) similarities of `A` (n, d) and `B` (m, d); a zero row is similar to nothing (0)."""
        left, right = _normalised(A), _normalised(B)
        if left.shape[1] != right.shape[1]:
            raise InputError(f"Rows of {left.shape[1]} and of {right.shape[1]} dimensions cannot be compared.")
        values: Array = left @ right.T
        return values


def _normalised(A: Array) -> Array:
    norms = np.linalg.norm(A, axis=1, keepdims=True)
    unit: Array = A / np.where(norms > 0, norms, 1.0)
    return unit


def stationary(name: str, lengthscale: float) -> Kernel:
    """Return a stationary kernel by name.

    Args:
        name: rbf, matern12, matern32, matern52 (nu = 1/2, 3/2, 5/2) or rq (rational quadratic, alpha = 1).
        lengthscale: > 0, in the unit of the distances between rows.

    Raises:
        InputError: if there is none of this name or the lengthscale is not positive.
    """
    rbf = RBFMixture((lengthscale,))
    if name == "rbf":
        return rbf
    with warnings.catch_warnings():
        # GPyTorch still compiles with torch.jit.script on import, which torch deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        from gpytorch import kernels
    smoothness = {"matern12": 0.5, "matern32": 1.5, "matern52": 2.5}
    if name in smoothness:
        kernel = kernels.MaternKernel(nu=smoothness[name])
    elif name == "rq":
        kernel = kernels.RQKernel()
        kernel.alpha = 1.0
    else:
        raise InputError(f"There is no kernel {name!r}; choose one of rbf, {', '.join(smoothness)}, rq.")
    kernel.lengthscale = lengthscale
    return from_gpytorch(kernel)


def from_gpytorch(kernel: Any) -> Kernel:
    """Adapt a GPyTorch kernel: without gradients, parameters copied.

    Args:
        kernel: a stationary `gpytorch.kernels.Kernel` (RBF, Matern, RQ, ...) without a batch shape and with
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
    return GPyTorchKernel(kernel)


class GPyTorchKernel:
    """A GPyTorch kernel as a `Kernel`; made by `from_gpytorch`."""

    def __init__(self, module: Any) -> None:
        """Copy the module."""
        # One module a precision: GPyTorch computes in that of its parameters.
        self._double = copy.deepcopy(module).double().eval()
        self._single = copy.deepcopy(self._double).float()

    def __call__(self, A: Array, B: Array, /) -> Array:
        """Return the (n, m) kernel matrix of `A` (n, d) and `B` (m, d)."""
        import torch  # Heavy, and only this adapter needs it.

        is_single = A.dtype == np.float32 and B.dtype == np.float32
        dtype = torch.float32 if is_single else torch.float64
        # torch.tensor copies: a read-only numpy view would make torch warn.
        left, right = torch.tensor(A, dtype=dtype), torch.tensor(B, dtype=dtype)
        values: Array = self.on_device(left, right).numpy()
        return values

    def on_device(self, A: Any, B: Any) -> Any:
        """Return the (n, m) kernel matrix of two tensors, on their device and in their precision."""
        import torch

        module = self._single if A.dtype == torch.float32 else self._double
        with torch.no_grad():
            module = module.to(A.device)
            values = module(A, B).to_dense()
            at_zero = float(module(A[:1], A[:1]).to_dense().squeeze()) if len(A) else 1.0
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
    rows = rows[some_rows(np.arange(len(rows)), max_rows, rng)]
    if len(rows) == 1:
        return 1.0
    # float64: in float32, pairs of equal rows would come out at a distance of 3e-4.
    rows = rows.astype(np.float64, copy=False)
    pairs = squared_distances(rows, rows)[np.triu_indices(len(rows), k=1)]
    median = float(np.median(np.sqrt(pairs)))
    largest_norm = float(np.linalg.norm(rows, axis=1).max())
    # No scale can be read off equal rows, and with equal rows every kernel gives 1
    # whatever its lengthscale. 1.0 keeps the kernel defined where 0 would divide by 0.
    return median if median > _EQUAL_DISTANCE * largest_norm else 1.0
