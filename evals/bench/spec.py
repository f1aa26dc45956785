"""What is measured: one method, one problem, one size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from synalign_agent.core.arrays import Array, FloatArray, IntArray
from synalign_agent.core.kernels import RBFMixture

OURS = "ours"
SELECTED_ROWS = 1000
"""About how many rows herding and thinning keep; thinning can only halve, so it is m / 2^k."""


class NotRunError(Exception):
    """A method that cannot do a problem; the message is the reason that the table shows."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A measurement, complete: a process of its own can carry it out."""

    task: Literal["selection", "alignment"]
    method: str = OURS
    n: int = 0
    """Real rows."""
    n_picks: int = 0
    """Selection: rows to pick."""
    m: int = 0
    """Alignment: synthetic rows."""
    cap_times_m: float | None = None
    """Alignment: the largest weight, in units of the uniform weight 1 / m; None for no cap."""
    min_ess: float | None = None
    """Alignment: floor of the effective sample size; None for none."""
    lengthscale: float = 1.0
    noise: float = 1e-4
    tolerance: float = 1e-6
    seed: int = 0
    limit: float = 120.0
    """Seconds that one run of the method may take."""

    @property
    def problem(self) -> str:
        """Name what is to be solved, by whatever method."""
        if self.task == "selection":
            return f"selection n={self.n} T={self.n_picks}"
        constraint = f" cap={self.cap_times_m:g}/m" if self.cap_times_m else ""
        constraint += f" ess>={self.min_ess:g}" if self.min_ess else ""
        return f"alignment m={self.m} n={self.n}{constraint}"

    @property
    def key(self) -> str:
        """Name the measurement in the results file."""
        return f"{self.problem} {self.method}"

    @property
    def kernel(self) -> RBFMixture:
        """Return exp(-d^2 / 2 l^2), the same for every method."""
        return RBFMixture((self.lengthscale,))

    @property
    def cap(self) -> float:
        """Return the largest weight; 1 for none."""
        return 1.0 if self.cap_times_m is None else min(1.0, self.cap_times_m / self.m)

    @property
    def halvings(self) -> int:
        """Return how often thinning halves the pool: to about 1,000 rows, or fewer times where the cap wants more rows."""
        wanted = max(1, round(math.log2(self.m / SELECTED_ROWS)))
        return wanted if self.cap_times_m is None else min(wanted, math.floor(math.log2(self.cap_times_m)))

    @property
    def n_selected(self) -> int:
        """Return how many rows herding and thinning keep."""
        return int(self.m // 2**self.halvings)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


Rows = tuple[Array, Array]
"""Real rows (n, d) and, for an alignment, synthetic rows (m, d)."""
Selector = Callable[[Array, Spec, float], IntArray]
"""(X, spec, deadline on `time.perf_counter`) -> picks in order; fewer than asked if the deadline came first."""
Aligner = Callable[[Array, Array, Spec, float], "Alignment"]
"""(synthetic rows, real rows, spec, deadline) -> weights."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """Weights, and what the method itself says about them."""

    w: FloatArray
    """(m,) >= 0, sum 1"""
    own_gap: float | None = None
    """The duality gap by the method's own account; None if it gives none."""
    n_iterations: int | None = None
    objective_error: float = 0.0
    """Standard error of the objective where the real side was subsampled."""
    sampling_excess: float = 0.0
    """Bound on the mean excess of the objective where the real side was subsampled."""
    is_finished: bool = True
    """False if the deadline came first."""


@dataclass(frozen=True, slots=True)
class Method:
    """A competitor."""

    label: str
    run: Callable[..., Any]
    """A `Selector` or an `Aligner`."""
    least_bytes: Callable[[Spec], float]
    """Memory that it cannot do without, so that a size that does not fit is not tried."""


def uniform(m: int) -> FloatArray:
    """Return (m,) equal weights."""
    return np.full(m, 1.0 / m)
