"""How often each attribute value occurs in the real rows, in the pool and in the dataset, told by one rule for all three."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synalign_agent.core.alignment import Rows
from synalign_agent.core.arrays import Array, FloatArray, IntArray
from synalign_agent.records import DemonstrationCluster

_QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class DescribedClusters:
    """Demonstration clusters that have attributes."""

    centres: Rows
    """(k, d) the mean of each cluster's rows, not normalised."""
    attributes: Sequence[Mapping[str, str]]

    @classmethod
    def of(
        cls,
        clusters: Sequence[DemonstrationCluster],
        attributes: Mapping[str, Mapping[str, str]],
        X: Array,
        position: Mapping[str, int],
        code_of: Mapping[str, int],
    ) -> DescribedClusters:
        """Take the clusters that have attributes; `position` says in which row of X a real row is."""
        described = [cluster for cluster in clusters if attributes.get(cluster.id)]
        means = [X[[position[id] for id in cluster.member_ids]].mean(axis=0) for cluster in described]
        centres = np.array(means, dtype=np.float64).reshape(len(described), X.shape[1])
        codes = np.array([code_of[cluster.label] for cluster in described], dtype=np.int64)
        return cls(Rows(centres, codes), [attributes[cluster.id] for cluster in described])


def attribute_shares(
    clusters: DescribedClusters, groups: Mapping[str, tuple[Rows, FloatArray]], sizes: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return the share of each value of each dimension in each group.

    A row has the attributes of the cluster of its label whose centre is nearest to it. For synthetic rows that is not
    always the cluster they were written from, but only so is the comparison with real rows, of which nobody knows the
    attributes, fair.

    Args:
        clusters: clusters with attributes; rows of a label without one do not count.
        groups: `real` and `selected`, and any others: rows and their weights, which sum to 1 or, for an empty group, to 0.
        sizes: rows in `real` and `selected`, for the noise of their shares.

    Returns:
        For each dimension `dimension` and `values`, a list of `value`, a share for each group (None where no row of
        it counts), `noise` (standard error of the difference of `real` and `selected`, were both samples of one population) and
        `z` (the difference in units of it); the most frequent real values first.
    """
    if not clusters.attributes:
        return []
    nearest = {name: _nearest_cluster(rows, clusters.centres) for name, (rows, _) in groups.items()}
    shares: dict[str, dict[str, dict[str, float]]] = defaultdict(
        lambda: defaultdict(lambda: dict.fromkeys(groups, 0.0))
    )
    spelled: dict[tuple[str, str], str] = {}
    told: dict[str, float] = {}
    for name, (_, weights) in groups.items():
        known = nearest[name] >= 0
        of_cluster = np.bincount(nearest[name][known], weights=weights[known], minlength=len(clusters.attributes))
        told[name] = float(of_cluster.sum())  # rows of labels without a described cluster say nothing
        for attributes, share in zip(clusters.attributes, (of_cluster / (told[name] or 1.0)).tolist(), strict=True):
            for dimension, value in attributes.items():
                key = " ".join(value.casefold().split())
                spelled.setdefault((dimension, key), value)
                shares[dimension][key][name] += share
    empty = {name for name, mass in told.items() if mass <= 0.0}
    n_told = {name: n * told[name] for name, n in sizes.items()}
    return [
        {
            "dimension": dimension,
            "values": sorted(
                (_value(spelled[dimension, key], found, n_told, empty) for key, found in values.items()),
                key=lambda row: (-(row["real"] or 0.0), row["value"]),
            ),
        }
        for dimension, values in shares.items()
    ]


def text_lengths(groups: Mapping[str, tuple[Sequence[str], FloatArray]]) -> dict[str, dict[str, float] | None]:
    """Return the weighted 10 %, 50 % and 90 % quantiles of text lengths in characters; None for an empty group."""
    found: dict[str, dict[str, float] | None] = {}
    for name, (texts, weights) in groups.items():
        kept = [(len(text), weight) for text, weight in zip(texts, weights.tolist(), strict=True) if weight > 0]
        if not kept:
            found[name] = None
            continue
        lengths, mass = (np.array(column, dtype=np.float64) for column in zip(*sorted(kept), strict=True))
        below = np.cumsum(mass) / mass.sum()
        places = np.minimum(np.searchsorted(below, np.array(_QUANTILES) - 1e-12), len(lengths) - 1)
        found[name] = {f"p{q * 100:.0f}": float(lengths[place]) for q, place in zip(_QUANTILES, places, strict=True)}
    return found


def _nearest_cluster(rows: Rows, centres: Rows) -> IntArray:
    """Return for each row the cluster of its label with the nearest centre in Euclidean distance, or -1 if there is none."""
    nearest = np.full(len(rows.X), -1, dtype=np.int64)
    for label in np.unique(rows.label).tolist():
        own, clusters = np.flatnonzero(rows.label == label), np.flatnonzero(centres.label == label)
        if len(clusters):
            C = centres.X[clusters]
            nearest[own] = clusters[np.argmin((C**2).sum(axis=1) - 2 * (rows.X[own] @ C.T), axis=1)]
    return nearest


def _value(value: str, shares: Mapping[str, float], sizes: Mapping[str, float], empty: set[str]) -> dict[str, Any]:
    known: dict[str, float | None] = {name: None if name in empty else share for name, share in shares.items()}
    noise = z = None
    if not empty & {"real", "selected"}:
        n_real, n_selected = sizes["real"], sizes["selected"]
        pooled = (shares["real"] * n_real + shares["selected"] * n_selected) / (n_real + n_selected)
        pooled = min(max(pooled, 0.0), 1.0)
        noise = math.sqrt(pooled * (1.0 - pooled) * (1.0 / n_real + 1.0 / n_selected))
        z = (shares["selected"] - shares["real"]) / noise if noise > 0 else None
    return {"value": value, **known, "noise": noise, "z": z}
