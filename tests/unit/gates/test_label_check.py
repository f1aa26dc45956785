from __future__ import annotations

import pytest

from synalign_agent.gates.label_check import check_judgement, check_vote

EVEN = {"a": 100, "b": 100}


def test_the_vote_on_both_sides_of_the_threshold() -> None:
    neighbours = ["a"] * 2 + ["b"] * 8
    assert check_vote("a", neighbours, EVEN, 0.2) is None
    verdict = check_vote("a", neighbours, EVEN, 0.21)
    assert verdict is not None and verdict.reason == "label_mismatch"


def test_the_verdict_names_both_labels_and_the_share() -> None:
    verdict = check_vote("a", ["a", *["b"] * 9], EVEN, 0.2)
    assert verdict is not None
    assert "'a' 10%" in verdict.detail and "'b' the most" in verdict.detail


def test_a_rare_label_is_not_outvoted_by_its_rarity() -> None:
    counts = {"rare": 10, "common": 990}
    neighbours = ["rare", *["common"] * 9]
    # 1/10 against 9/990: nine in ten of the vote.
    assert check_vote("rare", neighbours, counts, 0.9) is None
    assert check_vote("common", neighbours, counts, 0.1) is not None


def test_a_label_without_a_neighbour_gets_no_vote() -> None:
    assert check_vote("a", ["b", "b"], EVEN, 0.01) is not None
    assert check_vote("a", ["b", "b"], EVEN, 0.0) is None
    assert check_vote("a", ["b", "b"], {"b": 5}, 0.01) is not None  # `a` has no reference row at all


def test_all_neighbours_of_the_label_are_the_whole_vote() -> None:
    assert check_vote("a", ["a"] * 3, EVEN, 1.0) is None


def test_without_neighbours_nothing_speaks_against_the_label() -> None:
    assert check_vote("a", [], EVEN, 1.0) is None


@pytest.mark.parametrize(("judged", "passes"), [("a", True), ("b", False), ("", False)])
def test_the_judge_must_name_the_label(judged: str, passes: bool) -> None:
    verdict = check_judgement("a", judged)
    assert (verdict is None) == passes
    if verdict is not None:
        assert verdict.reason == "label_judged" and repr(judged) in verdict.detail
