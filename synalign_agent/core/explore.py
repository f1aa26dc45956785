"""Choose demonstration clusters: a seed row and its nearest neighbours.

Each step takes the row where the Gaussian process knows least (SynAlign, arXiv 2502.08661, section 3.1), or the row that
teaches it most about all others, with its neighbours, and conditions on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import Array, BoolArray, FloatArray, IntArray, as_indices, as_rows, squared_norms
from synalign_agent.core.clusters import (
    Cluster,
    Neighbours,
    as_availability,
    check_sizes,
    exact_neighbours,
    take_cluster,
)
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.parallel import one_blas_thread
from synalign_agent.core.selection.lazy_maximum import LazyMaximum
from synalign_agent.core.selection.mean_variance import MeanVarianceMaximum
from synalign_agent.errors import InputError

__all__ = [
    "Cluster",
    "Neighbours",
    "exact_neighbours",
    "gap_weights",
    "select_by_mean_variance",
    "select_by_variance",
    "select_farthest",
    "select_random",
    "select_seeds",
]


def select_by_variance(
    X: ArrayLike,
    *,
    n_clusters: int,
    cluster_size: int,
    kernel: Kernel,
    neighbours: Neighbours,
    conditioned: Iterable[int] = (),
    available: ArrayLike | None = None,
    gap: ArrayLike | None = None,
    noise: float = 1e-4,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Cluster]:
    """Pick clusters greedily by posterior variance times gap weight.

    Args:
        X: (n, d), finite; float32 is fast, a memory map is read a tile at a time.
        n_clusters: clusters wanted, >= 0; fewer come back if rows run out.
        cluster_size: rows in a cluster with the seed, >= 1; the last may be smaller.
        kernel: with k(x, x) = 1.
        neighbours: the neighbour search over the rows of X.
        conditioned: rows explored before, distinct, in the order they were; they are never picked. They are the whole state
            of an exploration: with the members of earlier clusters here, the picks go on as if there had been no break.
        available: (n,) bool, the rows that may be picked; None for all.
        gap: (n,) weights >= 0 (see `gap_weights`); None for pure variance.
        noise: observation noise variance of the Gaussian process, >= 0.
        device: of torch, such as `cuda`, where every row is then kept up to date; None for this processor.
        progress: called with (clusters picked, clusters wanted) after each.

    Returns:
        At most `n_clusters` disjoint clusters, with score = variance * gap of the seed, the largest there is in float64.
        Scores within 1e-12 of the best tie, in units of the prior variance 1 times the largest gap weight; the lowest index
        wins.

    With t rows conditioned in the end, time is at most n (2 t d + t^2) flops times a small factor, and memory beside X
    12 bytes a row, up to 0.5 GiB of cached columns and the pool (see `lazy_maximum`).

    Raises:
        InputError: if a shape, range or index is wrong.
    """
    rows, free, explored = _start(X, n_clusters, cluster_size, conditioned, available)
    n_steps = len(explored) + n_clusters * cluster_size
    best = LazyMaximum(rows, kernel, noise, _gap(gap, len(rows)), free, n_steps, device)
    best.condition_many(explored)
    return _pick(best, n_clusters, cluster_size, neighbours, free, progress)


def select_by_mean_variance(
    X: ArrayLike,
    *,
    n_clusters: int,
    cluster_size: int,
    kernel: Kernel,
    neighbours: Neighbours,
    rng: np.random.Generator,
    conditioned: Iterable[int] = (),
    available: ArrayLike | None = None,
    gap: ArrayLike | None = None,
    noise: float = 1e-4,
    progress: Callable[[int, int], None] | None = None,
) -> list[Cluster]:
    """Pick clusters greedily by how far their seed lowers the mean posterior variance of all rows, weighted by the gap.

    Args:
        X: (n, d), finite; may be a memory map.
        n_clusters: clusters wanted, >= 0; fewer come back if rows run out.
        cluster_size: rows in a cluster with the seed, >= 1; the last may be smaller.
        kernel: with k(x, x) = 1.
        neighbours: the neighbour search over the rows of X.
        rng: draws the rows that compete and those that the mean is over, where there are more than 8,192 and 2,048. With the
            same stream and `conditioned` the picks go on as if there had been no break.
        conditioned: rows explored before, distinct, in the order they were; they are never picked.
        available: (n,) bool, the rows that may be picked; None for all. All rows count in the mean.
        gap: (n,) weights >= 0 of the rows in the mean (see `gap_weights`); None for the same of all.
        noise: observation noise variance of the Gaussian process, >= 0.
        progress: called with (clusters picked, clusters wanted) after each.

    Returns:
        At most `n_clusters` disjoint clusters, with score = the fall of the mean variance by the seed, the largest of the rows
        that compete. Scores within 1e-12 of the best tie; the lowest index wins.

    Time and memory are those of `MeanVarianceMaximum`: measured on two busy cores, 50 ms a cluster of five for 2,000 rows, 190 ms
    beyond 8,192, however many there are; half a GiB of memory at most.

    Raises:
        InputError: if a shape, range or index is wrong.
    """
    rows, free, explored = _start(X, n_clusters, cluster_size, conditioned, available)
    # Products with vectors, which are bound by memory: threads that wait for each other make them slower.
    with one_blas_thread():
        best = MeanVarianceMaximum(rows, kernel, noise, _gap(gap, len(rows)), free, rng)
        best.explore(explored.tolist())
        return _pick(best, n_clusters, cluster_size, neighbours, free, progress)


def select_farthest(
    X: ArrayLike,
    *,
    n_clusters: int,
    cluster_size: int,
    neighbours: Neighbours,
    available: ArrayLike | None = None,
) -> list[Cluster]:
    """Pick clusters around the row farthest from all rows picked so far (Gonzalez, 1985).

    The first seed is the available row nearest to the mean. Neighbours count as picked.

    Args:
        X: (n, d), finite.
        n_clusters: clusters wanted, >= 0; fewer come back if rows run out.
        cluster_size: rows in a cluster with the seed, >= 1; the last may be smaller.
        neighbours: the neighbour search over the rows of X.
        available: (n,) bool, the rows that may be picked; None for all.

    Returns:
        At most `n_clusters` disjoint clusters, with score = distance of the seed to the nearest row picked before it
        (None for the first); the lowest index wins ties.

    Raises:
        InputError: if a shape, range or index is wrong.
    """
    rows = as_rows(X)
    check_sizes(n_clusters, cluster_size)
    free = as_availability(available, len(rows))
    norms = squared_norms(rows)
    nearest = np.full(len(rows), np.inf)
    clusters: list[Cluster] = []
    while len(clusters) < n_clusters and free.any():
        if clusters:
            seed = int(np.argmax(np.where(free, nearest, -1.0)))
            score = float(np.sqrt(nearest[seed]))
        else:
            centre = rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)
            seed, score = int(np.argmin(np.where(free, norms - 2.0 * (rows @ centre), np.inf))), None
        cluster = take_cluster(seed, cluster_size, neighbours, free, score)
        for row in cluster.members:
            squared = norms + norms[row] - 2.0 * (rows @ rows[row])
            np.minimum(nearest, np.maximum(squared, 0.0), out=nearest)
        clusters.append(cluster)
    return clusters


def select_random(
    n: int,
    *,
    n_clusters: int,
    cluster_size: int,
    neighbours: Neighbours,
    rng: np.random.Generator,
    available: ArrayLike | None = None,
) -> list[Cluster]:
    """Pick clusters around uniformly random seeds, the control of every comparison.

    Args:
        n: number of rows, >= 1.
        n_clusters: clusters wanted, >= 0; fewer come back if rows run out.
        cluster_size: rows in a cluster with the seed, >= 1; the last may be smaller.
        neighbours: the neighbour search over the n rows.
        rng: source of the seeds.
        available: (n,) bool, the rows that may be picked; None for all.

    Returns:
        At most `n_clusters` disjoint clusters, score None.

    Raises:
        InputError: if a shape or range is wrong.
    """
    check_sizes(n_clusters, cluster_size)
    free = as_availability(available, n)
    clusters: list[Cluster] = []
    while len(clusters) < n_clusters and free.any():
        seed = int(rng.choice(np.flatnonzero(free)))
        clusters.append(take_cluster(seed, cluster_size, neighbours, free, None))
    return clusters


def select_seeds(
    seeds: Iterable[int],
    *,
    cluster_size: int,
    neighbours: Neighbours,
    available: ArrayLike,
    n_clusters: int,
) -> list[Cluster]:
    """Build clusters around given seeds, such as k-means medoids, in their order.

    Args:
        seeds: rows in order of preference; an unavailable one is skipped.
        cluster_size: rows in a cluster with the seed, >= 1; the last may be smaller.
        neighbours: the neighbour search.
        available: (n,) bool, the rows that may be picked.
        n_clusters: clusters wanted, >= 0; fewer come back if the seeds run out.

    Returns:
        At most `n_clusters` disjoint clusters, score None.

    Raises:
        InputError: if a shape, range or index is wrong.
    """
    check_sizes(n_clusters, cluster_size)
    n = np.asarray(available).size
    free = as_availability(available, n)
    clusters: list[Cluster] = []
    for seed in as_indices(list(seeds), n, "seeds").tolist():
        if len(clusters) == n_clusters:
            break
        if free[seed]:
            clusters.append(take_cluster(seed, cluster_size, neighbours, free, None))
    return clusters


def gap_weights(witness: ArrayLike, floor: float = 0.1) -> FloatArray:
    """Turn a witness function into weights that favour where real mass is missing.

    weight = floor + max(witness, 0) / max over rows of max(witness, 0).

    Args:
        witness: (n,), positive where real mass is missing (see `mmd.witness`).
        floor: weight of a row without a gap, >= 0.

    Returns:
        (n,) in [floor, floor + 1]; all ones if no witness is positive.

    Raises:
        InputError: if `witness` is not finite and 1-D, or `floor` is negative.
    """
    values = np.asarray(witness, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError("witness must be a finite 1-D array.")
    if not (np.isfinite(floor) and floor >= 0):
        raise InputError(f"floor must be >= 0, got {floor!r}.")
    positive = np.maximum(values, 0.0)
    largest = positive.max(initial=0.0)
    if largest == 0.0:
        return np.ones_like(values)
    weights: FloatArray = floor + positive / largest
    return weights


def _start(
    X: ArrayLike, n_clusters: int, cluster_size: int, conditioned: Iterable[int], available: ArrayLike | None
) -> tuple[Array, BoolArray, IntArray]:
    """Return the rows, which of them may be picked, and those explored before."""
    rows = as_rows(X)
    check_sizes(n_clusters, cluster_size)
    free = as_availability(available, len(rows))
    explored = as_indices(list(conditioned), len(rows), "conditioned")
    if len(np.unique(explored)) < len(explored):
        raise InputError("conditioned names a row that is conditioned already.")
    free[explored] = False
    return rows, free, explored


def _pick(
    best: LazyMaximum | MeanVarianceMaximum,
    n_clusters: int,
    cluster_size: int,
    neighbours: Neighbours,
    free: BoolArray,
    progress: Callable[[int, int], None] | None,
) -> list[Cluster]:
    clusters: list[Cluster] = []
    while len(clusters) < n_clusters and (found := best.find()) is not None:
        cluster = take_cluster(found.row, cluster_size, neighbours, free, found.score)
        best.explore(cluster.members)
        clusters.append(cluster)
        if progress is not None:
            progress(len(clusters), n_clusters)
    return clusters


def _gap(gap: ArrayLike | None, n: int) -> FloatArray:
    if gap is None:
        return np.ones(n)
    weights = np.asarray(gap, dtype=np.float64)
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError(f"gap must be ({n},) finite nonnegative weights.")
    return weights
