"""One selection by one method: what it is given, label by label, and what it makes of it."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from evals import machine
from evals.datasets import Benchmark
from evals.embeddings import embed
from evals.ess import temper
from evals.methods import METHODS, SESSION, Weighted, kernel, session
from evals.methods.base import product_kernel
from evals.scorers.held_out import HeldOut
from synalign_agent.core.arrays import Array, FloatArray, IntArray
from synalign_agent.core.resample import effective_sample_size
from synalign_agent.toolkit.progress import Progress

MIXTURE, ALL = "mixture", "all"
"""The pool of all models, and all reference rows."""


class Data(NamedTuple):
    """A benchmark with its vectors and what scores it."""

    benchmark: Benchmark
    X_ref: Array
    X_pool: Array
    held_out: HeldOut
    pool_means: FloatArray
    """(pool rows,) mean kernel values with the held-out rows."""
    fitted: dict[tuple[int, int, int], FloatArray]
    """seed, label, least effective sample size -> our weights: most methods are compared at the same one."""


class Task(NamedTuple):
    """One selection to make, by every method."""

    pool_name: str
    pool: IntArray
    """Rows of the pool that may be selected."""
    ref: IntArray
    """Reference rows that may be looked at."""
    reference: str
    n: int
    """Rows to select, over all labels."""
    seed: int

    @property
    def is_main(self) -> bool:
        """Return whether everything is measured here, and not the distance alone."""
        return self.pool_name == MIXTURE and self.reference == ALL


class Selection(NamedTuple):
    """What a method made of a task, over all labels; indices are those of the pool."""

    rows: IntArray
    weights: FloatArray
    """(rows,) the method's own."""
    even: FloatArray | None
    """(rows,) the same, made more even until they are worth the rows selected; only for the main task."""
    ours_as_even: FloatArray | None
    """(rows,) our weights with at least the effective sample size that `even` has, label by label."""
    selected: IntArray
    seconds: float
    peak_mb: float | None


def prepare(benchmark: Benchmark, progress: Progress) -> Data:
    """Embed a benchmark; distances are by the product's kernel for all its reference rows, whatever a method fits with."""
    name = benchmark.name
    X_ref, X_test, X_pool = (
        embed(part, f"{name} {what}", progress)
        for part, what in ((benchmark.ref, "ref"), (benchmark.test, "test"), (benchmark.pool, "pool"))
    )
    progress(f"{name}: the real side", 0, 0)
    held_out = HeldOut(X_test, benchmark.test.labels, len(benchmark.label_names), product_kernel(X_ref))
    return Data(benchmark, X_ref, X_pool, held_out, held_out.mean_kernels(X_pool), {})


def select(data: Data, task: Task, method: str) -> Selection:
    """Call the method for every label, or once where it takes all; time and memory are of these calls alone."""
    benchmark, n_labels = data.benchmark, len(data.benchmark.label_names)
    n = task.n // n_labels
    rng = np.random.default_rng([task.seed, 3])
    calls = []
    for label in range(n_labels):
        rows = task.pool[benchmark.pool.labels[task.pool] == label]
        ref = task.ref[benchmark.ref.labels[task.ref] == label]
        calls.append(
            (rows, data.X_pool[rows], data.X_ref[ref], benchmark.pool.take(rows).texts, benchmark.ref.take(ref).texts)
        )
    answers: list[Weighted]
    with machine.PeakMemory() as memory:
        begun = time.perf_counter()
        if method == SESSION:
            answers = session.select_all([call[1] for call in calls], [call[2] for call in calls], n, rng)
        else:
            answers = [METHODS[method](X, X_ref, texts, ref_texts, n, rng) for _, X, X_ref, texts, ref_texts in calls]
        seconds = time.perf_counter() - begun
    even = [temper(answer.weights, n) for answer in answers] if task.is_main else None
    return Selection(
        rows=np.concatenate([call[0] for call in calls]),
        weights=_together([answer.weights for answer in answers]),
        even=None if even is None else _together(even),
        ours_as_even=None if even is None else _together(_ours_as_even(data, task, even)),
        selected=np.concatenate([call[0][answer.selected] for call, answer in zip(calls, answers, strict=True)]),
        seconds=seconds,
        peak_mb=None if memory.above_start is None else memory.above_start / 1e6,
    )


def ours_at(data: Data, task: Task, label: int, least_ess: float) -> FloatArray:
    """Return our weights of a label's pool rows, with at least this effective sample size."""
    key = (task.seed, label, round(least_ess))
    if key not in data.fitted:
        rows = task.pool[data.benchmark.pool.labels[task.pool] == label]
        ref = task.ref[data.benchmark.ref.labels[task.ref] == label]
        data.fitted[key] = kernel.weights_at(data.X_pool[rows], data.X_ref[ref], key[2])
    return data.fitted[key]


def _ours_as_even(data: Data, task: Task, even: list[FloatArray]) -> list[FloatArray]:
    return [ours_at(data, task, label, effective_sample_size(weights)) for label, weights in enumerate(even)]


def _together(of_labels: list[FloatArray]) -> FloatArray:
    """Return one array of weights in which every label has the same mass."""
    return np.concatenate(of_labels) / len(of_labels)
