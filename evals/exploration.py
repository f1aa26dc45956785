"""How much of the data do the first picks cover, and what are they worth to a classifier, by strategy and lengthscale?

Dataset: real reference rows, of which a seed holds a fifth out. Run: every strategy picks rows of each label. Scores, over
the picks: the share of all rows inside the picks' convex hull in the plane of their first two principal components; of the
held-out rows, the share within a radius of a pick, their mean distance to the nearest pick, and the macro-F1 of a classifier
that was trained on the picks alone. Test rows do nothing here: defaults are chosen by this eval.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from evals.datasets import Benchmark, load_benchmarks, split_ref
from evals.embeddings import embed
from evals.exploration_view import figure, tables, targets
from evals.results import Condition, EvalResult, Value, start, timed
from synalign_agent.config import ExploreConfig
from synalign_agent.core.arrays import Array, BoolArray, FloatArray, IntArray, squared_distances
from synalign_agent.core.coverage import hull_coverage
from synalign_agent.core.explore import (
    Cluster,
    select_by_mean_variance,
    select_by_variance,
    select_farthest,
    select_random,
)
from synalign_agent.core.kernels import RBFMixture, median_distance
from synalign_agent.errors import InputError
from synalign_agent.stores.vectors import kmeans_medoids
from synalign_agent.toolkit.progress import Progress

__all__ = ["Settings", "figure", "run", "tables", "targets"]

NAME = "exploration"
RADIUS = 0.7
"""Of coverage, times the median distance of a label's rows: the default lengthscale."""
_DENSITY_SCALE = 0.25
"""Lengthscale of the local density, times the median distance: wider ones see the label's centre, not a row's surroundings."""
_REGULARISATION = 10.0
"""scikit-learn's C, for few rows of norm 1."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is varied, and how many rows are picked."""

    datasets: tuple[str, ...] = ("agnews", "sst2")
    strategies: tuple[str, ...] = (
        "ivr", "gp", "gp_density_0.25", "gp_density_0.5", "gp_density_1", "kmeans", "farthest", "random",
    )  # fmt: skip
    """`gp_density_S` multiplies the posterior variance by the local density to the power S."""
    picks: tuple[int, ...] = (5, 10, 25, 50, 100, 200)
    """Of each label."""
    lengthscales: tuple[float, ...] = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 3.0)
    """Of the Gaussian process of `ivr` and `gp`, times the median distance of a label's rows; compared at 50 picks."""
    n_seeds: int = 5
    held_out: float = 0.2
    max_ref: int | None = None

    @classmethod
    def preset(cls, name: str) -> Settings:
        """Return the settings called quick (seconds), short (two minutes) or full."""
        if name == "quick":
            return cls(datasets=("agnews",), picks=(5, 10, 25, 50), lengthscales=(0.2, 0.7), n_seeds=2, max_ref=1200)
        if name == "short":
            return cls(picks=(5, 10, 25, 50, 100), lengthscales=(0.1, 0.35, 0.7, 1.5), n_seeds=3, max_ref=5000)
        return cls()


class _Label(NamedTuple):
    """The rows of one label."""

    code: int
    X: Array
    """(n, d) to pick from."""
    held_out: Array
    """(h, d)"""
    median: float
    """Median distance between two rows of X."""


def run(settings: Settings, progress: Progress, data_dir: Path | None = None) -> EvalResult:
    """Run the eval.

    Args:
        settings: what to vary.
        progress: told (description, done, total).
        data_dir: see `datasets.load_benchmark`.

    Raises:
        InputError: the data are missing or too few, or a strategy is unknown.
    """
    started = time.perf_counter()
    benchmarks = load_benchmarks(settings.datasets, data_dir, ref=settings.max_ref, with_pool=False)
    result = start(NAME, settings, {b.name: b.digest for b in benchmarks}, range(settings.n_seeds))
    scales = [ExploreConfig().lengthscale_factor]
    jobs = [(strategy, scale) for strategy in settings.strategies for scale in scales]
    varied = [strategy for strategy in settings.strategies if strategy in ("ivr", "gp")]
    jobs += [(strategy, scale) for strategy in varied for scale in settings.lengthscales if scale not in scales]
    total = len(benchmarks) * settings.n_seeds * len(jobs)
    done = 0
    for benchmark in benchmarks:
        for seed in range(settings.n_seeds):
            labels = _labels(benchmark, seed, settings, progress)
            for strategy, scale in jobs:
                progress(f"{benchmark.name}: {strategy}", done, total)
                done += 1
                _measure(result, benchmark.name, labels, strategy, scale, seed, settings.picks)
    progress("Exploration: done", total, total)
    return timed(result, started)


