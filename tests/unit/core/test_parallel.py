from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from synalign_agent.core.block_sums import self_sums, symmetric_product, weighted_means
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.parallel import for_each_tile, one_blas_thread

# Which thread may set the limit depends on what else runs in a process, so each of these has its own.
PRELUDE = """
import os, threading
from synalign_agent.core.parallel import for_each_tile, one_blas_thread
from threadpoolctl import threadpool_info

def blas():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

def together(n):
    seen, barrier = set(), threading.Barrier(n)
    def work(tile):
        barrier.wait(20)  # Breaks unless n tiles are worked on at a time.
        assert blas() == {1}
        seen.add(threading.get_ident())
    for_each_tile(work, range(2 * n))
    return len(seen)
"""
LIMIT_IS_LIFTED_BY_THE_LAST = """
inside, may_leave = threading.Event(), threading.Event()
def hold():
    with one_blas_thread() as n_threads:
        assert n_threads == 2
        inside.set()
        may_leave.wait(20)
other = threading.Thread(target=hold)
other.start()
inside.wait(20)
with one_blas_thread():
    assert blas() == {1}
assert blas() == {1}, "the other thread is still inside"
may_leave.set()
other.join()
assert blas() == {2}
"""
TILES_SHARE_THE_THREADS = """
assert together(2) == 2
with one_blas_thread():
    assert together(2) == 2
assert blas() == {2}
"""
AN_ERROR_LIFTS_THE_LIMIT = """
try:
    for_each_tile(lambda tile: 1 // tile, range(4))
except ZeroDivisionError:
    assert blas() == {2}
else:
    raise AssertionError
"""
A_FORK_CAN_GO_ON = """
assert together(2) == 2
child = os.fork()
if child == 0:
    os._exit(0 if together(2) == 2 else 3)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize(
    "script", [LIMIT_IS_LIFTED_BY_THE_LAST, TILES_SHARE_THE_THREADS, AN_ERROR_LIFTS_THE_LIMIT, A_FORK_CAN_GO_ON]
)
def test_on_two_threads(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    done = subprocess.run([sys.executable, "-c", PRELUDE + script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_one_thread_means_none_beside_the_caller() -> None:
    seen: set[int] = set()
    for_each_tile(lambda _: seen.add(threading.get_ident()), range(1))
    assert seen == {threading.get_ident()}


def test_sums_have_the_same_digits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X, w, kernel = rng.normal(size=(700, 4)).astype(np.float32), rng.dirichlet(np.ones(700)), RBFMixture((1.0,))

    def sums() -> tuple[object, ...]:
        return self_sums(X, w, kernel, 64), symmetric_product(X, w, kernel, 64), weighted_means(X, X, w, kernel, 64)

    with one_blas_thread():
        threaded = sums()
        monkeypatch.setattr("synalign_agent.core.block_sums.for_each_tile", lambda work, tiles: [*map(work, tiles)])
        alone = sums()
    for one, two in zip(alone, threaded, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(alone[1], alone[2], rtol=1e-5)
