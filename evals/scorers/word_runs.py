"""The longest run of words that a text shares with any of many others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synalign_agent.core.arrays import IntArray
from synalign_agent.gates.copy_check import words_of

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio; odd, so that multiplying by it loses nothing."""


def longest_shared_runs(texts: Sequence[str], others: Sequence[str]) -> IntArray:
    """Return how many words in a row each text shares with one of the others, case and punctuation aside.

    Runs are compared by 64-bit hashes, one length after the other until no run is shared: time is the longest shared run times
    the words, memory the words. Runs of other words have one hash once in 2^64.

    Args:
        texts: (n,).
        others: what to look in.

    Returns:
        (n,) >= 0.
    """
    code: dict[str, int] = {}
    words, owner = _coded(texts, code)
    other_words, other_owner = _coded(others, code)
    longest = np.zeros(len(texts), dtype=np.int64)
    hashes, other_hashes = words, other_words
    for length in range(1, min(len(words), len(other_words)) + 1):
        if length > 1:
            hashes = hashes[:-1] * _FACTOR + words[length - 1 :]
            other_hashes = other_hashes[:-1] * _FACTOR + other_words[length - 1 :]
        # Runs that go on into the next text are none.
        whole = owner[: len(hashes)] == owner[length - 1 :]
        other_whole = other_owner[: len(other_hashes)] == other_owner[length - 1 :]
        shared = whole & np.isin(hashes, other_hashes[other_whole])
        if not shared.any():
            break
        longest[owner[: len(hashes)][shared]] = length
    return longest


def _coded(texts: Sequence[str], code: dict[str, int]) -> tuple[NDArray[np.uint64], IntArray]:
    """Return the codes of all words, one text after the other, and the text of each word; new words are added to `code`."""
    words = [words_of(text) for text in texts]
    flat = [code.setdefault(word, len(code)) for row in words for word in row]
    # Codes of 64 random bits: sums of small numbers would collide.
    bits = np.random.default_rng(0).integers(2**64, size=len(code), dtype=np.uint64)
    owner = np.repeat(np.arange(len(texts)), [len(row) for row in words])
    return bits[np.array(flat, dtype=np.intp)], owner
