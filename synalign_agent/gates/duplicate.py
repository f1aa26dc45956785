"""Exact and near duplicates of earlier samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synalign_agent.gates.base import Verdict
from synalign_agent.gates.copy_check import words_of

_BLOCK = 512


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
        (b,) verdicts, None where the text is new. Time O(b * accepted * d) by matrix products; memory: the accepted
        vectors, and blocks of 512 x accepted.
    """
    seen = {_key(text) for text in pool_texts}
    accepted = np.empty_like(vectors)
    n_accepted = 0
    verdicts: list[Verdict | None] = []
    for start in range(0, len(texts), _BLOCK):
        part = slice(start, start + _BLOCK)
        nearest_before = np.max(vectors[part] @ accepted[:n_accepted].T, axis=1, initial=-1.0)
        nearest_before = np.maximum(nearest_before, pool_similarity[part])
        n_before = n_accepted
        for text, vector, before in zip(texts[part], vectors[part], nearest_before, strict=True):
            key = _key(text)
            nearest = float(np.max(accepted[n_before:n_accepted] @ vector, initial=before))
            if key in seen:
                verdicts.append(Verdict("duplicate", "same words as an earlier sample"))
            elif nearest > max_cosine:
                verdicts.append(Verdict("near_duplicate", f"cosine {nearest:.3f} to an earlier sample"))
            else:
                verdicts.append(None)
                seen.add(key)
                accepted[n_accepted] = vector
                n_accepted += 1
    return verdicts


def _key(text: str) -> tuple[str, ...]:
    """Return what makes two texts the same: their words, or the text itself if it has none (emoji, say)."""
    return tuple(words_of(text)) or (text,)
