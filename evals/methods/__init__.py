"""Ways to weigh and select synthetic rows, one a file behind one signature (`base.Select`); `session` takes all labels."""

from evals.methods import dsir, herding, kernel, logistic, projection, random, thinning, voting
from evals.methods.base import Select, Weighted

OURS = "kernel"
SESSION = "session"
"""Not among `METHODS`: see `session.select_all`."""
METHODS: dict[str, Select] = {
    "random": random.select,
    "projection": projection.select,
    OURS: kernel.select,
    "herding": herding.select,
    "thinning": thinning.select,
    "logistic": logistic.select,
    "dsir": dsir.select,
    "voting": voting.select,
}
"""By name, in the order of tables."""
LABELS = {
    "random": "random",
    "projection": "random projections (the paper)",
    OURS: "kernel weights (ours)",
    SESSION: "the same, as sessions (ours)",
    "herding": "kernel herding",
    "thinning": "kernel thinning (goodpoints)",
    "logistic": "logistic density ratio",
    "dsir": "DSIR, hashed n-grams",
    "voting": "nearest-real voting (Private Evolution)",
}

__all__ = ["LABELS", "METHODS", "OURS", "SESSION", "Select", "Weighted"]
