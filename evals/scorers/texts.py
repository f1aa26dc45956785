"""Repetition and variety of texts; whatever their case, since much of what models write is lower-case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

import numpy as np

from synalign_agent.core.arrays import Array

_WORD = re.compile(r"\w+")
_BLOCK_ROWS = 2048


def words(text: str) -> list[str]:
    """Return the words of a text, case-folded."""
    return _WORD.findall(text.casefold())


def distinct_ngrams(texts: Sequence[str], n: int) -> float | None:
    """Return distinct n-grams of words over all n-grams (Li et al., NAACL 2016); None where no text has n words.

    It falls as the texts get more or longer: compare sets of the same size.
    """
    spoken = [words(text) for text in texts]
    grams = list(chain.from_iterable(zip(*(text[start:] for start in range(n)), strict=False) for text in spoken))
    return len(set(grams)) / len(grams) if grams else None


def exact_duplicates(texts: Sequence[str]) -> float:
    """Return the share of texts that repeat the words of an earlier one."""
    return 1.0 - len({tuple(words(text)) for text in texts}) / len(texts)


def near_duplicates(X: Array, least_cosine: float) -> float:
    """Return the share of unit rows X (n, d) that are within `least_cosine` of an earlier one."""
    repeats = 0
    for start in range(0, len(X), _BLOCK_ROWS):
        similarity = X[start : start + _BLOCK_ROWS] @ X.T
        # Entry (i, j) of the block is row start + i against row j: only j before it counts.
        repeats += int((np.tril(similarity, start - 1) >= least_cosine).any(axis=1).sum())
    return repeats / len(X)