def pick(label: _Label, strategy: str, scale: float, n_picks: Sequence[int], seed: int) -> dict[int, IntArray]:
    """Return, for each number of picks, the rows picked, in order.

    Args:
        label: rows to pick from.
        strategy: see `Settings.strategies`.
        scale: lengthscale of the Gaussian process, times the median distance.
        n_picks: numbers of rows, rising; those that there are not are left out.
        seed: of all draws.

    Raises:
        InputError: the strategy is unknown.
    """
    X, rng = label.X, np.random.default_rng([seed, label.code])
    sizes = [n for n in n_picks if n <= len(X)]
    if not sizes:
        return {}
    kernel = RBFMixture((scale * label.median,))
    if strategy == "kmeans":
        # Medoids of as many clusters: every number of picks is a choice of its own, so it knows more than the others.
        return {n: np.array(kmeans_medoids(X, n, seed), dtype=np.intp) for n in sizes}
    found: list[Cluster]
    if strategy == "ivr":
        found = select_by_mean_variance(
            X, n_clusters=sizes[-1], cluster_size=1, kernel=kernel, neighbours=_none, rng=rng
        )
    elif strategy == "gp" or strategy.startswith("gp_density_"):
        weights = None if strategy == "gp" else _density(label) ** float(strategy.removeprefix("gp_density_"))
        found = select_by_variance(
            X, n_clusters=sizes[-1], cluster_size=1, kernel=kernel, neighbours=_none, gap=weights
        )
    elif strategy == "farthest":
        found = select_farthest(X, n_clusters=sizes[-1], cluster_size=1, neighbours=_none)
    elif strategy == "random":
        found = select_random(len(X), n_clusters=sizes[-1], cluster_size=1, neighbours=_none, rng=rng)
    else:
        raise InputError(f"strategies: {strategy!r} is unknown")
    rows = np.array([cluster.seed for cluster in found], dtype=np.intp)
    return {n: rows[:n] for n in sizes}


def _labels(benchmark: Benchmark, seed: int, settings: Settings, progress: Progress) -> list[_Label]:
    fit, held_out = split_ref(benchmark, seed, settings.held_out)
    X, Z = embed(fit, f"{benchmark.name} ref", progress), embed(held_out, f"{benchmark.name} ref", progress)
    # The picks of some strategies depend on the order of the rows where they tie.
    order = np.random.default_rng(seed).permutation(len(X))
    X, codes = X[order], fit.labels[order]
    found = []
    for code in range(len(benchmark.label_names)):
        rows = X[codes == code]
        median = median_distance(rows, np.random.default_rng(seed))
        found.append(_Label(code, rows, Z[held_out.labels == code], median))
    return found


def _measure(
    result: EvalResult, dataset: str, labels: list[_Label], strategy: str, scale: float, seed: int, n_picks: Sequence[int]
) -> None:  # fmt: skip
    begun = time.perf_counter()
    picks = [pick(label, strategy, scale, n_picks, seed) for label in labels]
    seconds = time.perf_counter() - begun
    condition: dict[str, Value] = {"dataset": dataset, "strategy": strategy, "lengthscale": scale}
    result.add(condition, "seconds", seed, seconds)
    for n in n_picks:
        where: Condition = {**condition, "picks": n}
        if any(n not in of_label for of_label in picks):
            result.add(where, "hull", seed, None, f"a label has fewer than {n} rows to pick from")
            continue
        chosen = [of_label[n] for of_label in picks]
        _score_coverage(result, where, seed, labels, chosen)
        result.add(where, "macro_f1", seed, _macro_f1(labels, chosen))


def _score_coverage(
    result: EvalResult, where: Condition, seed: int, labels: list[_Label], chosen: list[IntArray]
) -> None:
    """Score each label by itself, and let every label count the same."""
    hulls, radii, distances = [], [], []
    for label, rows in zip(labels, chosen, strict=True):
        share = hull_coverage(np.concatenate([label.X, label.held_out]), rows)
        nearest = np.sqrt(squared_distances(label.held_out, label.X[rows]).min(axis=1))
        radii.append(float((nearest <= RADIUS * label.median).mean()))
        distances.append(float(nearest.mean()))
        if share is not None:
            hulls.append(share)
    hull = float(np.mean(hulls)) if len(hulls) == len(labels) else None
    result.add(where, "hull", seed, hull, None if hull is not None else "the picks of a label have no hull")
    result.add(where, "radius", seed, float(np.mean(radii)))
    result.add(where, "nearest", seed, float(np.mean(distances)))


def _macro_f1(labels: list[_Label], chosen: list[IntArray]) -> float:
    def joined(parts: Callable[[_Label, IntArray], Array]) -> tuple[Array, NDArray[np.int64]]:
        X = [parts(label, rows) for label, rows in zip(labels, chosen, strict=True)]
        codes = [np.full(len(part), label.code) for label, part in zip(labels, X, strict=True)]
        return np.concatenate(X), np.concatenate(codes)

    X, y = joined(lambda label, rows: label.X[rows])
    Z, truth = joined(lambda label, rows: label.held_out)
    model = LogisticRegression(C=_REGULARISATION, max_iter=1000).fit(X, y)
    return float(f1_score(truth, model.predict(Z), average="macro"))


def _density(label: _Label) -> FloatArray:
    """Return (n,) how many rows are near each, by a narrow kernel, the largest 1."""
    kernel = RBFMixture((_DENSITY_SCALE * label.median,))
    density: FloatArray = np.concatenate(
        [kernel(label.X[start : start + 1024], label.X).mean(axis=1, dtype=np.float64) for start in range(0, len(label.X), 1024)]
    )  # fmt: skip
    density /= density.max()
    return density


def _none(row: int, k: int, available: BoolArray) -> IntArray:
    return np.zeros(0, dtype=np.intp)
