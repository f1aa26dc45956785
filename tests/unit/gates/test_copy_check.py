from __future__ import annotations

import unicodedata

import pytest

from synalign_agent.gates.copy_check import WordRuns, check_nearest, check_words, words_of

REAL = [
    "Hello, where is my order? I paid for it two weeks ago and nobody answers my mails.",
    "where is my order",
    "The café in Łódź wouldn't refund the broken grinder that I brought back on Monday",
    "ok",
    "Where is it",
]
IDS = [f"id{n}" for n in range(len(REAL))]
LONG = words_of(REAL[0])


@pytest.fixture(scope="module")
def runs() -> WordRuns:
    return WordRuns(REAL, 8)


def test_words_are_folded_and_without_punctuation() -> None:
    assert words_of("It's, STRASSE — straße 3.5!") == ["it", "s", "strasse", "strasse", "3", "5"]
    assert words_of(" …!? 😀") == []


@pytest.mark.parametrize("start", range(len(LONG) - 7))
def test_a_planted_run_of_eight_words_is_caught_wherever_it_is(runs: WordRuns, start: int) -> None:
    planted = " ".join(["nobody", "told", "me", *LONG[start : start + 8], "so", "what", "now"])
    assert runs.copied_from(planted) == (0, 8)


@pytest.mark.parametrize("start", range(len(LONG) - 6))
def test_a_run_of_seven_words_passes(runs: WordRuns, start: int) -> None:
    planted = " ".join(["nobody", "told", "me", *LONG[start : start + 7], "so", "what", "now"])
    assert runs.copied_from(planted) is None


def test_every_real_row_is_a_copy_of_itself(runs: WordRuns) -> None:
    for row, text in enumerate(REAL):
        found = runs.copied_from(f"  {text.upper()}!! ")
        assert found is not None and found[0] == row


def test_a_short_phrase_inside_a_longer_row_is_no_copy(runs: WordRuns) -> None:
    assert runs.copied_from("nobody answers my mails") is None
    assert runs.copied_from("where is my") is None


def test_a_short_row_inside_a_longer_text_is_no_copy(runs: WordRuns) -> None:
    assert runs.copied_from("ok thanks") is None
    assert runs.copied_from("Good morning, where is my order? The tracking page shows nothing since Friday") is None


def test_a_short_text_that_is_all_of_a_row_is_a_copy(runs: WordRuns) -> None:
    assert runs.copied_from("Where is my order?") == (1, 4)
    assert runs.copied_from("OK.") == (3, 1)


def test_a_text_of_exactly_the_length_is_compared_with_runs_of_longer_rows(runs: WordRuns) -> None:
    assert runs.copied_from(" ".join(LONG[3:11])) == (0, 8)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!!!",
        "😀 😀",
        "My parcel was left in the rain and all the books in it are wet",
        "two weeks ago I paid for it and where is my order, nobody answers",
        "ok ok",
    ],
)
def test_unrelated_texts_pass(runs: WordRuns, text: str) -> None:
    assert runs.copied_from(text) is None


def test_another_unicode_form_does_not_hide_a_copy() -> None:
    row = "Café fermé, dîner gâté, très déçu, remboursé à moitié"
    decomposed = unicodedata.normalize("NFD", row)
    assert decomposed != row
    assert WordRuns([row], 8).copied_from(decomposed) == (0, 8)


def test_the_length_is_the_threshold() -> None:
    text = "one two three four"
    assert WordRuns(["zero one two three five"], 3).copied_from(text) == (0, 3)
    assert WordRuns(["zero one two three five"], 4).copied_from(text) is None


def test_no_real_rows_no_copies() -> None:
    assert WordRuns([], 8).copied_from("anything at all") is None
    assert WordRuns(["", "?!"], 8).copied_from("") is None


def test_the_verdict_names_the_row(runs: WordRuns) -> None:
    verdict = check_words(REAL[0], runs, IDS)
    assert verdict is not None and verdict.reason == "copy_words"
    assert "8 words" in verdict.detail and "id0" in verdict.detail
    assert check_words("something else", runs, IDS) is None


def near(text: str, row: str, similarity: float = 0.5, *, max_row_share: float = 0.75) -> str | None:
    verdict = check_nearest(text, row, "id3", similarity, max_cosine=0.95, max_row_share=max_row_share)
    assert verdict is None or "id3" in verdict.detail
    return None if verdict is None else verdict.reason


def test_cosine_on_both_sides_of_the_threshold() -> None:
    assert near("other words", REAL[0], 0.95) is None
    assert near("other words", REAL[0], 0.9501) == "copy_cosine"
    verdict = check_nearest("other words", REAL[0], "id3", 0.9501, max_cosine=0.95, max_row_share=0.75)
    assert verdict is not None and "0.950" in verdict.detail


SHORT = "the plot is thin and slow but short"


@pytest.mark.parametrize(
    "text",
    [
        "the plot is thick and slow but short",  # a word replaced
        "the plot thin is and slow but short",  # two swapped
        "THE plot, is thin; and slow but SHORT!",
        "I went on Friday. the plot is thin and slow but short. Then I left",
        "the plot is thin and slow but",
    ],
)
def test_a_short_row_with_a_small_change_is_an_edited_copy(text: str) -> None:
    assert near(text, SHORT) == "copy_edited"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the plot is good and fast but short",  # 6 of 8
        "short but slow and thin is plot the",  # the same words in another order
        "thin jokes make the whole of it drag",
    ],
)
def test_a_text_that_only_shares_words_is_none(text: str) -> None:
    assert near(text, SHORT) is None


def test_rows_of_fewer_than_eight_words_may_differ_by_one() -> None:
    assert near("how do I change my address", "how do I change my pin") is None


def test_the_share_is_the_threshold_and_1_switches_it_off() -> None:
    row, text = "one two three four five six seven eight", "one two three four five six and no more"
    assert near(text, row) is None
    assert near(text, row, max_row_share=0.74) == "copy_edited"
    assert near(row, row, max_row_share=1.0) is None
