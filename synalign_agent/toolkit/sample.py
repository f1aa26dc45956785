"""Real rows that stand for all of them where a computation uses no more: without a copy of millions of vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synalign_agent.core.alignment import Rows
from synalign_agent.core.strata import some_rows
from synalign_agent.data.real import RealData


@dataclass(frozen=True)
class Sample:
    """Some of the real rows, and where they are."""

    places: NDArray[np.int64]
    """(n,) positions in `RealData.rows`, ascending."""
    rows: Rows
    """(n, d) with their labels."""


def sample(data: RealData, allowed: NDArray[np.bool_], most_per_label: int, rng: np.random.Generator) -> Sample:
    """Draw at most so many of the allowed rows of every label, all of them where there are no more.

    Args:
        data: the real rows.
        allowed: (N,) which of them may be drawn.
        most_per_label: >= 1.
        rng: draws without replacement.

    Returns:
        The rows drawn; memory is that of their vectors alone.
    """
    kept: list[NDArray[np.int64]] = []
    for code in range(len(data.labels)):
        places = np.flatnonzero(allowed & (data.codes == code))
        kept.append(some_rows(places, most_per_label, rng))
    drawn = np.sort(np.concatenate(kept))
    return Sample(drawn, Rows(data.X[drawn], data.codes[drawn]))
