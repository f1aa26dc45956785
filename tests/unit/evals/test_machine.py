"""What a block needs in memory shows, also where the process had as much before."""

from __future__ import annotations

import sys

import numpy as np
import pytest

machine = pytest.importorskip("evals.machine", reason="the evals are not part of the source distribution")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a part of a run")
def test_peak_memory_is_that_of_the_block() -> None:
    np.ones(4_000_000).sum()
    for n, least, most in ((8_000_000, 60e6, 90e6), (1_000, 0.0, 4e6)):
        with machine.PeakMemory() as memory:
            np.ones(n).sum()
        assert memory.above_start is not None and least <= memory.above_start <= most
    with machine.PeakMemory() as memory:
        [np.ones(5_000) for _ in range(1000)]  # 40 MB in pieces that the process keeps when they are freed
    assert memory.above_start is not None and memory.above_start > 30e6
    with machine.PeakMemory() as memory:
        [np.ones(5_000) for _ in range(1000)]
    assert memory.above_start is not None and memory.above_start > 30e6
