"""Too short, too long, cut at the schema's limit, or the same words over and over."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synalign_agent.config import LengthGateConfig
from synalign_agent.gates.base import Verdict


@dataclass(frozen=True, slots=True)
class LengthLimits:
    """Inclusive limits, in characters, and the usual length, in words."""

    min_characters: int
    max_characters: int
    usual_words: tuple[int, int]
    """The 10 % and 90 % quantiles of the real rows: what the prompt asks for."""


def length_limits(texts: Sequence[str], config: LengthGateConfig) -> LengthLimits:
    """Derive the limits from real texts (half the 1 % quantile, 1.5 times the 99 %) where the configuration has none."""
    characters = np.array([len(text) for text in texts])
    words = np.array([len(text.split()) for text in texts])
    low, high = np.quantile(characters, [0.01, 0.99])
    shortest, longest = max(1, int(0.5 * low)), max(20, int(np.ceil(1.5 * high)))
    # A limit of one's own may lie beyond what the real rows give for the other one, and then wins.
    shortest = config.min_characters or min(shortest, config.max_characters or shortest)
    longest = config.max_characters or max(longest, shortest)
    characters_per_word = characters.sum() / max(1, words.sum())
    # What is asked for must pass: limits of one's own may leave out most lengths that real rows have.
    usual = np.clip(np.quantile(words, [0.1, 0.9]), shortest / characters_per_word, longest / characters_per_word)
    return LengthLimits(shortest, longest, (max(1, round(float(usual[0]))), max(1, round(float(usual[1])))))


def check_length(text: str, limits: LengthLimits, *, is_cut: bool = False) -> Verdict | None:
    """Reject by length, and a text that the limit in the schema cut in mid-sentence (`is_cut`)."""
    if not text.strip():
        return Verdict("empty", "")
    if len(text) < limits.min_characters:
        return Verdict("too_short", f"{len(text)} characters, at least {limits.min_characters} wanted")
    if is_cut:
        return Verdict("text_cut", f"reached the limit of {limits.max_characters} characters in the schema")
    if len(text) > limits.max_characters:
        return Verdict("too_long", f"{len(text)} characters, at most {limits.max_characters} wanted")
    return None


def check_repetition(text: str, max_share: float) -> Verdict | None:
    """Reject a text in which more than `max_share` of the word pairs repeat an earlier pair: a small model in a loop."""
    words = text.lower().split()
    pairs = list(itertools.pairwise(words))
    if len(pairs) < 4:
        return None
    share = 1 - len(set(pairs)) / len(pairs)
    return Verdict("repetitive", f"{share:.0%} of its word pairs repeat") if share > max_share else None
