"""Local search on a selection: exchange chosen rows for others where that brings the set closer to the real rows.

A selection of n rows with counts c has the objective w'K_ss w - 2 w'k_sr at w = c / n. Moving one copy from row i to row j
changes n^2 times the objective by g_j - g_i + 2 (1 - k_ij), with the gradient g = 2 (K c - n k_sr). The first part needs no
kernel value, the second, between 0 and 2, one. Kernel thinning (Dwivedi and Mackey, 2021) ends with one pass of such
exchanges; here they go on to a local optimum.

What it is worth, in MMD^2 to held-out rows (5 seeds; AG News and SST-2, pools of 5,000): after exact weights and systematic
resampling, 1 % at 1,000 rows, where it undoes the rounding of fractional weights, and nothing at 2,500, for less than 5 % of
the time of the weights. From a random selection it ends within 0.2 % of the same distance, in a fifth of that time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import Array, FloatArray, IntArray, as_rows
from synalign_agent.core.block_sums import BLOCK_ROWS, weighted_means
from synalign_agent.core.kernels import Kernel
from synalign_agent.errors import InputError

_LIST_ROWS = 128
"""Rows of either kind in a working set: its pairs are scanned at every exchange, which costs less than a pass over all rows."""
_SCAN_ROWS = 256
"""Chosen rows whose pairs are looked through together when the working set has no exchange left."""
_SMALLEST_DECREASE = {np.dtype(np.float32): 1e-3, np.dtype(np.float64): 1e-9}
"""Of n^2 times the objective. Round-off of some thousand kernel values stays below it, so that no exchange is an illusion; it
is far below what one exchange is worth (0.01 to 1)."""


class Swapped(NamedTuple):
    """A selection after local search."""

    copies: IntArray
    """(m,) how often each row is chosen; the sum is that of the start."""
    n_swaps: int
    before: float
    """The objective of the start, w'K_ss w - 2 w'k_sr."""
    after: float
    """The objective of `copies`, never above `before`."""
    is_local_optimum: bool
    """Whether no single exchange lowers the objective any more; False if `max_swaps` ended the search."""


def improve_by_swaps(
    X_syn: ArrayLike,
    copies: ArrayLike,
    kernel: Kernel,
    k_sr: ArrayLike,
    *,
    max_copies: int = 1,
    max_swaps: int | None = None,
) -> Swapped:
    """Exchange chosen rows for others until no exchange lowers the objective.

    Rounds of a working-set method. The rows with the largest gradient among those chosen and with the smallest among those
    that may be added form a short list; inside it the best pair is exchanged, exactly, again and again. One matrix product
    then brings the gradient of all rows up to date. When the list holds nothing, all pairs are looked through by blocks,
    in the order of the gradient, and only where g_j < g_i; finding none proves the local optimum.

    Deterministic; ties go to the lowest index. Call it label by label to keep the labels' quotas. Memory is
    O(m + block^2), never the m x m matrix. Time is at most two kernel columns an exchange, and for the proof at most one
    kernel value a pair.

    Args:
        X_syn: (m, d), the pool.
        copies: (m,) whole numbers in [0, max_copies], not all 0.
        kernel: with k(x, x) = 1.
        k_sr: (m,) mean kernel value of each pool row with the real rows, `block_sums.weighted_means`.
        max_copies: largest count of a row, >= 1.
        max_swaps: most exchanges, >= 0; None for no limit.

    Returns:
        The improved selection, with exact accounting: `after` is `before` less the decrease of every exchange.

    Raises:
        InputError: if a shape or a range is wrong.
    """
    rows = as_rows(X_syn, "X_syn")
    m = len(rows)
    counts = _checked(copies, m, max_copies)
    target = np.asarray(k_sr, dtype=np.float64)
    if target.shape != (m,) or not np.isfinite(target).all():
        raise InputError(f"k_sr must be {m} finite numbers, one for each row of X_syn, got shape {target.shape}.")
    if max_swaps is not None and max_swaps < 0:
        raise InputError(f"max_swaps must be >= 0 or None, got {max_swaps}.")

    n = int(counts.sum())
    chosen = np.flatnonzero(counts)
    Kc = weighted_means(rows, rows[chosen], counts[chosen].astype(np.float64), kernel, BLOCK_ROWS)
    before = float(counts @ Kc / n**2 - 2.0 * counts @ target / n)
    search = _Search(rows, counts, 2.0 * (Kc - n * target), kernel, max_copies)
    proven = search.run(max_swaps)
    return Swapped(search.counts, search.n_swaps, before, before - search.decrease / n**2, proven)


class _Search:
    """The state of a local search; gradients and decreases are of n^2 times the objective."""

    def __init__(self, rows: Array, counts: IntArray, gradient: FloatArray, kernel: Kernel, max_copies: int) -> None:
        self.rows = rows
        self.counts = counts
        self.gradient = gradient
        self.kernel = kernel
        self.max_copies = max_copies
        self.smallest = _SMALLEST_DECREASE[rows.dtype]
        self.n_swaps = 0
        self.decrease = 0.0

    def run(self, max_swaps: int | None) -> bool:
        """Exchange until nothing is left (True) or the limit is reached (False)."""
        left = max_swaps if max_swaps is not None else np.inf
        while self.n_swaps < left:
            out, into = self._short_lists()
            if not self._exchange_within(out, into, left):
                pair = self._scan()
                if pair is None:
                    return True
                self._exchange_within(*pair, left)
        return self._scan() is None

    def _short_lists(self) -> tuple[IntArray, IntArray]:
        out, into = np.flatnonzero(self.counts > 0), np.flatnonzero(self.counts < self.max_copies)
        return (
            out[_smallest(-self.gradient[out], _LIST_ROWS)],
            into[_smallest(self.gradient[into], _LIST_ROWS)],
        )

    def _exchange_within(self, out: IntArray, into: IntArray, left: float) -> bool:
        """Exchange the best pair of a working set until none helps; then update the gradient of all rows."""
        members = np.union1d(out, into)
        K = np.asarray(self.kernel(self.rows[members], self.rows[members]), dtype=np.float64)
        gradient, counts = self.gradient[members], self.counts[members].copy()
        change = np.zeros(len(members))
        while self.n_swaps < left:
            may_leave, may_enter = np.flatnonzero(counts > 0), np.flatnonzero(counts < self.max_copies)
            gain = gradient[may_leave][:, None] - gradient[may_enter] - 2.0 * (1.0 - K[np.ix_(may_leave, may_enter)])
            # A row is no exchange for itself, whatever round-off makes of k(x, x).
            gain[may_leave[:, None] == may_enter] = 0.0
            best = int(np.argmax(gain)) if gain.size else -1
            if best < 0 or gain.flat[best] <= self.smallest:
                break
            i, j = may_leave[best // len(may_enter)], may_enter[best % len(may_enter)]
            gradient += 2.0 * (K[:, j] - K[:, i])
            counts[i] -= 1
            counts[j] += 1
            change[i] -= 1.0
            change[j] += 1.0
            self.decrease += float(gain.flat[best])
            self.n_swaps += 1
        moved = np.flatnonzero(change)
        if not len(moved):
            return False
        self.counts[members] = counts
        self.gradient += 2.0 * weighted_means(
            self.rows, self.rows[members[moved]], change[moved], self.kernel, BLOCK_ROWS
        )
        return True

    def _scan(self) -> tuple[IntArray, IntArray] | None:
        """Return helpful pairs as a working set, or None if there are none."""
        out, into = np.flatnonzero(self.counts > 0), np.flatnonzero(self.counts < self.max_copies)
        out = out[np.argsort(-self.gradient[out], kind="stable")]
        into = into[np.argsort(self.gradient[into], kind="stable")]
        for start in range(0, len(out), _SCAN_ROWS):
            leaving = out[start : start + _SCAN_ROWS]
            n_lower = int(np.searchsorted(self.gradient[into], self.gradient[leaving[0]] - self.smallest))
            if n_lower == 0:
                return None
            for begin in range(0, n_lower, BLOCK_ROWS):
                entering = into[begin : min(begin + BLOCK_ROWS, n_lower)]
                K = self.kernel(self.rows[leaving], self.rows[entering])
                gain = self.gradient[leaving][:, None] - self.gradient[entering] - 2.0 * (1.0 - K)
                gain[leaving[:, None] == entering] = 0.0
                best = gain.max(axis=1)
                helpful = np.flatnonzero(best > self.smallest)[:_LIST_ROWS]
                if len(helpful):
                    return leaving[helpful], entering[np.unique(gain[helpful].argmax(axis=1))]
        return None


def _smallest(values: FloatArray, n: int) -> IntArray:
    """Return where the n smallest values are; equal ones by index."""
    if n >= len(values):
        return np.argsort(values, kind="stable")
    # All up to the n-th value, so that ties at the border are cut by index and not by the partition.
    candidates = np.flatnonzero(values <= np.partition(values, n - 1)[n - 1])
    found: IntArray = candidates[np.argsort(values[candidates], kind="stable")][:n]
    return found


def _checked(copies: ArrayLike, m: int, max_copies: int) -> IntArray:
    given = np.asarray(copies)
    if given.shape != (m,) or not np.issubdtype(given.dtype, np.integer):
        raise InputError(f"copies must be {m} whole numbers, one for each row of X_syn, got shape {given.shape}.")
    if max_copies < 1:
        raise InputError(f"max_copies must be >= 1, got {max_copies}.")
    if given.min() < 0 or given.max() > max_copies or not given.any():
        raise InputError(f"copies must lie between 0 and max_copies = {max_copies}, and some row must be chosen.")
    return given.astype(np.intp)
