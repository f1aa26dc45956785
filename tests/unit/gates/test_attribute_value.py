from __future__ import annotations

import pytest

from synalign_agent.gates.attribute_value import check_values

TASK = "sentences from movie reviews"
MEANINGS = {
    "topic": "what the text is about, as concretely as possible",
    "tone": "mood and attitude of the writer",
    "style": "register, wording, spelling and punctuation habits",
}


def refused(
    values: dict[str, str], *, limit: int | None = 80, offers_choices: bool = True, **meanings: str
) -> dict[str, str]:
    dimensions = meanings or {name: MEANINGS[name] for name in values}
    kept, verdicts = check_values(
        values,
        dimensions,
        task=TASK,
        label="negative",
        examples=["Vegetables that ail", "apologetic, calm"],
        offers_choices=offers_choices,
        max_repetition=0.35,
        limit=limit,
    )
    assert kept.keys() | verdicts.keys() == {name for name, value in values.items() if value.strip()}
    assert not kept.keys() & verdicts.keys()
    return {name: verdict.reason for name, verdict in verdicts.items()}


@pytest.mark.parametrize(
    "value",
    [
        "a remake that wastes its cast",
        "dry, sarcastic",
        "clipped, lower case",
        "drôle et tendre",
        "映画の結末への不満",
        "movie night",
    ],
)
def test_what_describes_the_texts_is_kept(value: str) -> None:
    assert refused({"topic": value}) == {}


@pytest.mark.parametrize(
    ("dimension", "value"),
    [
        ("topic", "movie reviews"),  # the task
        ("topic", "The movie"),
        ("topic", "a Movie Review's sentence, negative"),
        ("tone", "Negative."),  # the label
        ("topic", "Topic"),
        ("topic", "unknown"),
        ("tone", "not specified"),
        ("tone", "Mood and Attitude"),  # the description
        ("tone", "the mood of the writer"),
        ("style", "wording, spelling and punctuation habits"),
    ],
)
def test_what_is_true_of_every_text_is_an_echo(dimension: str, value: str) -> None:
    assert refused({dimension: value}) == {dimension: "echo"}


@pytest.mark.parametrize("value", ["खेल", "রাগী", "怒", "화", "C#", "R", "5G", "4", "2-3", "1990s"])
def test_words_of_every_script_and_short_numbers_say_something(value: str) -> None:
    assert refused({"topic": value}) == {}


def test_a_choice_out_of_what_the_meaning_lists_is_an_answer() -> None:
    assert refused({"tone": "angry"}, tone="angry, calm or cheerful") == {}
    assert refused({"tone": "negative"}, tone="positive, neutral or negative") == {}  # though it is the label
    assert refused({"level": "general"}, level="general or expert") == {}
    assert refused({"price": "no", "delivery": "no"}, price="yes or no", delivery="yes or no") == {}
    assert refused({"tone": "angry, calm or cheerful"}, tone="angry, calm or cheerful") == {"tone": "echo"}


@pytest.mark.parametrize("value", ["of the", "and", "what, as"])
def test_function_words_of_the_meaning_are_no_choice(value: str) -> None:
    assert refused({"topic": value}) == {"topic": "echo"}


def test_a_meaning_that_offers_no_choices_is_not_chosen_from() -> None:
    assert refused({"tone": "writer"}) == {}
    assert refused({"tone": "mood, attitude"}, offers_choices=False) == {"tone": "echo"}
    values = {"topic": "spelling", "style": "spelling"}
    assert refused(values, topic="spelling or wording", style="spelling or wording") == {}
    assert refused(values, offers_choices=False) == {"style": "echo"}


def test_a_value_that_ran_into_the_limit_of_the_schema_is_cut() -> None:
    value = "a long complaint about the plot, the cast, the sets and above all the endin"
    assert refused({"topic": value}, limit=len(value)) == {"topic": "cut"}
    assert refused({"topic": value}, limit=len(value) + 1) == {}
    assert refused({"topic": value}, limit=None) == {}
    assert refused({"topic": value[:40] + " "}, limit=41) == {"topic": "cut"}  # at a space


@pytest.mark.parametrize("value", ["][", "2017-08-31 14:59:56", "..."])
def test_a_value_needs_words(value: str) -> None:
    assert refused({"topic": value}) == {"topic": "wordless"}


def test_a_model_in_a_loop_is_stopped() -> None:
    assert refused({"tone": "ominous, ominous, ominous, ominous, ominous, ominous"}) == {"tone": "repetitive"}


def test_one_value_for_all_dimensions_is_kept_once() -> None:
    found = refused({"topic": "creative writing", "tone": "Creative  writing", "style": "creative writing"})
    assert found == {"tone": "echo", "style": "echo"}


def test_a_value_of_the_prompts_examples_is_an_echo() -> None:
    assert refused({"topic": "vegetables that ail"}) == {"topic": "echo"}
    assert refused({"topic": "vegetables that grow"}) == {}
    assert refused({"tone": "apologetic, calm"}) == {}  # an example too, but a phrase that may be true


def test_an_empty_value_is_neither_kept_nor_refused_and_spaces_are_single() -> None:
    kept, verdicts = check_values(
        {"topic": " ", "tone": " dry,\n sarcastic "},
        {"topic": "t", "tone": "t"},
        task=TASK,
        label="negative",
        examples=[],
        offers_choices=True,
        max_repetition=0.35,
        limit=80,
    )
    assert (kept, verdicts) == ({"tone": "dry, sarcastic"}, {})


def test_a_verdict_names_the_dimension_and_the_value() -> None:
    _, verdicts = check_values(
        {"tone": "negative"},
        {"tone": "mood"},
        task=TASK,
        label="negative",
        examples=["Vegetables that ail", "apologetic, calm"],
        offers_choices=True,
        max_repetition=0.35,
        limit=80,
    )
    assert "tone: 'negative'" in verdicts["tone"].detail
