"""Copies of real rows: shared runs of words, nearness in embedding space, or most of a row's words. Hold-out rows count too."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from synalign_agent.gates.base import Verdict

_WORD = re.compile(r"\w+", re.UNICODE)
_FEWEST_WORDS = 8


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


def check_nearest(
    text: str, row: str, real_id: str, similarity: float, *, max_cosine: float, max_row_share: float
) -> Verdict | None:
    """Reject a text that is nearer to its nearest real row than `max_cosine`, or repeats more than a share of its words in order.

    The share finds what the runs miss: a short row with a word replaced or two swapped shares no long run, and one that stands in
    a longer text is not near to it. Shorter rows than 8 words do not count: with one of them changed, "how do I change my pin" is
    another question.
    """
    if similarity > max_cosine:
        return Verdict("copy_cosine", f"cosine {similarity:.3f} to real row {real_id}")
    words = words_of(row)
    if len(words) < _FEWEST_WORDS:
        return None
    written, most = words_of(text), max_row_share * len(words)
    shared = (Counter(written) & Counter(words)).total()
    if shared <= most:  # Spares nearly all texts the matching, which is slow on long ones.
        return None
    repeated = sum(block.size for block in SequenceMatcher(None, written, words, autojunk=False).get_matching_blocks())
    if repeated <= most:
        return None
    return Verdict("copy_edited", f"repeats {repeated} of the {len(words)} words of real row {real_id}")
