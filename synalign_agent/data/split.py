"""Split real rows into reference (explored, fitted, shown) and hold-out (only for scoring)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from synalign_agent.records import RealRow, content_id

_FEW_ROWS = 30


def split_rows(
    texts: Sequence[str], labels: Sequence[str], *, holdout_fraction: float, min_holdout_rows: int, seed: int
) -> list[RealRow]:
    """Return the rows in input order, each marked `reference` or `holdout`.

    Per label, `max(holdout_fraction * n, min_holdout_rows)` rows are held out. A label with fewer than
    `2 * min_holdout_rows` rows gets no hold-out: it would leave too little to explore, and its distances are then taken to
    the reference. Rows are ordered by a hash of seed and content, so that adding rows to a file moves few of the others.
    """
    ids = [content_id(label, text) for text, label in zip(texts, labels, strict=True)]
    by_label: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        by_label.setdefault(label, []).append(index)
    # A text under several labels would be shown under one while it is held out under the other.
    ambiguous = {text for text, count in Counter(texts).items() if count > 1}
    held: set[int] = set()
    for rows in by_label.values():
        if holdout_fraction == 0 or len(rows) < 2 * min_holdout_rows:
            continue
        n_holdout = min(max(round(holdout_fraction * len(rows)), min_holdout_rows), len(rows) - min_holdout_rows)
        eligible = [index for index in rows if texts[index] not in ambiguous]
        held.update(sorted(eligible, key=lambda index: content_id(str(seed), ids[index]))[:n_holdout])
    return [
        RealRow(ids[index], texts[index], labels[index], "holdout" if index in held else "reference")
        for index in range(len(texts))
    ]


def split_warnings(rows: Sequence[RealRow]) -> list[str]:
    """Say what distances to these rows will not mean."""
    warnings = []
    if len(rows) < _FEW_ROWS:
        warnings.append(
            f"only {len(rows)} real rows: a distance to so few says little, and so does how many real rows the result is worth"
        )
    if rows and all(row.split == "reference" for row in rows):
        warnings.append(
            "no real rows are held out (too few per label, or data.holdout_fraction is 0): distances are to the rows that the "
            "model is shown and the weights are fitted to, and look better than they are"
        )
    return warnings
