"""Exact and near duplicates of earlier samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from synalign_agent.gates.base import Verdict
from synalign_agent.gates.copy_check import words_of

_BLOCK = 512


class SeenTexts:
    """Which texts are there already: 64 bits of each, whatever its length."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._hashes = {_hash(text) for text in texts}

    def __contains__(self, text: str) -> bool:
        return _hash(text) in self._hashes

    def add(self, text: str) -> None:
        """Note a text."""
        self._hashes.add(_hash(text))


def check_duplicates(
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    seen: SeenTexts,
    pool_similarity: NDArray[np.float32],
    max_cosine: float,
    *,
    accept: bool = True,
) -> list[Verdict | None]:
    """Compare each text with the pool and with the texts accepted before it.

    Args:
        texts: (b,) candidates, in order.
        vectors: (b, d) unit-norm embeddings of the candidates.
        seen: texts of the pool; those that are accepted join it.
        pool_similarity: (b,) cosine similarity to the nearest pool sample (-1 with an empty pool).
        max_cosine: similarity above which two texts are near duplicates.
        accept: False compares with the pool alone, where another gate may still refuse a text that is new.

    Returns:
        (b,) verdicts, None where the text is new. Time O(b * accepted * d) by matrix products; memory: the accepted
        vectors, and blocks of 512 x accepted.
    """
    accepted = np.empty_like(vectors)
    n_accepted = 0
    verdicts: list[Verdict | None] = []
    for start in range(0, len(texts), _BLOCK):
        part = slice(start, start + _BLOCK)
        nearest_before = np.max(vectors[part] @ accepted[:n_accepted].T, axis=1, initial=-1.0)
        nearest_before = np.maximum(nearest_before, pool_similarity[part])
        n_before = n_accepted
        for text, vector, before in zip(texts[part], vectors[part], nearest_before, strict=True):
            nearest = float(np.max(accepted[n_before:n_accepted] @ vector, initial=before))
            if text in seen:
                verdicts.append(Verdict("duplicate", "same words as an earlier sample"))
            elif nearest > max_cosine:
                verdicts.append(Verdict("near_duplicate", f"cosine {nearest:.3f} to an earlier sample"))
            else:
                verdicts.append(None)
                if accept:
                    seen.add(text)
                    accepted[n_accepted] = vector
                    n_accepted += 1
    return verdicts


def _hash(text: str) -> int:
    """Return what makes two texts the same: their words, or the text itself if it has none (emoji, say)."""
    return hash(tuple(words_of(text)) or (text,))
