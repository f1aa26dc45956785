"""Columns of a pool's kernel matrix, computed when they are asked for and kept while there is room."""

from __future__ import annotations

import numpy as np

from synalign_agent.core.arrays import Array, FloatArray, IntArray
from synalign_agent.core.block_sums import blocks
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.parallel import for_each_tile

_BLOCK_ROWS = 4096
_SUMMED_COLUMNS = 64
"""Few enough that a float32 sum over them keeps its digits; the sums of sums are float64."""
_NOBODY = -1


class KernelColumns:
    """A cache of at most `capacity` columns K[:, j], the least recently used making room.

    Memory: m * capacity values in the precision of the rows, taken from the system as columns come.
    """

    def __init__(self, rows: Array, kernel: Kernel, capacity: int) -> None:
        """Start empty.

        Args:
            rows: (m, d).
            kernel: symmetric.
            capacity: most columns at a time, >= 1.
        """
        self._rows = rows
        self._kernel = kernel
        # A column lies in a row of this array, so that it is read in one piece. Zeros, because `times` reads whole blocks of
        # slots; the system gives them without writing them.
        self._values: Array = np.zeros((capacity, len(rows)), dtype=rows.dtype)
        self._slot_of = np.full(len(rows), _NOBODY)
        self._owner = np.full(capacity, _NOBODY)
        self._last_use = np.zeros(capacity, dtype=np.int64)
        self._clock = 0

    @property
    def capacity(self) -> int:
        """Most columns at a time."""
        return len(self._values)

    def hold(self, indices: IntArray) -> None:
        """Compute the columns that are missing; none of `indices` makes room for another.

        Args:
            indices: distinct rows of the pool, at most `capacity`.
        """
        self._clock += 1
        slots = self._slot_of[indices]
        self._last_use[slots[slots != _NOBODY]] = self._clock
        missing = indices[slots == _NOBODY]
        if not len(missing):
            return
        taken = np.argsort(self._last_use, kind="stable")[: len(missing)]
        evicted = self._owner[taken]
        self._slot_of[evicted[evicted != _NOBODY]] = _NOBODY
        self._owner[taken], self._slot_of[missing], self._last_use[taken] = missing, taken, self._clock
        X = self._rows[missing]

        def fill(block: slice) -> None:
            self._values[taken, block] = self._kernel(X, self._rows[block])

        for_each_tile(fill, list(blocks(len(self._rows), _BLOCK_ROWS)))

    def times(self, indices: IntArray, weights: FloatArray) -> FloatArray:
        """Return sum_j weights_j K[:, indices_j], (m,) float64.

        Args:
            indices: distinct rows whose columns are held.
            weights: as many.
        """
        by_slot = np.zeros(self.capacity, dtype=self._values.dtype)
        by_slot[self._slot_of[indices]] = weights
        total = np.zeros(len(self._rows))
        for some in blocks(self.capacity, _SUMMED_COLUMNS):
            if by_slot[some].any():
                total += by_slot[some] @ self._values[some]
        return total
