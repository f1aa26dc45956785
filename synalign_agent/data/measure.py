"""What every distance of a session is measured with: the kernel and the label shares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synalign_agent.config import SessionConfig
from synalign_agent.core.kernels import RBFMixture, median_distance
from synalign_agent.data.real import RealData
from synalign_agent.errors import ConfigError

_STREAM = 0


def session_kernel(config: SessionConfig, real: RealData) -> RBFMixture:
    """Return the kernel of every MMD of the session; its scale is the median distance of reference rows."""
    scale = median_distance(real.reference().X, np.random.default_rng([config.seed, _STREAM]))
    return RBFMixture(tuple(scale * multiplier for multiplier in config.align.lengthscale_multipliers))


def label_prior(config: SessionConfig, real: RealData) -> NDArray[np.float64]:
    """Return the label shares of the result, in the order of `real.labels`.

    Raises:
        ConfigError: the configured prior does not name exactly the labels of the data.
    """
    prior = config.align.label_prior
    if prior == "real":
        return real.prior()
    if prior == "uniform":
        return np.full(len(real.labels), 1 / len(real.labels))
    if set(prior) != set(real.labels) or min(prior.values()) < 0 or sum(prior.values()) <= 0:
        raise ConfigError(
            f"align.label_prior: names {sorted(prior)}, but the data have the labels {list(real.labels)}; "
            "give each a share of 0 or more"
        )
    shares = np.array([prior[label] for label in real.labels])
    normalised: NDArray[np.float64] = shares / shares.sum()
    return normalised
