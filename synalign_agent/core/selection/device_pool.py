"""A candidate pool on a torch device: all rows, updated at every step.

A GPU reads a million rows in under a millisecond and holds the whole factor, so there it pays to update every row rather
than to be lazy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from synalign_agent.core.arrays import Array, FloatArray, IntArray
from synalign_agent.core.gp import Pivot, PosteriorVariance
from synalign_agent.core.kernels import GPyTorchKernel, Kernel, RBFMixture
from synalign_agent.errors import InputError

_FIRST_CAPACITY = 64


class DevicePool:
    """What `CandidatePool` is, on a torch device. Memory there is n (d + 2 t) values, in the precision of X."""

    def __init__(
        self, rows: IntArray, X: Array, scales: FloatArray, kernel: Kernel, posterior: PosteriorVariance, device: str
    ) -> None:
        """Move the rows to the device and condition them on what the posterior holds.

        Args:
            rows: (n,) their indices, ascending.
            X: (n, d) the rows themselves.
            scales: (n,) what their variances are multiplied by, >= 0.
            kernel: an `RBFMixture` or a GPyTorch kernel.
            posterior: what is conditioned already.
            device: of torch, such as `cuda` or `cpu`.

        Raises:
            InputError: if torch cannot use the device, or cannot compute the kernel.
        """
        import torch

        try:
            self._X = torch.tensor(X, device=device)
        except (RuntimeError, AssertionError) as error:  # AssertionError: a CPU build asked for `cuda`
            raise InputError(f"device: torch cannot use {device!r} here: {error}") from None
        self.rows = rows
        self._torch, self._device = torch, device
        self._kernel = _torch_kernel(kernel)
        self._scales = self._tensor(scales)
        self._squared_norms = (self._X * self._X).sum(1)
        self._factor = torch.empty((_FIRST_CAPACITY, len(X)), dtype=self._X.dtype, device=device)
        self._size = 0
        self._variance = torch.ones(len(X), dtype=self._X.dtype, device=device)
        for x, pivot in posterior.pivots():
            self.condition(x, pivot)

    @property
    def variance(self) -> Array:
        """Return (n,) posterior variances; round-off may leave them slightly below 0."""
        values: Array = self._variance.cpu().numpy()
        return values

    def near_best(self, slack: float) -> IntArray:
        """Return the positions of rows that may be the best if every score may be wrong by `slack`; none if all are dropped."""
        scores = self._variance * self._scales
        best = float(scores.max())
        if best == -np.inf:
            return np.zeros(0, dtype=np.intp)
        near: IntArray = self._torch.nonzero(scores >= best - 2.0 * slack)[:, 0].cpu().numpy()
        return near

    def drop(self, row: int) -> None:
        """Never return this row again; rows that are not held are ignored."""
        position = int(np.searchsorted(self.rows, row))
        if position < len(self.rows) and self.rows[position] == row:
            self._variance[position] = -np.inf
            self._scales[position] = 1.0

    def condition(self, x: Array, pivot: Pivot) -> None:
        """Follow the posterior, which was conditioned on the row x, (d,)."""
        if self._size == len(self._factor):
            self._factor = self._torch.cat([self._factor, self._torch.empty_like(self._factor)])
        row = self._tensor(x)
        squared = (self._squared_norms + row @ row - 2.0 * (self._X @ row)).clamp_(min=0.0)
        column = self._kernel(self._X, row[None, :], squared)
        column = (column - self._tensor(pivot.known) @ self._factor[: self._size]) / pivot.root
        self._factor[self._size] = column
        self._size += 1
        self._variance -= column * column

    def _tensor(self, values: Array) -> Any:
        return self._torch.tensor(values, dtype=self._X.dtype, device=self._device)


def _torch_kernel(kernel: Kernel) -> Callable[[Any, Any, Any], Any]:
    """Return k(X, row, squared distances) -> (n,), in torch."""
    if isinstance(kernel, RBFMixture):
        scales = [-0.5 / lengthscale**2 for lengthscale in kernel.lengthscales]
        return lambda X, row, squared: sum((squared * scale).exp() for scale in scales) / len(scales)
    if isinstance(kernel, GPyTorchKernel):
        return lambda X, row, squared: kernel.on_device(X, row)[:, 0]
    raise InputError(
        f"A {type(kernel).__name__} cannot be computed on a torch device; use an RBFMixture or a GPyTorch kernel."
    )
