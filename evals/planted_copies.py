"""Copies of real rows, as a language model makes them when it has seen the row: exact, or a little changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

NEW = "new row"
_WORD = re.compile(r"\w+")
_MARKS = re.compile(r"[^\w\s]+")
_SPLIT = re.compile(r"(?<=[.!?])\s+")

Change = Callable[[str, Sequence[str], np.random.Generator], str]


def change(kind: str, text: str, filler: Sequence[str], rng: np.random.Generator) -> str:
    """Return a copy of a text.

    Args:
        kind: one of `CHANGES`.
        text: a real row.
        filler: texts to take other words and sentences from.
        rng: of what is drawn.
    """
    return CHANGES[kind](text, filler, rng)


def _exact(text: str, filler: Sequence[str], rng: np.random.Generator) -> str:
    return text


def _case_folded(text: str, filler: Sequence[str], rng: np.random.Generator) -> str:
    return text.casefold()


def _other_punctuation(text: str, filler: Sequence[str], rng: np.random.Generator) -> str:
    """Drop all marks, and end with one that the text did not end with."""
    return " ".join(_MARKS.sub(" ", text).split()) + ("." if text.rstrip().endswith("!") else "!")


def _word_replaced(text: str, filler: Sequence[str], rng: np.random.Generator) -> str:
    words = list(_WORD.finditer(text))
    if not words:
        return text
    place = words[int(rng.integers(len(words)))]
    others = [word for word in _WORD.findall(_any(filler, rng)) if word.casefold() != place[0].casefold()]
    other = others[int(rng.integers(len(others)))] if others else "other"
    return text[: place.start()] + other + text[place.end() :]


def _words_swapped(text: str, filler: Sequence[str], rng: np.random.Generator) -> str:
    """Exchange two neighbouring words."""
    words = list(_WORD.finditer(text))
    if len(words) < 2:
        return text
    at = int(rng.integers(len(words) - 1))
    first, second = words[at], words[at + 1]
    return text[: first.start()] + second[0] + text[first.end() : second.start()] + first[0] + text[second.end() :]


def _sentence_inserted(text: str, filler: Sequence[str], rng: np.random.Generator) -> str:
    """Add a sentence of another text, before, after or between the sentences of the row."""
    sentences = _SPLIT.split(text)
    sentences.insert(int(rng.integers(len(sentences) + 1)), _SPLIT.split(_any(filler, rng))[0])
    return " ".join(sentences)


def _any(filler: Sequence[str], rng: np.random.Generator) -> str:
    return filler[int(rng.integers(len(filler)))]


CHANGES: dict[str, Change] = {
    "exact": _exact,
    "case folded": _case_folded,
    "other punctuation": _other_punctuation,
    "a word replaced": _word_replaced,
    "two words swapped": _words_swapped,
    "a sentence inserted": _sentence_inserted,
}
"""By name, in the order of tables."""
