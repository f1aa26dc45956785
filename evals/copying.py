"""Do selected rows copy real ones, and do the gates catch planted copies?

Dataset: reference rows in two halves of equal size; weights are fitted to the first, the second is never looked at. Scores: the
share of synthetic rows that are nearer to the first half (50 % where nothing is copied), and the longest run of words that a
synthetic row shares with either half. Then copies are planted: real rows, exact or changed in five ways, among test rows, which
are new rows of the same kind; the product's gates, at their defaults, must reject the first and let the second pass.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evals.copying_view import figure, tables, targets
from evals.datasets import SHORT_POOL_ROWS, Benchmark, Rows, load_benchmarks
from evals.embeddings import embed
from evals.methods import METHODS
from evals.planted_copies import CHANGES, NEW, change
from evals.results import Condition, EvalResult, start, timed
from evals.scorers.word_runs import longest_shared_runs
from synalign_agent.config import CopyGateConfig
from synalign_agent.core.arrays import Array, BoolArray, IntArray
from synalign_agent.gates.copy_check import WordRuns, check_nearest, check_words
from synalign_agent.toolkit.progress import Progress

__all__ = ["Settings", "figure", "run", "tables", "targets"]

NAME = "copying"
_LONG_RUN_QUANTILE = 0.99
_SAME_COSINE = 1e-6


@dataclass(frozen=True, slots=True)
class Settings:
    """How much of everything is used."""

    datasets: tuple[str, ...] = ("agnews", "sst2")
    methods: tuple[str, ...] = ("random", "kernel")
    n_selected: int = 2000
    n_planted: int = 500
    """Copies of each kind."""
    n_seeds: int = 5
    max_ref: int | None = None
    max_test: int | None = None
    max_pool: int | None = None

    @classmethod
    def preset(cls, name: str) -> Settings:
        """Return the settings called quick, short or full."""
        if name == "quick":
            return cls(
                datasets=("sst2",), n_selected=100, n_planted=30, n_seeds=2, max_ref=800, max_test=800, max_pool=1500
            )
        if name == "short":
            return cls(n_planted=150, n_seeds=3, max_pool=SHORT_POOL_ROWS)
        return cls()


def run(settings: Settings, progress: Progress, data_dir: Path | None = None) -> EvalResult:
    """Run the eval.

    Args:
        settings: what to use.
        progress: told (description, done, total).
        data_dir: see `datasets.load_benchmark`.

    Raises:
        InputError: the data are missing.
    """
    started = time.perf_counter()
    benchmarks = load_benchmarks(
        settings.datasets, data_dir, ref=settings.max_ref, test=settings.max_test, pool=settings.max_pool
    )
    result = start(NAME, settings, {b.name: b.digest for b in benchmarks}, range(settings.n_seeds))
    for benchmark in benchmarks:
        name = benchmark.name
        X_ref = embed(benchmark.ref, f"{name} ref", progress)
        X_pool = embed(benchmark.pool, f"{name} pool", progress)
        for seed in range(settings.n_seeds):
            progress(f"{name}: copies", seed, settings.n_seeds)
            _score_selections(result, benchmark, X_ref, X_pool, settings, seed)
            _score_gates(result, benchmark, X_ref, settings, seed, progress)
        progress(f"{name}: done", settings.n_seeds, settings.n_seeds)
    return timed(result, started)


def _score_selections(
    result: EvalResult, benchmark: Benchmark, X_ref: Array, X_pool: Array, settings: Settings, seed: int
) -> None:  # fmt: skip
    shown, hidden = _halves(benchmark.ref, len(benchmark.label_names), np.random.default_rng([seed, 0]))
    for method in settings.methods:
        selected = _select(method, benchmark, X_ref, X_pool, shown, settings.n_selected, seed)
        condition = {"dataset": benchmark.name, "method": method}
        X, rows = X_pool[selected], benchmark.pool.take(selected)
        _score_nearness(result, condition, seed, X, rows, X_ref, benchmark.ref, shown, hidden)
    # The scale: what the numbers of the random rows are if every tenth is a copy of a row that was shown.
    rng = np.random.default_rng([seed, 1])
    selected = rng.permutation(_select("random", benchmark, X_ref, X_pool, shown, settings.n_selected, seed))
    copied = rng.choice(shown, min(len(selected) // 10, len(shown)), replace=False)
    kept = selected[len(copied) :]
    texts = benchmark.pool.take(kept).texts + benchmark.ref.take(copied).texts
    rows = Rows(texts, np.concatenate([benchmark.pool.labels[kept], benchmark.ref.labels[copied]]))
    condition = {"dataset": benchmark.name, "method": "copies_10_percent"}
    X = np.concatenate([X_pool[kept], X_ref[copied]])
    _score_nearness(result, condition, seed, X, rows, X_ref, benchmark.ref, shown, hidden)


def _score_nearness(
    result: EvalResult, condition: Condition, seed: int, X: Array, rows: Rows, X_ref: Array, ref: Rows, shown: IntArray,
    hidden: IntArray,
) -> None:  # fmt: skip
    near_shown, near_hidden = (X @ X_ref[part].T for part in (shown, hidden))
    first, second = near_shown.max(axis=1), near_hidden.max(axis=1)
    # A row that is as near to both halves counts half: real rows have duplicates, whose products may round differently.
    tied = np.abs(first - second) < _SAME_COSINE
    result.add(condition, "closer_to_shown", seed, np.where(tied, 0.5, first > second).mean())
    result.add(condition, "nearest_cosine", seed, first.mean())
    for name, part in (("shown", shown), ("hidden", hidden)):
        runs = longest_shared_runs(rows.texts, ref.take(part).texts)
        result.add(condition, f"shared_words_{name}", seed, runs.mean())
        result.add(condition, f"shared_words_{name}_p99", seed, np.quantile(runs, _LONG_RUN_QUANTILE))


def _score_gates(
    result: EvalResult, benchmark: Benchmark, X_ref: Array, settings: Settings, seed: int, progress: Progress
) -> None:  # fmt: skip
    ref, gate, rng = benchmark.ref, CopyGateConfig(), np.random.default_rng([seed, 2])
    runs = WordRuns(ref.texts, gate.max_shared_words)
    ids = [str(row) for row in range(len(ref))]
    filler = benchmark.pool.texts
    caught: dict[str, dict[str, BoolArray]] = {}
    for kind in (*CHANGES, NEW):
        n = min(settings.n_planted, len(ref), len(benchmark.test))
        if kind == NEW:
            rows = benchmark.test.take(np.sort(rng.choice(len(benchmark.test), n, replace=False)))
        else:
            originals = rng.choice(len(ref), n, replace=False)
            texts = [change(kind, ref.texts[row], filler, rng) for row in originals.tolist()]
            rows = Rows(texts, ref.labels[originals])
        X = embed(rows, f"{benchmark.name} {kind}", progress)
        cosines = X @ X_ref.T
        nearest = [(row, float(cosines[at, row])) for at, row in enumerate(cosines.argmax(axis=1).tolist())]
        near = [
            check_nearest(
                text, ref.texts[row], ids[row], cosine, max_cosine=gate.max_cosine, max_row_share=gate.max_row_share
            )
            for text, (row, cosine) in zip(rows.texts, nearest, strict=True)
        ]
        caught[kind] = {
            "words": np.array([check_words(text, runs, ids) is not None for text in rows.texts]),
            "cosine": np.array([verdict is not None and verdict.reason == "copy_cosine" for verdict in near]),
            "nearest": np.array([verdict is not None for verdict in near]),
        }
        caught[kind]["any"] = caught[kind]["words"] | caught[kind]["nearest"]
        for gate_name, hits in caught[kind].items():
            metric = "false_positive_rate" if kind == NEW else "recall"
            result.add({"dataset": benchmark.name, "copy": kind, "gate": gate_name}, metric, seed, hits.mean())
    for gate_name in ("words", "cosine", "nearest", "any"):
        condition = {"dataset": benchmark.name, "copy": "all", "gate": gate_name}
        recall = float(np.mean([caught[kind][gate_name].mean() for kind in CHANGES]))
        false_positives = float(caught[NEW][gate_name].mean())
        result.add(condition, "recall", seed, recall)
        rejected = recall + false_positives
        # As many copies as new rows; among real replies copies are rarer, and precision is lower.
        reason = None if rejected else "the gate rejected nothing"
        result.add(condition, "precision", seed, recall / rejected if rejected else None, reason)


def _halves(ref: Rows, n_labels: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Split rows in two halves of equal size, label by label."""
    parts: tuple[list[IntArray], list[IntArray]] = ([], [])
    for label in range(n_labels):
        rows = rng.permutation(np.flatnonzero(ref.labels == label))
        half = len(rows) // 2
        parts[0].append(rows[:half])
        parts[1].append(rows[half : 2 * half])
    return np.sort(np.concatenate(parts[0])), np.sort(np.concatenate(parts[1]))


def _select(
    method: str, benchmark: Benchmark, X_ref: Array, X_pool: Array, shown: IntArray, n: int, seed: int
) -> IntArray:
    rng, selected = np.random.default_rng([seed, 3]), []
    for label in range(len(benchmark.label_names)):
        pool = np.flatnonzero(benchmark.pool.labels == label)
        ref = shown[benchmark.ref.labels[shown] == label]
        found = METHODS[method](
            X_pool[pool], X_ref[ref], benchmark.pool.take(pool).texts, benchmark.ref.take(ref).texts,
            min(n // len(benchmark.label_names), len(pool)), rng,
        )  # fmt: skip
        selected.append(pool[found.selected])
    return np.concatenate(selected)
