from __future__ import annotations

import pytest

from synalign_agent.config import LengthGateConfig
from synalign_agent.gates.base import Verdict
from synalign_agent.gates.length import LengthLimits, check_length, check_repetition, length_limits

LIMITS = LengthLimits(min_characters=5, max_characters=10, usual_words=(1, 3))


def reason(text: str, *, is_cut: bool = False) -> str | None:
    verdict = check_length(text, LIMITS, is_cut=is_cut)
    return None if verdict is None else verdict.reason


@pytest.mark.parametrize(
    ("n", "found"), [(0, "empty"), (4, "too_short"), (5, None), (9, None), (10, None), (11, "too_long")]
)
def test_both_sides_of_each_limit(n: int, found: str | None) -> None:
    assert reason("x" * n) == found


def test_a_text_that_the_schema_cut_is_no_text_whatever_its_length_without_spaces() -> None:
    assert [reason("x" * n, is_cut=True) for n in (9, 10)] == ["text_cut"] * 2


def test_white_space_is_no_text() -> None:
    assert reason(" \n\t     ") == "empty"


def test_length_is_counted_in_characters_not_bytes() -> None:
    assert reason("äöüßé") is None and reason("😀" * 10) is None and reason("😀" * 4) == "too_short"


def test_the_verdict_tells_length_and_limit() -> None:
    assert check_length("abc", LIMITS) == Verdict("too_short", "3 characters, at least 5 wanted")


def test_limits_come_from_the_quantiles_of_the_real_rows() -> None:
    # 101 rows of 100 to 200 characters: the 1 % and 99 % quantiles are 101 and 199.
    texts = ["x" * n for n in range(100, 201)]
    limits = length_limits(texts, LengthGateConfig())
    assert (limits.min_characters, limits.max_characters) == (50, 299)
    assert limits.usual_words == (1, 1)


def test_usual_words_are_the_tenth_and_ninetieth_percentile() -> None:
    texts = [" ".join(["word"] * n) for n in range(10, 21)]
    assert length_limits(texts, LengthGateConfig()).usual_words == (11, 19)


def test_configured_limits_win_each_for_itself() -> None:
    texts = ["x" * 100] * 10
    assert length_limits(texts, LengthGateConfig(min_characters=7)).min_characters == 7
    assert length_limits(texts, LengthGateConfig(min_characters=7)).max_characters == 150
    assert length_limits(texts, LengthGateConfig(max_characters=9)).max_characters == 9


def test_a_limit_beyond_the_real_rows_moves_the_other_and_the_words_that_are_asked_for() -> None:
    texts = ["word " * 59 + "words"] * 10  # 60 words, 300 characters
    short = length_limits(texts, LengthGateConfig(max_characters=100))
    assert (short.min_characters, short.max_characters, short.usual_words) == (100, 100, (20, 20))
    long = length_limits(texts, LengthGateConfig(min_characters=600))
    assert (long.min_characters, long.max_characters, long.usual_words) == (600, 600, (120, 120))
    assert length_limits(texts, LengthGateConfig()).usual_words == (60, 60)


def test_tiny_rows_leave_usable_limits() -> None:
    limits = length_limits(["a", "b"], LengthGateConfig())
    assert (limits.min_characters, limits.max_characters, limits.usual_words) == (1, 20, (1, 1))


def test_the_real_rows_pass_their_own_limits() -> None:
    texts = [f"{'word ' * n}end" for n in range(3, 60)]
    limits = length_limits(texts, LengthGateConfig())
    assert [text for text in texts if check_length(text, limits)] == []


def test_repetition_on_both_sides_of_the_threshold() -> None:
    # "a b a b a": four pairs, two of them repeated.
    assert check_repetition("a b a b a", 0.5) is None
    verdict = check_repetition("A b a B a", 0.49)
    assert verdict is not None and verdict.reason == "repetitive" and "50%" in verdict.detail


@pytest.mark.parametrize(
    "text", ["", "no", "ha ha ha ha", "one two three four five six", "the cat and the dog and the cow"]
)
def test_short_and_normal_texts_do_not_repeat(text: str) -> None:
    assert check_repetition(text, 0.35) is None


def test_a_model_in_a_loop_is_caught() -> None:
    assert check_repetition("I want a refund. " * 6, 0.35) is not None
    assert check_repetition("no " * 5, 0.35) is not None


def test_a_share_of_one_turns_the_check_off() -> None:
    assert check_repetition("no " * 100, 1.0) is None
