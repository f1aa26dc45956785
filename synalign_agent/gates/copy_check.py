"""Copies of real rows: shared runs of words, and nearness in embedding space. Hold-out rows count like the others."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from synalign_agent.gates.base import Verdict

_WORD = re.compile(r"\w+", re.UNICODE)


def words_of(text: str) -> list[str]:
    """Return the case-folded words of a text, without punctuation, in one Unicode form."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class WordRuns:
    """The runs of `length` words in the real rows, and the shorter rows as wholes; memory grows with the words in all.

    A short text is a copy only if it is all of a row: "where is my order" inside a longer row is everybody's phrase.
    """

    def __init__(self, texts: Sequence[str], length: int) -> None:
        self._length = length
        self._row_of: dict[int, int] = {}
        for row, text in enumerate(texts):
            for run in self._runs(words_of(text)):
                self._row_of.setdefault(hash(run), row)

    def copied_from(self, text: str) -> tuple[int, int] | None:
        """Return (row, run length in words) of a real row that shares a run with the text, or None."""
        for run in self._runs(words_of(text)):
            row = self._row_of.get(hash(run))
            if row is not None:
                return row, len(run)
        return None

    def _runs(self, words: list[str]) -> Iterator[tuple[str, ...]]:
        size = min(self._length, len(words))
        return (tuple(words[start : start + size]) for start in range(len(words) - size + 1) if size)


def check_words(text: str, runs: WordRuns, real_ids: Sequence[str]) -> Verdict | None:
    """Reject a text that shares a run of words with a real row."""
    found = runs.copied_from(text)
    if found is None:
        return None
    row, size = found
    return Verdict("copy_words", f"shares {size} words in a row with real row {real_ids[row]}")


def check_cosine(similarity: float, real_id: str, max_cosine: float) -> Verdict | None:
    """Reject a text whose nearest real row is nearer than `max_cosine`."""
    if similarity <= max_cosine:
        return None
    return Verdict("copy_cosine", f"cosine {similarity:.3f} to real row {real_id}")
