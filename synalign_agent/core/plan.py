"""How many texts to ask for in a round, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from synalign_agent.core.arrays import FloatArray, IntArray

_LEAST_YIELD = 0.1


def plan_clusters(
    *,
    wanted: IntArray,
    accepted: IntArray,
    asked: IntArray,
    prior: FloatArray,
    round_samples: int,
    texts_per_cluster: int,
) -> IntArray:
    """Return how many demonstration clusters each label gets in the next round.

    While labels are short of their pool size the round goes to them, in proportion to the texts they still need at the rate
    at which their texts were accepted so far; afterwards it is shared by the prior.

    Args:
        wanted: (L,) pool size per label.
        accepted: (L,) pool rows per label so far.
        asked: (L,) texts asked for so far.
        prior: (L,) label masses, sum 1.
        round_samples: most texts to ask for in a round.
        texts_per_cluster: texts asked for per cluster.

    Returns:
        (L,) counts >= 0, at least one cluster in all.
    """
    # Counting one more success and one more try keeps an early yield of 0 from asking for everything at once.
    accept_rate = np.maximum((accepted + 1) / (asked + 1), _LEAST_YIELD)
    needed = np.maximum(wanted - accepted, 0) / np.minimum(accept_rate, 1.0)
    total = needed.sum()
    texts = needed * min(1.0, round_samples / total) if total > 0 else prior * round_samples
    clusters: IntArray = np.ceil(texts / texts_per_cluster - 1e-9).astype(np.int64)
    if clusters.sum() == 0:
        clusters[int(np.argmax(prior))] = 1
    return clusters


class Progress(NamedTuple):
    """What a round came to."""

    n_pool: int
    n_selected: int
    mmd2: float | None
    target: float | None


def stop_reason(
    history: Sequence[Progress],
    *,
    n_samples: int,
    pool_target: int,
    limits_hit: Sequence[str],
    max_rounds: int,
    patience_rounds: int,
    min_gain: float,
) -> str | None:
    """Return why the loop ends after the last round of `history`, or None to go on.

    Args:
        history: one entry per round, at least one.
        n_samples: rows asked for.
        pool_target: pool size before the first test of the distance.
        limits_hit: budget limits that stopped calls in the last round.
        max_rounds: most rounds.
        patience_rounds: rounds in a row without a gain.
        min_gain: least relative fall of MMD2 that counts as a gain.
    """
    last = history[-1]
    complete = [entry for entry in history if entry.n_pool >= pool_target and entry.n_selected >= n_samples]
    if complete and complete[-1] is last:
        if last.mmd2 is not None and last.target is not None and last.mmd2 <= last.target:
            return "target_reached"
        if _rounds_without_gain([entry.mmd2 for entry in complete], min_gain) >= patience_rounds:
            return "patience"
    if limits_hit:
        return limits_hit[0]
    if len(history) >= max_rounds:
        return "max_rounds"
    idle = len(history) > patience_rounds and last.n_pool == history[-1 - patience_rounds].n_pool
    return "no_new_samples" if idle else None


def _rounds_without_gain(distances: Sequence[float | None], min_gain: float) -> int:
    best, idle = math.inf, 0
    for distance in distances:
        if distance is not None and distance < best - min_gain * abs(best if best < math.inf else 0.0):
            best, idle = distance, 0
        else:
            idle += 1
    return idle
