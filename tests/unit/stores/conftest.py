from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support.vectors import D, names, random_rows

from synalign_agent.stores.vectors import VectorStore


@pytest.fixture
def X() -> NDArray[np.float32]:
    return random_rows(50)


@pytest.fixture
def store(X: NDArray[np.float32]) -> VectorStore:
    made = VectorStore("encoder", D)
    made.add(names(50), X)
    return made
