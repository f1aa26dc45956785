"""Explorer: choose the real rows that the next round starts from."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from synalign_agent.core.arrays import Array, FloatArray
from synalign_agent.core.explore import (
    Cluster,
    gap_weights,
    select_by_mean_variance,
    select_by_variance,
    select_farthest,
    select_random,
    select_seeds,
)
from synalign_agent.core.kernels import median_distance, stationary
from synalign_agent.core.plan import plan_clusters
from synalign_agent.deps import Deps
from synalign_agent.errors import ConfigError
from synalign_agent.nodes.round_calls import GENERATE
from synalign_agent.records import DemonstrationCluster, content_id
from synalign_agent.state import State
from synalign_agent.stores.reviews import pool
from synalign_agent.stores.vectors import kmeans_medoids, nearest_available

_STREAM = 1


def explore(state: State, deps: Deps) -> State:
    """Pick demonstration clusters for every label that gets texts this round."""
    round = state.get("round", 0) + 1
    chosen: list[DemonstrationCluster] = []
    for code, n_clusters in enumerate(_clusters_per_label(deps, round)):
        if n_clusters:
            chosen += _explore_label(deps, round, code, int(n_clusters))
    deps.store.add_clusters(chosen)
    return {"round": round, "cluster_ids": [cluster.id for cluster in chosen], "limits_hit": None}  # type: ignore[typeddict-item]


def _clusters_per_label(deps: Deps, round: int) -> NDArray[np.int64]:
    config = deps.config
    per_call, per_cluster = config.generate.samples_per_call or 1, config.generate.calls_per_cluster or 1
    # What was really answered: calls that a limit or an outage stopped say nothing of how many texts are accepted.
    label_of = {cluster.id: cluster.label for cluster in deps.store.clusters()}
    calls = [call for call in deps.store.calls(node=GENERATE) if call.state == "done" and call.round < round]
    asked = Counter(label_of[call.cluster_id] for call in calls)
    accepted = Counter(sample.label for sample in pool(deps.store, before_round=round))
    labels = deps.real.labels
    wanted, prior = np.ceil(deps.quotas * config.align.oversampling).astype(np.int64), deps.prior
    focus = _focus(deps)
    if len(focus):  # the round is theirs, however full the pool is
        wanted, prior = np.zeros_like(wanted), np.bincount(deps.real.codes[focus], minlength=len(labels)) / len(focus)
    return plan_clusters(
        wanted=wanted,
        accepted=np.array([accepted[label] for label in labels]),
        asked=np.array([asked[label] for label in labels]) * per_call,
        prior=prior,
        round_samples=config.texts_per_round,
        texts_per_cluster=per_call * per_cluster,
    )


def _explore_label(deps: Deps, round: int, code: int, n_clusters: int) -> list[DemonstrationCluster]:
    label = deps.real.labels[code]
    rows = _within_focus(deps, deps.real.reference_rows(code), n_clusters)
    ids = [deps.real.rows[row].id for row in rows]
    X = deps.real.X[rows]
    place = {id: at for at, id in enumerate(ids)}
    earlier = [cluster for cluster in deps.store.clusters() if cluster.label == label and cluster.round < round]
    used = [place[id] for cluster in sorted(earlier, key=_turn_of) for id in cluster.member_ids if id in place]
    times_used = np.bincount(used, minlength=len(ids))
    found: list[Cluster] = []
    n_passes = 0
    # Few-shot data run out: then every row may be chosen once more, and exploration starts afresh.
    while len(found) < n_clusters:
        fresh = times_used == times_used.min()
        # In the order of their last use: with that the picks are those of an exploration that was never interrupted.
        explored = [row for row in reversed(dict.fromkeys(reversed(used))) if not fresh[row]]
        picked = _select(deps, (round, code, n_passes), X, n_clusters - len(found), fresh, explored)
        n_passes += 1
        for cluster in picked:
            times_used[list(cluster.members)] += 1
            used += cluster.members
        found += picked
    return [
        DemonstrationCluster(
            id=content_id(str(round), label, str(position)),
            round=round,
            label=label,
            position=position,
            seed_id=ids[cluster.seed],
            member_ids=tuple(ids[member] for member in cluster.members),
            score=cluster.score,
        )
        for position, cluster in enumerate(found)
    ]


def _select(
    deps: Deps, turn: tuple[int, int, int], X: Array, n_clusters: int, fresh: NDArray[np.bool_], explored: list[int]
) -> list[Cluster]:
    """Select among the rows that are `fresh`; the others were `explored`. `turn` is (round, label code, pass over the rows)."""
    config = deps.config.explore
    neighbours = nearest_available(X)
    round, code, _ = turn
    rng = deps.rng(_STREAM, *turn)
    if config.strategy == "random":
        return select_random(
            len(X),
            n_clusters=n_clusters,
            cluster_size=config.cluster_size,
            neighbours=neighbours,
            rng=rng,
            available=fresh,
        )
    if config.strategy == "kmeans":
        inside = np.flatnonzero(fresh)
        seeds = inside[kmeans_medoids(X[inside], n_clusters, int(rng.integers(2**31)))]
        return select_seeds(
            [int(seed) for seed in seeds],
            cluster_size=config.cluster_size, neighbours=neighbours, available=fresh, n_clusters=n_clusters,
        )  # fmt: skip
    if config.strategy == "farthest":
        return select_farthest(
            X, n_clusters=n_clusters, cluster_size=config.cluster_size, neighbours=neighbours, available=fresh
        )
    weighted = config.strategy in ("gp_gap", "ivr_gap") and config.focus is None  # the focus says where the gap is
    gap = _gap(deps, round, code) if weighted else None
    lengthscale = config.lengthscale_factor * median_distance(X, deps.rng(_STREAM, code))
    kernel = stationary(config.kernel, lengthscale)
    if config.strategy in ("ivr", "ivr_gap"):
        # The stream of the label: in every round the same rows compete.
        return select_by_mean_variance(
            X, n_clusters=n_clusters, cluster_size=config.cluster_size, kernel=kernel, neighbours=neighbours,
            rng=deps.rng(_STREAM, code), conditioned=explored, gap=gap, noise=config.noise,
        )  # fmt: skip
    return select_by_variance(
        X, n_clusters=n_clusters, cluster_size=config.cluster_size, kernel=kernel, neighbours=neighbours,
        conditioned=explored, gap=gap, noise=config.noise, device=config.device,
    )  # fmt: skip


def _focus(deps: Deps) -> NDArray[np.int64]:
    """Return the positions of the rows that `explore.focus` names; none if it names none.

    Raises:
        ConfigError: an id is not that of a reference row.
    """
    ids = deps.config.explore.focus or []
    places = [deps.real.position.get(id, -1) for id in ids]
    unknown = [id for id, place in zip(ids, places, strict=True) if place < 0 or deps.real.held_out[place]]
    if unknown:
        raise ConfigError(
            f"explore.focus: {', '.join(unknown[:5])}: not the id of a real row that may be shown to the LLM; the `gap_map` of "
            "report.json has such ids"
        )
    return np.array(places, dtype=np.int64)


def _within_focus(deps: Deps, rows: NDArray[np.int64], n_clusters: int) -> NDArray[np.int64]:
    """Return the rows of a label that are nearest to the focus, as many as the clusters need; all of them without a focus."""
    focus = _focus(deps)
    if not len(focus):
        return rows
    nearest = (deps.real.X[rows] @ deps.real.X[np.intersect1d(focus, rows)].T).max(axis=1)
    kept = np.argsort(-nearest, kind="stable")[: n_clusters * deps.config.explore.cluster_size]
    return np.sort(rows[kept])


def _turn_of(cluster: DemonstrationCluster) -> tuple[int, int]:
    return cluster.round, cluster.position


def _gap(deps: Deps, round: int, code: int) -> FloatArray | None:
    stored = deps.store.witness(round - 1)
    if stored is None:
        return None
    witness = np.frombuffer(stored, dtype=np.float32).astype(np.float64)
    codes = deps.real.codes[~deps.real.held_out]
    return gap_weights(witness[codes == code], deps.config.explore.gap_floor)
