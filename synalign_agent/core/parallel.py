"""Where threads pay: one for each tile of rows, in place of several inside every matrix product."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TypeVar

import scipy.linalg  # noqa: F401  It brings a BLAS of its own, which has to be loaded before the libraries are looked for.
from threadpoolctl import ThreadpoolController

Tile = TypeVar("Tile")


def for_each_tile(work: Callable[[Tile], None], tiles: Sequence[Tile]) -> None:
    """Call `work` for every tile, on as many threads as the BLAS library uses.

    Inside a tile, gathering rows, `exp` and sums are single-threaded in numpy; only matrix products are not. A thread per
    tile speeds all of it up. The limit of BLAS threads that is set elsewhere (OMP_NUM_THREADS, threadpoolctl) holds.

    Args:
        work: releases the GIL for most of its time, as numpy does, and writes to its own tile only.
        tiles: what to work on.
    """
    if len(tiles) > 1:
        with one_blas_thread() as n_threads:
            if n_threads > 1:
                with ThreadPoolExecutor(min(n_threads, len(tiles))) as pool:
                    for future in [pool.submit(work, tile) for tile in tiles]:
                        future.result()
                return
    for tile in tiles:
        work(tile)


@contextmanager
def one_blas_thread() -> Iterator[int]:
    """Let every matrix product run on the thread that asks for it; `for_each_tile` still uses them all.

    Small products gain little from a second thread. Where another process (an LLM server) keeps a core busy, BLAS threads
    wait for each other by spinning: that made a program of 500 rows forty times slower.

    Yields:
        The number of threads to use instead; 1 where there is one, or where something else decides on BLAS threads.
    """
    n_threads = _limit.acquire()
    try:
        yield n_threads
    finally:
        _limit.release()


class _BlasLimit:
    """The limit of one BLAS thread, which is the process's: set by the first holder, lifted by the last.

    threadpoolctl lets only the Python thread that came first, while it lives, change the limit. So a thread of our own does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_holders = 0
        self._n_threads = 1
        self._set = ExitStack()
        self._owner = ThreadPoolExecutor(1, thread_name_prefix="blas-limit")

    def acquire(self) -> int:
        with self._lock:
            if not self._n_holders:
                # Not here: looking for libraries runs Python inside a C callback, where a Ctrl-C would be lost.
                self._n_threads = self._owner.submit(_blas_threads).result()
                if self._n_threads > 1:
                    self._set.push(self._owner.submit(_blas().limit, limits=1).result())
                    if _blas_threads() > 1:
                        self._n_threads = 1
            self._n_holders += 1
            return self._n_threads

    def release(self) -> None:
        with self._lock:
            self._n_holders -= 1
            if not self._n_holders:
                self._owner.submit(self._set.close).result()


def _blas_threads() -> int:
    return max((library["num_threads"] for library in _blas().info()), default=1)


@cache
def _blas() -> ThreadpoolController:
    # Finding the libraries takes milliseconds; numpy's is loaded by the time anything is computed.
    return ThreadpoolController().select(user_api="blas")


_limit = _BlasLimit()


def _start_afresh() -> None:
    # A forked process has none of the threads, and a lock may be held by one of them.
    global _limit
    _limit = _BlasLimit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
