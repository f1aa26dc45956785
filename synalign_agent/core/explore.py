"""Choose demonstration clusters: a seed row and its nearest neighbours.

Each step takes the row where the Gaussian process knows least, with its neighbours, and
conditions on all of them (SynAlign, arXiv 2502.08661, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import (
    BoolArray,
    FloatArray,
    IntArray,
    as_indices,
    as_rows,
    squared_norms,
    unit_rows,
)
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.selection.lazy_maximum import LazyMaximum
from synalign_agent.errors import InputError

Neighbours = Callable[[int, int, BoolArray], IntArray]
"""(row, k, available) -> up to k nearest available rows other than row, nearest first.
"""

_TIE_DECIMALS = 12


class Cluster(NamedTuple):
    """A seed row and its neighbours."""

    seed: int
    members: tuple[int, ...]
    """Distinct rows, the seed first."""
    score: float | None
    """What the seed was picked by; None where nothing was measured (random, given)."""


def exact_neighbours(X: ArrayLike) -> Neighbours:
    """Make a brute-force neighbour search by cosine similarity.

    Args:
        X: (n, d), finite, no zero row; rows are scaled to norm 1.

    Returns:
        A `Neighbours`, O(n d) a call; the lowest index wins ties.

    Raises:
        InputError: if `X` is not a finite 2-D array or a row is zero.
    """
    rows = unit_rows(X)

    def nearest(row: int, k: int, available: BoolArray) -> IntArray:
        allowed = available.copy()
        allowed[row] = False
        candidates: IntArray = np.flatnonzero(allowed)
        k = min(k, len(candidates))
        if k <= 0:
            return candidates[:0]
        # BLAS may sum equal rows in another order; rounding makes them tie again.
        similarity = np.round(rows @ rows[row], _TIE_DECIMALS)[candidates]
        cut = np.partition(similarity, -k)[-k]
        near = np.flatnonzero(similarity >= cut)
        order = np.argsort(-similarity[near], kind="stable")[:k]
        return candidates[near[order]]

    return nearest


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
    rows = as_rows(X)
    n = len(rows)
    _check_sizes(n_clusters, cluster_size)
    free = _availability(available, n)
    weights = _gap(gap, n)
    explored = as_indices(list(conditioned), n, "conditioned")
    if len(np.unique(explored)) < len(explored):
        raise InputError("conditioned names a row that is conditioned already.")
    free[explored] = False
    n_steps = len(explored) + n_clusters * cluster_size
    best = LazyMaximum(rows, kernel, noise, weights, free, n_steps, device)
    best.condition_many(explored)

    clusters: list[Cluster] = []
    while len(clusters) < n_clusters and (found := best.find()) is not None:
        cluster = _take_cluster(found.row, cluster_size, neighbours, free, found.score)
        for row in cluster.members:
            best.take(row)
            best.condition(row)
        clusters.append(cluster)
        if progress is not None:
            progress(len(clusters), n_clusters)
    return clusters


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
    _check_sizes(n_clusters, cluster_size)
    free = _availability(available, len(rows))
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
        cluster = _take_cluster(seed, cluster_size, neighbours, free, score)
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
    _check_sizes(n_clusters, cluster_size)
    free = _availability(available, n)
    clusters: list[Cluster] = []
    while len(clusters) < n_clusters and free.any():
        seed = int(rng.choice(np.flatnonzero(free)))
        clusters.append(_take_cluster(seed, cluster_size, neighbours, free, None))
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
    _check_sizes(n_clusters, cluster_size)
    n = np.asarray(available).size
    free = _availability(available, n)
    clusters: list[Cluster] = []
    for seed in as_indices(list(seeds), n, "seeds").tolist():
        if len(clusters) == n_clusters:
            break
        if free[seed]:
            clusters.append(_take_cluster(seed, cluster_size, neighbours, free, None))
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


def _take_cluster(
    seed: int,
    size: int,
    neighbours: Neighbours,
    free: BoolArray,
    score: float | None,
) -> Cluster:
    """Take a seed and its nearest free rows, and mark them taken in `free`."""
    free[seed] = False
    near: IntArray = np.zeros(0, dtype=np.intp)
    if size > 1:
        near = as_indices(neighbours(seed, size - 1, free), len(free), "neighbours")
    if not free[near].all() or len(np.unique(near)) != len(near) or len(near) >= size:
        raise InputError(f"The neighbour search of row {seed} broke its contract.")
    free[near] = False
    return Cluster(seed, (seed, *near.tolist()), score)


def _check_sizes(n_clusters: int, cluster_size: int) -> None:
    if n_clusters < 0:
        raise InputError(f"n_clusters must be >= 0, got {n_clusters}.")
    if cluster_size < 1:
        raise InputError(f"cluster_size must be >= 1, got {cluster_size}.")


def _availability(available: ArrayLike | None, n: int) -> BoolArray:
    """Return a copy that the caller's selection may change."""
    if available is None:
        return np.ones(n, dtype=np.bool_)
    mask = np.asarray(available)
    if mask.shape != (n,) or mask.dtype != np.bool_:
        raise InputError(f"available must be a boolean array of shape ({n},).")
    return mask.copy()


def _gap(gap: ArrayLike | None, n: int) -> FloatArray:
    if gap is None:
        return np.ones(n)
    weights = np.asarray(gap, dtype=np.float64)
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError(f"gap must be ({n},) finite nonnegative weights.")
    return weights
