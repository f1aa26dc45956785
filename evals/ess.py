"""Weights of different methods at one effective sample size, so that evenness and closeness are not mixed up."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax

from synalign_agent.core.arrays import FloatArray
from synalign_agent.core.resample import effective_sample_size


def temper(weights: FloatArray, least_ess: float) -> FloatArray:
    """Return weights^t / sum, with the largest t <= 1 at which the effective sample size is at least `least_ess`.

    The usual way to make importance weights more even (tempering): it keeps their order. Rows of weight 0 keep it, so the
    effective sample size reaches their number at most; if that is below `least_ess`, the others get equal weights.

    Args:
        weights: (m,) >= 0, sum 1.
        least_ess: >= 1.
    """
    held = np.flatnonzero(weights)
    logs = np.log(weights[held])

    def at(power: float) -> FloatArray:
        even = np.zeros(len(weights))
        even[held] = np.exp(log_softmax(power * logs))
        return even

    if effective_sample_size(weights) >= least_ess:
        return weights
    if len(held) <= least_ess:
        return at(0.0)
    return at(brentq(lambda power: effective_sample_size(at(power)) - least_ess, 0.0, 1.0, xtol=1e-9))
