"""The capped simplex {w: 0 <= w_i <= cap, sum w = mass}: projection, linear minimum; and whole numbers that split a total."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import FloatArray
from synalign_agent.errors import InputError

FORCED = 1e-12
"""With cap * m / mass this close to 1 every weight is at the cap: one feasible point is left."""


def project_capped_simplex(v: ArrayLike, cap: float, mass: float = 1.0) -> FloatArray:
    """Project v onto {w: 0 <= w_i <= cap, sum w = mass}.

    The projection is clip(v - t, 0, cap) for the one shift t at which it sums to the mass. The sum is piecewise linear in t,
    so t is found exactly from the sorted breakpoints v_i and v_i - cap (Wang and Lu, arXiv 1503.01002). O(m log m).

    Args:
        v: (m,), finite.
        cap: largest weight, >= mass / m; `mass` or more gives the plain simplex.
        mass: sum of the weights, > 0.

    Returns:
        (m,) float64.

    Raises:
        InputError: if `v` is not finite and 1-D, the mass is not positive, or cap * m < mass.
    """
    values = np.asarray(v, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise InputError("v must be a finite, non-empty 1-D array.")
    if not mass > 0:
        raise InputError(f"The mass of a simplex must be > 0, got {mass!r}.")
    check_cap(cap, len(values), mass)
    cap = min(cap, mass)  # Beyond the mass a cap never binds.
    if cap * len(values) <= mass * (1.0 + FORCED):
        return np.full(len(values), mass / len(values))
    # A shift of all values changes nothing, and near 0 they have more digits.
    return _project(values - values.max(), cap, mass)


def check_cap(cap: float, m: int, mass: float = 1.0) -> None:
    """Refuse a cap under which m weights cannot reach the mass.

    Raises:
        InputError: if cap * m < mass, or the cap is not a number.
    """
    if not cap * m >= mass * (1.0 - FORCED):
        raise InputError(f"{m} weights of at most {cap!r} cannot sum to {mass:.6g}; cap must be >= {mass / m:.6g}.")


def linear_minimum(gradient: FloatArray, cap: float, mass: float = 1.0) -> float:
    """Return the minimum of gradient'w over the capped simplex: the lowest entries, filled to the cap.

    Args:
        gradient: (m,).
        cap: largest weight, mass / m <= cap <= mass.
        mass: sum of the weights.
    """
    m = len(gradient)
    n_full = min(math.floor(mass / cap + 1e-9), m)
    lowest = np.partition(gradient, min(n_full, m - 1))
    least = cap * float(lowest[:n_full].sum())
    rest = mass - cap * n_full
    if n_full < m and rest > 0.0:
        least += rest * float(lowest[n_full])
    return least


def label_quotas(prior: Mapping[str, float], n: int) -> dict[str, int]:
    """Split n samples over labels in proportion to a prior, by largest remainder.

    Args:
        prior: label -> mass >= 0, not all 0; scaled to sum 1.
        n: samples in all, >= 0.

    Returns:
        Label -> count with sum n, in the order of `prior`. Equal remainders go to the
        larger mass, then to the label that sorts first.

    Raises:
        InputError: if a mass is negative or not finite, all are 0, or n < 0.
    """
    if n < 0:
        raise InputError(f"n must be >= 0, got {n}.")
    if not all(math.isfinite(mass) and mass >= 0 for mass in prior.values()):
        raise InputError("The masses of a prior must be finite and >= 0.")
    total = math.fsum(prior.values())
    if total <= 0:
        raise InputError("A prior needs a label with a mass above 0.")
    exact = {label: n * mass / total for label, mass in prior.items()}
    # Rounded, or 0.1 + 0.2 and the like would break a tie.
    exact = {label: round(share, 9) for label, share in exact.items()}
    quotas = {label: math.floor(share) for label, share in exact.items()}
    remainder = {label: round(exact[label] - quotas[label], 9) for label in prior}
    by_remainder = sorted(
        (label for label, mass in prior.items() if mass > 0),
        key=lambda label: (-remainder[label], -exact[label], label),
    )
    for label in by_remainder[: n - sum(quotas.values())]:
        quotas[label] += 1
    return quotas


def _project(v: FloatArray, cap: float, mass: float) -> FloatArray:
    m = len(v)
    breakpoints = np.concatenate([v, v - cap])
    # Going down through v_i frees weight i; down through v_i - cap it stops at the cap.
    change = np.repeat([1.0, -1.0], m)
    order = np.argsort(-breakpoints, kind="stable")
    at, n_free = breakpoints[order], np.cumsum(change[order])
    sums = np.concatenate([[0.0], np.cumsum(n_free[:-1] * -np.diff(at))])
    after = min(int(np.searchsorted(sums, mass)), 2 * m - 1)
    # Where round-off puts the mass on a flat piece, no weight is free and any shift on the piece is right.
    shift = at[after - 1] - (mass - sums[after - 1]) / max(n_free[after - 1], 1.0)
    w: FloatArray = np.clip(v - shift, 0.0, cap)
    # The long sum above rounds; what is missing is spread over the free weights.
    free = (w > 0.0) & (w < cap)
    if free.any():
        w[free] += (mass - w.sum()) / np.count_nonzero(free)
    np.clip(w, 0.0, cap, out=w)
    return w
