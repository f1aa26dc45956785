from __future__ import annotations

from collections import Counter

import pytest

from synalign_agent.data.split import split_rows, split_warnings
from synalign_agent.records import RealRow, content_id


def split(sizes: dict[str, int], *, fraction: float = 0.2, least: int = 20, seed: int = 0) -> list[RealRow]:
    labels = [label for label, size in sizes.items() for _ in range(size)]
    texts = [f"{label} text {n}" for label, size in sizes.items() for n in range(size)]
    return split_rows(texts, labels, holdout_fraction=fraction, min_holdout_rows=least, seed=seed)


def held(rows: list[RealRow]) -> set[str]:
    return {row.id for row in rows if row.split == "holdout"}


@pytest.mark.parametrize(
    ("size", "fraction", "expected"),
    [
        (39, 0.2, 0),  # fewer than twice the minimum
        (40, 0.2, 20),
        (99, 0.2, 20),  # the minimum counts until the fraction is more
        (105, 0.2, 21),
        (1000, 0.2, 200),
        (40, 0.9, 20),  # the minimum stays on the other side too
        (200, 0.99, 180),
        (1000, 0.0, 0),
    ],
)
def test_rows_held_out_of_a_label(size: int, fraction: float, expected: int) -> None:
    rows = split({"a": size}, fraction=fraction)
    assert sum(row.split == "holdout" for row in rows) == expected


def test_labels_are_split_each_for_itself() -> None:
    rows = split({"big": 300, "small": 40, "tiny": 39})
    assert Counter(row.label for row in rows if row.split == "holdout") == {"big": 60, "small": 20}


def test_rows_keep_their_order_text_and_content_id() -> None:
    rows = split({"a": 50, "b": 50})
    assert [row.text for row in rows] == [f"{label} text {n}" for label in "ab" for n in range(50)]
    assert all(row.id == content_id(row.label, row.text) for row in rows)
    assert len({row.id for row in rows}) == 100


def test_the_same_rows_and_seed_give_the_same_split() -> None:
    assert split({"a": 100, "b": 60}, seed=7) == split({"a": 100, "b": 60}, seed=7)


def test_another_seed_gives_another_split() -> None:
    assert held(split({"a": 100}, seed=1)) != held(split({"a": 100}, seed=2))


def test_the_order_of_the_file_does_not_matter() -> None:
    texts = [f"text {n}" for n in range(100)]
    there = split_rows(texts, ["a"] * 100, holdout_fraction=0.2, min_holdout_rows=20, seed=0)
    back = split_rows(texts[::-1], ["a"] * 100, holdout_fraction=0.2, min_holdout_rows=20, seed=0)
    assert held(there) == held(back)


def test_appended_rows_move_few_of_the_others() -> None:
    before, after = split({"a": 500}), split({"a": 510})
    old = {row.id for row in before}
    moved = (held(before) ^ held(after)) & old
    # 2 more places in the hold-out, and at most 10 places that new rows take.
    assert len(moved) <= 12


def test_the_hold_out_is_spread_over_the_file() -> None:
    places = [place for place, row in enumerate(split({"a": 1000})) if row.split == "holdout"]
    assert 400 < sum(places) / len(places) < 600
    assert min(places) < 50 and max(places) > 950


def test_no_rows_give_no_rows() -> None:
    assert split({}) == []


@pytest.mark.parametrize(
    ("sizes", "few", "in_sample"),
    [
        ({"a": 3}, True, True),
        ({"a": 15, "b": 14}, True, True),
        ({"a": 30}, False, True),
        ({"a": 39, "b": 40}, False, False),
    ],
)
def test_what_distances_will_not_mean_is_said(sizes: dict[str, int], few: bool, in_sample: bool) -> None:
    warnings = split_warnings(split(sizes))
    assert any(f"only {sum(sizes.values())} real rows" in line for line in warnings) == few
    assert any("no real rows are held out" in line for line in warnings) == in_sample
