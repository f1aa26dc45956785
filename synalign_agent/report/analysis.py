"""What the report looks for in a session: gaps, attribute shares, lengths, copies and weights, each beside real rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synalign_agent.config import SessionConfig
from synalign_agent.core.alignment import Rows
from synalign_agent.core.arrays import FloatArray, IntArray
from synalign_agent.core.strata import some_rows
from synalign_agent.data.measure import label_prior
from synalign_agent.data.real import RealData
from synalign_agent.report.copies import copy_check
from synalign_agent.report.gaps import session_gaps
from synalign_agent.report.gate_rates import real_rejection_rates
from synalign_agent.report.shares import DescribedClusters, attribute_shares, text_lengths
from synalign_agent.report.weights import weight_distribution
from synalign_agent.stores.base import SessionStore
from synalign_agent.stores.vectors import VectorStore

_STREAM = 8
_MOST_ROWS = 5000
"""Of each group: shares of so many rows have a standard error of at most 0.7 %."""


def analyse(
    folder: Path,
    store: SessionStore,
    config: SessionConfig,
    real: RealData,
    real_vectors: VectorStore,
    pool_vectors: VectorStore,
    pool: pd.DataFrame,
    attributes: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Return the findings as plain JSON values.

    Args:
        folder: the session's folder.
        store: its store.
        config: its configuration.
        real: its real rows.
        real_vectors: their vectors.
        pool_vectors: vectors of the pool.
        pool: the pool frame (see `report/export.py`), of rows that have vectors.
        attributes: cluster id -> its attributes.

    Returns:
        `n_real` {`rows`, `held_out`, `labels`}; `gap_map` (`report/gaps.py`; None before the first round), `attribute_shares` and
        `text_length` (`report/shares.py`), `copy_check` (`report/copies.py`), `real_rejection_rates` (`report/gate_rates.py`) and
            `weights` (`report/weights.py`).
    """
    rng = np.random.default_rng([config.seed, _STREAM])
    code_of = {label: code for code, label in enumerate(real.labels)}
    codes = np.array([code_of[label] for label in pool["label"]], dtype=np.int64)
    rows = Rows(pool_vectors.get(pool["sample_id"].tolist()), codes)
    copies = pool["copies"].to_numpy(dtype=np.int64)
    rounds = store.rounds()
    chosen = copies > 0
    prior = label_prior(config, real)
    groups = {
        "real": _Group.of(rng, np.flatnonzero(real.scores), real.X, real.codes, prior),
        "reference": _Group.of(rng, np.flatnonzero(~real.held_out), real.X, real.codes, prior),
        "pool": _Group.of(rng, np.arange(len(pool)), rows.X, codes, _label_shares(codes, copies, len(prior))),
        "selected": _Group.weighted(rng, np.flatnonzero(chosen), rows.X, codes, copies),
    }
    clusters = DescribedClusters.of(store.clusters(), attributes, real.X, real.position, code_of)
    texts: dict[str, list[str]] = {
        name: [real.rows[place].text for place in groups[name].places.tolist()] for name in ("real", "reference")
    }
    texts |= {name: pool["text"].iloc[groups[name].places].tolist() for name in ("pool", "selected")}
    return {
        "n_real": {"rows": len(real.rows), "held_out": int(real.held_out.sum()), "labels": len(real.labels)},
        "gap_map": session_gaps(config, real, rows, copies, folder=folder, n_rounds=len(rounds)) if rounds else None,
        "attribute_shares": attribute_shares(
            clusters,
            {name: (groups[name].rows, groups[name].weights) for name in ("real", "pool", "selected")},
            {"real": len(groups["real"].places), "selected": int(copies.sum())},
        ),
        "text_length": text_lengths({name: (texts[name], group.weights) for name, group in groups.items()}),
        "copy_check": copy_check(
            pool["nearest_similarity"].to_numpy(dtype=np.float64)[chosen], copies[chosen], real_vectors, rng
        ),
        "real_rejection_rates": real_rejection_rates(config.gates, real, real_vectors, rng),
        "weights": weight_distribution(pool["weight"].to_numpy(dtype=np.float64)),
    }


class _Group:
    """Some rows of a kind, and what each counts."""

    def __init__(self, places: IntArray, X: NDArray[np.float32], codes: IntArray, weights: FloatArray) -> None:
        self.places = places
        self.rows = Rows(X[places], codes[places])
        self.weights = weights

    @classmethod
    def of(
        cls, rng: np.random.Generator, places: IntArray, X: NDArray[np.float32], codes: IntArray, masses: FloatArray
    ) -> _Group:
        """Take rows of which every label counts as `masses` say."""
        places = some_rows(places, _MOST_ROWS, rng)
        counts = np.bincount(codes[places], minlength=len(masses))
        weights = masses[codes[places]] / counts[codes[places]]
        return cls(places, X, codes, weights / (weights.sum() or 1.0))

    @classmethod
    def weighted(
        cls, rng: np.random.Generator, places: IntArray, X: NDArray[np.float32], codes: IntArray, copies: IntArray
    ) -> _Group:
        """Take rows of which each counts as often as it is there."""
        places = some_rows(places, _MOST_ROWS, rng)
        return cls(places, X, codes, copies[places] / max(int(copies[places].sum()), 1))


def _label_shares(codes: IntArray, copies: IntArray, n_labels: int) -> FloatArray:
    """Return the dataset's label shares: raw rows are compared at the same ones."""
    counts = np.bincount(codes, weights=copies, minlength=n_labels)
    shares: FloatArray = counts / (counts.sum() or 1.0)
    return shares
