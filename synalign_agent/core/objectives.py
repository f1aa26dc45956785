"""The ways to weigh a pool, behind one protocol: `kernel`, and the baselines that it is compared with."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.align import Weights, fit_weights
from synalign_agent.core.arrays import as_rows
from synalign_agent.core.baselines.herding import herding
from synalign_agent.core.baselines.projection import projection
from synalign_agent.core.baselines.thinning import thinning
from synalign_agent.core.certificate import MAX_REAL_ROWS, certify
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.real_side import real_side
from synalign_agent.core.simplex import project_capped_simplex
from synalign_agent.errors import InputError

ObjectiveName = Literal["kernel", "projection", "herding", "thinning", "none"]
"""`kernel`: exact weights for the MMD, the default. `projection`: the paper's. `herding`, `thinning`: equal weights on a
selection. `none`: uniform weights."""


class Objective(Protocol):
    """A way to weigh the rows of a pool so that n of them, drawn by weight, resemble the real rows.

    Whatever a method minimises, the result carries the objective and the duality gap of `kernel`, so that results compare.
    """

    def __call__(
        self,
        X_syn: ArrayLike,
        X_real: ArrayLike,
        *,
        n: int,
        cap: float,
        kernel: Kernel,
        rng: np.random.Generator,
        tolerance: float,
    ) -> Weights:
        """Return weights for the rows of `X_syn` (m, d) against `X_real` (h, d).

        `n` is the number of rows that will be drawn, `cap` the largest weight (1 / n: no duplicates), `tolerance` a
        duality gap in units of MMD^2.
        """
        ...


def objective(name: str) -> Objective:
    """Return the objective of a name.

    Args:
        name: one of `ObjectiveName`.

    Raises:
        InputError: if there is none of this name.
    """
    if name not in _OBJECTIVES:
        raise InputError(f"There is no objective {name!r}; choose one of {', '.join(get_args(ObjectiveName))}.")
    return _OBJECTIVES[name]


def _kernel(
    X_syn: ArrayLike,
    X_real: ArrayLike,
    *,
    n: int,
    cap: float,
    kernel: Kernel,
    rng: np.random.Generator,
    tolerance: float,
) -> Weights:
    return fit_weights(X_syn, X_real, kernel, cap=cap, tolerance=tolerance, max_real_rows=MAX_REAL_ROWS, rng=rng)


def _none(
    X_syn: ArrayLike,
    X_real: ArrayLike,
    *,
    n: int,
    cap: float,
    kernel: Kernel,
    rng: np.random.Generator,
    tolerance: float,
) -> Weights:
    syn, real = as_rows(X_syn, "X_syn"), as_rows(X_real, "X_real")
    # Refuses a cap that uniform weights exceed.
    uniform = project_capped_simplex(np.full(len(syn), 1.0 / len(syn)), cap)
    side = real_side(syn, real, kernel, None, MAX_REAL_ROWS, rng)
    return certify(syn, side, uniform, kernel, cap=cap, tolerance=tolerance, n_iterations=0)


_OBJECTIVES: dict[str, Objective] = {
    "kernel": _kernel,
    "projection": projection,
    "herding": herding,
    "thinning": thinning,
    "none": _none,
}
