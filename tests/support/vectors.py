"""Small random vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

D = 8


def random_rows(n: int, seed: int = 0, d: int = D) -> NDArray[np.float32]:
    return np.random.default_rng((42, n, seed)).normal(size=(n, d)).astype(np.float32)


def names(n: int) -> list[str]:
    return [f"id{number}" for number in range(n)]
