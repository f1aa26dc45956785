"""How the gates would treat real rows: what a share of rejections is to be held against."""

from __future__ import annotations

from collections import Counter

import numpy as np

from synalign_agent.config import GatesConfig
from synalign_agent.core.strata import some_rows
from synalign_agent.data.real import RealData
from synalign_agent.gates.label_check import check_vote
from synalign_agent.gates.length import check_length, check_repetition, length_limits
from synalign_agent.stores.vectors import VectorStore

_MOST_ROWS = 500
_JUDGED = ("too_short", "too_long", "repetitive")


def real_rejection_rates(
    config: GatesConfig, real: RealData, real_vectors: VectorStore, rng: np.random.Generator
) -> dict[str, float]:
    """Return reason -> share of held-out real rows that the gate would reject, for the gates that can be asked.

    Gates against copies and duplicates mean nothing here, and a judge would cost calls. Without held-out rows there is nothing
    that the limits and the votes were not made from, so the result is empty.

    Args:
        config: the gates.
        real: the real rows, of which at most 500 are looked at.
        real_vectors: their vectors.
        rng: draws them.
    """
    places = np.flatnonzero(real.held_out)
    if len(places) == 0:
        return {}
    places = some_rows(places, _MOST_ROWS, rng)
    limits = length_limits([row.text for row in real.rows if row.split == "reference"], config.length)
    counts: Counter[str] = Counter(dict.fromkeys(_JUDGED, 0))
    for place in places.tolist():
        text = real.rows[place].text
        verdict = check_length(text, limits) or check_repetition(text, config.max_repetition)
        if verdict is not None and verdict.reason in _JUDGED:
            counts[verdict.reason] += 1
    if config.label_check.method == "nearest" and len(real.labels) > 1:
        nearest, _ = real_vectors.search(
            real.X[places], config.label_check.neighbours, among=np.flatnonzero(~real.held_out)
        )
        label_counts = Counter(real.labels[code] for code in real.codes[~real.held_out])
        votes = [
            check_vote(
                real.rows[place].label,
                [real.labels[real.codes[row]] for row in rows],
                label_counts,
                config.label_check.min_vote,
            )
            for place, rows in zip(places.tolist(), nearest, strict=True)
        ]
        counts["label_mismatch"] = sum(verdict is not None for verdict in votes)
    return {reason: count / len(places) for reason, count in counts.items()}
