"""The gates that look at vectors, as `screen` and the review of samples put them to work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synalign_agent.deps import Deps
from synalign_agent.gates.base import Verdict
from synalign_agent.gates.copy_check import check_nearest
from synalign_agent.gates.duplicate import SeenTexts, check_duplicates
from synalign_agent.gates.label_check import check_vote


def nearest_real(deps: Deps, X: NDArray[np.float32]) -> list[tuple[str, float]]:
    """Return the id of the real row nearest to each text, and its cosine."""
    rows, similarities = deps.real_vectors.search(X, 1)
    return [
        (deps.real_vectors.ids[int(row[0])], float(similarity[0]))
        for row, similarity in zip(rows, similarities, strict=True)
    ]


def near_copy(deps: Deps, text: str, real_id: str, similarity: float, *, margin: float = 0.0) -> Verdict | None:
    """Hold a text against its nearest real row; with a `margin`, say whether it passes by less than that."""
    gate = deps.config.gates.copy_check
    [row] = deps.real.texts([real_id])
    return check_nearest(
        text,
        row,
        real_id,
        similarity,
        max_cosine=gate.max_cosine - margin,
        max_row_share=gate.max_row_share - margin if gate.max_row_share < 1 else 1.0,
    )


def label_votes(deps: Deps, labels: Sequence[str], X: NDArray[np.float32], *, min_vote: float) -> list[Verdict | None]:
    """Let the nearest reference rows vote on the label that each text was written for."""
    real = deps.real
    nearest, _ = deps.real_vectors.search(
        X, deps.config.gates.label_check.neighbours, among=np.flatnonzero(~real.held_out)
    )
    counts = Counter(real.labels[code] for code in real.codes[~real.held_out])
    return [
        check_vote(label, [real.labels[real.codes[row]] for row in rows], counts, min_vote)
        for label, rows in zip(labels, nearest, strict=True)
    ]


def refuse_duplicates(
    deps: Deps,
    verdicts: list[Verdict | None],
    texts: Sequence[str],
    X: NDArray[np.float32],
    *,
    seen: SeenTexts,
    pool_rows: NDArray[np.int64],
    accept: bool = True,
) -> None:
    """Fill in verdicts on texts that repeat one of the pool or each other, where there is no verdict yet.

    This gate comes last, so that a rejected text does not make a good one its duplicate.

    Args:
        deps: the session.
        verdicts: (b,) of the other gates.
        texts: (b,) in the order in which they may be accepted.
        X: (b, d).
        seen: the texts that count as the pool; those that are accepted join them.
        pool_rows: where the pool is in `pool_vectors`.
        accept: False leaves out what repeats the pool alone: a gate that costs calls is still to come, and this one again.
    """
    left = [place for place, verdict in enumerate(verdicts) if verdict is None]
    _, similarities = deps.pool_vectors.search(X[left], 1, among=pool_rows)
    nearest = similarities[:, 0] if similarities.shape[1] else np.full(len(left), -1.0, dtype=np.float32)
    found = check_duplicates(
        [texts[place] for place in left], X[left], seen, nearest, deps.config.gates.duplicate_cosine, accept=accept
    )
    for place, verdict in zip(left, found, strict=True):
        verdicts[place] = verdict
