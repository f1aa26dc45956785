"""Exact and near duplicates of earlier samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synalign_agent.gates.base import Verdict
from synalign_agent.gates.copy_check import words_of


def check_duplicates(
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    pool_texts: Sequence[str],
    pool_similarity: NDArray[np.float32],
    max_cosine: float,
) -> list[Verdict | None]:
    """Compare each text with the pool and with the texts accepted before it.

    Args:
        texts: (b,) candidates, in order.
        vectors: (b, d) unit-norm embeddings of the candidates.
        pool_texts: texts of the pool.
        pool_similarity: (b,) cosine similarity to the nearest pool sample (-1 with an empty pool).
        max_cosine: similarity above which two texts are near duplicates.

    Returns:
        (b,) verdicts, None where the text is new. Memory O(b * accepted).
    """
    seen = {_key(text) for text in pool_texts}
    accepted: list[int] = []
    verdicts: list[Verdict | None] = []
    for index, text in enumerate(texts):
        key = _key(text)
        verdict: Verdict | None = None
        if key in seen:
            verdict = Verdict("duplicate", "same words as an earlier sample")
        else:
            nearest = float(pool_similarity[index])
            if accepted:
                nearest = max(nearest, float((vectors[accepted] @ vectors[index]).max()))
            if nearest > max_cosine:
                verdict = Verdict("near_duplicate", f"cosine {nearest:.3f} to an earlier sample")
        if verdict is None:
            seen.add(key)
            accepted.append(index)
        verdicts.append(verdict)
    return verdicts


def _key(text: str) -> tuple[str, ...]:
    """Return what makes two texts the same: their words, or the text itself if it has none (emoji, say)."""
    return tuple(words_of(text)) or (text,)
