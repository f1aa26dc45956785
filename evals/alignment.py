"""How close to real test rows does each way of selecting synthetic rows come, from which pools and with how many real rows?

Dataset: pools that language models wrote, mixed and one model at a time; reference rows, 20 a label to all. Run: every method of
`evals.methods` selects the same number of rows for each label. Scores: on test rows, which nothing was fitted to. A seed draws
the pool's rows, the reference rows and whatever the method draws; the test rows are the same for all seeds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evals import missing_modes
from evals.alignment_view import figure, tables, targets
from evals.datasets import SHORT_POOL_ROWS, Benchmark, Rows, load_benchmarks, sample_rows
from evals.embeddings import default_encoder
from evals.methods import LABELS, OURS
from evals.results import Condition, EvalResult, start, timed
from evals.scorers.texts import distinct_ngrams, exact_duplicates, near_duplicates
from evals.scorers.two_sample import c2st_auc
from evals.selection import ALL, MIXTURE, Data, Selection, Task, ours_at, prepare, select
from synalign_agent.config import GatesConfig
from synalign_agent.core.arrays import Array, FloatArray, IntArray
from synalign_agent.core.mmd import equivalent_rows
from synalign_agent.core.resample import effective_sample_size
from synalign_agent.errors import InputError
from synalign_agent.toolkit.progress import Progress

__all__ = ["Settings", "figure", "run", "tables", "targets"]

NAME = "alignment"
_ROWS_A_SELECTED = 4
"""Rows that a pool of one model needs for each row selected: with fewer there is little to choose."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is varied, and how much of everything is used."""

    datasets: tuple[str, ...] = ("agnews", "sst2")
    methods: tuple[str, ...] = tuple(LABELS)
    references: tuple[str, ...] = ("20", "100", "1000", ALL)
    """Reference rows of each label."""
    n_selected: int = 2000
    """From the mixture, over all labels."""
    n_from_generator: int = 1000
    """From the pool of one model."""
    pool_rows: int = 60_000
    """Rows of the mixture that a seed draws."""
    n_seeds: int = 5
    generator_seeds: int = 2
    max_ref: int | None = None
    max_test: int | None = None
    max_pool: int | None = None
    """Rows of each dataset that are used, and embedded, at all."""
    ess_shares: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Effective sample sizes at which our weights are drawn as a curve, times `n_selected`."""
    only_all_references: tuple[str, ...] = ("thinning",)
    """Slow methods that are left out where not all reference rows are used."""

    @classmethod
    def preset(cls, name: str) -> Settings:
        """Return the settings called quick (a minute), short (five, once rows are embedded) or full."""
        if name == "quick":
            return cls(
                datasets=("agnews",), references=("20", ALL), n_selected=200, n_from_generator=40, pool_rows=1000, n_seeds=2,
                generator_seeds=1, max_ref=800, max_test=800, max_pool=1500, ess_shares=(0.5, 1.0),
            )  # fmt: skip
        if name == "short":
            return cls(
                references=("20", ALL), n_selected=1000, n_from_generator=100, pool_rows=5000, n_seeds=3, generator_seeds=1,
                max_pool=SHORT_POOL_ROWS, ess_shares=(0.25, 1.0, 2.0),
            )  # fmt: skip
        return cls()


def run(settings: Settings, progress: Progress, data_dir: Path | None = None) -> EvalResult:
    """Run the eval.

    Args:
        settings: what to vary.
        progress: told (description, done, total).
        data_dir: see `datasets.load_benchmark`.

    Raises:
        InputError: the data are missing or too few, or a method is unknown.
    """
    unknown = sorted(set(settings.methods) - set(LABELS))
    if unknown:
        raise InputError(f"methods: {', '.join(unknown)} unknown; there are {', '.join(LABELS)}")
    started = time.perf_counter()
    benchmarks = load_benchmarks(
        settings.datasets, data_dir, ref=settings.max_ref, test=settings.max_test, pool=settings.max_pool
    )
    result = start(NAME, settings, {b.name: b.digest for b in benchmarks}, range(settings.n_seeds))
    encoder = default_encoder()
    result.details = {"encoder": encoder.model_id, "floor": {}, "missing_modes": {}}
    for benchmark in benchmarks:
        data = prepare(benchmark, progress)
        result.details["floor"][benchmark.name] = data.held_out.floor(settings.n_selected)
        tasks = list(_tasks(benchmark, settings, result))
        total = len(tasks) * len(settings.methods)
        for done, task in enumerate(tasks):
            for step, method in enumerate(settings.methods):
                progress(f"{benchmark.name}: {task.pool_name}", done * len(settings.methods) + step, total)
                if task.reference != ALL and method in settings.only_all_references:
                    condition = _condition(benchmark, task.pool_name, task.reference, method)
                    result.add(condition, "mmd2", task.seed, None, "left out to save time; see `only_all_references`")
                    continue
                _measure(result, data, task, method)
            if task.is_main:
                _score_real(result, data, task)
                _trace_ess(result, data, task, settings)
        progress(f"{benchmark.name}: done", total, total)
    return timed(result, started)


def _tasks(benchmark: Benchmark, settings: Settings, result: EvalResult) -> Iterator[Task]:
    pool, everything = benchmark.pool, np.arange(len(benchmark.ref))
    for seed in range(settings.n_seeds):
        rows = sample_rows(pool, settings.pool_rows, seed=1 + seed)
        if (most := _most_selected(benchmark, rows)) < settings.n_selected:
            raise InputError(
                f"{benchmark.name}: n_selected {settings.n_selected} is more than {most}, the rows that the pool has at the same "
                "number for every label"
            )
        for reference in settings.references:
            yield Task(MIXTURE, rows, _reference(benchmark.ref, reference, seed), reference, settings.n_selected, seed)
    assert pool.generators is not None
    for generator in np.unique(pool.generators).tolist():
        of_one = np.flatnonzero(pool.generators == generator)
        most = _most_selected(benchmark, of_one)
        for seed in range(settings.generator_seeds):
            if most < _ROWS_A_SELECTED * settings.n_from_generator:
                why = f"fewer than {_ROWS_A_SELECTED} rows for each of the {settings.n_from_generator} to select"
                result.add(_condition(benchmark, generator, ALL, OURS), "mmd2", seed, None, why)
                continue
            yield Task(generator, of_one, everything, ALL, settings.n_from_generator, seed)


def _most_selected(benchmark: Benchmark, rows: IntArray) -> int:
    """Return how many of these pool rows can be selected with the same number for every label."""
    n_labels = len(benchmark.label_names)
    return int(np.bincount(benchmark.pool.labels[rows], minlength=n_labels).min()) * n_labels


def _reference(ref: Rows, reference: str, seed: int) -> IntArray:
    """Return `reference` random rows of every label, or all."""
    if reference == ALL:
        return np.arange(len(ref))
    rng = np.random.default_rng([seed, 2])
    rows = [rng.permutation(np.flatnonzero(ref.labels == label))[: int(reference)] for label in np.unique(ref.labels)]
    return np.sort(np.concatenate(rows))


def _measure(result: EvalResult, data: Data, task: Task, method: str) -> None:
    condition = _condition(data.benchmark, task.pool_name, task.reference, method)
    try:
        found = select(data, task, method)
    except ImportError as error:
        result.add(condition, "mmd2", task.seed, None, f"{error.name} is not installed: pip install '.[eval]'")
        return
    result.add(condition, "seconds", task.seed, found.seconds)
    result.add(
        condition, "peak_mb", task.seed, found.peak_mb, "this system does not tell the peak memory of a part of a run"
    )
    result.add(condition, "ess", task.seed, effective_sample_size(found.weights))
    _score_weights(result, data, condition, task.seed, found)
    _score_rows(
        result, condition, task.seed, data, data.X_pool[found.selected], data.pool_means[found.selected],
        data.benchmark.pool.take(found.selected).texts, with_all=task.reference == ALL,
    )  # fmt: skip
    if method == OURS and task.is_main and task.seed == 0:
        result.details["missing_modes"][data.benchmark.name] = missing_modes.find(
            data.benchmark, data.X_ref, data.X_pool, data.held_out.X, task.pool, found.selected
        )


def _score_weights(result: EvalResult, data: Data, condition: Condition, seed: int, found: Selection) -> None:
    """Score weights as they are, without drawing by them."""
    if found.even is None or found.ours_as_even is None:
        return
    X, means = data.X_pool[found.rows], data.pool_means[found.rows]
    for name, weights in (("own", found.weights), ("even", found.even), ("ours_as_even", found.ours_as_even)):
        result.add(condition, f"mmd2_{name}_weights", seed, data.held_out.mmd2(X, weights, means))
        result.add(condition, f"ess_{name}_weights", seed, effective_sample_size(weights))


def _score_rows(
    result: EvalResult, condition: Condition, seed: int, data: Data, X: Array, means: FloatArray, texts: list[str],
    *, with_all: bool,
) -> None:  # fmt: skip
    """Score a set of rows; only the distance if not `with_all`."""
    mmd2 = data.held_out.mmd2(X, np.full(len(X), 1.0 / len(X)), means)
    result.add(condition, "mmd2", seed, mmd2)
    result.add(condition, "n_selected", seed, len(X))
    if not with_all:
        return
    n_eq = equivalent_rows(mmd2, data.held_out.mean_kernel)
    result.add(condition, "n_eq", seed, n_eq, "closer than the test rows can measure")
    for name, value in data.held_out.prdc(X)._asdict().items():
        result.add(condition, name, seed, value)
    result.add(condition, "c2st_auc", seed, c2st_auc(data.held_out.X, X, np.random.default_rng([seed, 4])))
    result.add(condition, "exact_duplicates", seed, exact_duplicates(texts))
    result.add(condition, "near_duplicates", seed, near_duplicates(X, GatesConfig().duplicate_cosine))
    for n in (1, 2, 3):
        result.add(condition, f"distinct_{n}", seed, distinct_ngrams(texts, n), f"no text has {n} words")


def _score_real(result: EvalResult, data: Data, task: Task) -> None:
    """Score as many real reference rows: what every score is where nothing is left to gain."""
    benchmark = data.benchmark
    each = task.n // len(benchmark.label_names)
    rows = _reference(benchmark.ref, str(each), task.seed)
    condition = _condition(benchmark, MIXTURE, ALL, "real")
    if len(rows) < each * len(benchmark.label_names):
        why = f"a label has fewer than {each} reference rows, and scores of fewer rows are other scores"
        result.add(condition, "mmd2", task.seed, None, why)
        return
    X = data.X_ref[rows]
    _score_rows(
        result, condition, task.seed, data, X, data.held_out.mean_kernels(X),
        benchmark.ref.take(rows).texts, with_all=True,
    )  # fmt: skip


def _trace_ess(result: EvalResult, data: Data, task: Task, settings: Settings) -> None:
    """Score our weights over the effective sample size that they must have."""
    if OURS not in settings.methods:
        return
    benchmark, n_labels = data.benchmark, len(data.benchmark.label_names)
    labels = [task.pool[benchmark.pool.labels[task.pool] == label] for label in range(n_labels)]
    rows = np.concatenate(labels)
    for share in settings.ess_shares:
        wanted = share * task.n / n_labels
        if wanted > min(len(part) for part in labels):
            continue
        weights = np.concatenate([ours_at(data, task, label, wanted) for label in range(n_labels)]) / n_labels
        condition = {**_condition(benchmark, MIXTURE, ALL, OURS), "least_ess": round(share * task.n)}
        result.add(condition, "curve_ess", task.seed, effective_sample_size(weights))
        result.add(
            condition, "curve_mmd2", task.seed, data.held_out.mmd2(data.X_pool[rows], weights, data.pool_means[rows])
        )


def _condition(benchmark: Benchmark, pool: str, reference: str, method: str) -> Condition:
    return {"dataset": benchmark.name, "pool": pool, "reference": reference, "method": method}
