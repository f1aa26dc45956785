from __future__ import annotations

import numpy as np
import pytest

from synalign_agent.data.real import RealData
from synalign_agent.records import RealRow, Split

# label, split, in an order that is neither by label nor by split
LAYOUT: list[tuple[str, Split]] = [
    ("b", "reference"), ("a", "holdout"), ("b", "holdout"), ("a", "reference"), ("c", "reference"), ("b", "reference"),
]  # fmt: skip


def real(layout: list[tuple[str, Split]]) -> RealData:
    rows = [RealRow(f"id{n}", f"text {n}", label, part) for n, (label, part) in enumerate(layout)]
    # The vector of a row holds its position, so that a selection shows which rows it took.
    return RealData(rows, np.array([[n, 1.0] for n in range(len(rows))], dtype=np.float32))


def test_labels_are_sorted_and_codes_index_them() -> None:
    data = real(LAYOUT)
    assert data.labels == ("a", "b", "c")
    assert data.codes.tolist() == [1, 0, 1, 0, 2, 1]
    assert [data.labels[code] for code in data.codes] == [row.label for row in data.rows]


def test_prior_is_the_share_of_all_rows_in_label_order() -> None:
    assert real(LAYOUT).prior() == pytest.approx([2 / 6, 3 / 6, 1 / 6])


def test_texts_come_in_the_order_asked_for() -> None:
    data = real(LAYOUT)
    assert data.texts(["id4", "id0", "id4"]) == ["text 4", "text 0", "text 4"]
    assert data.texts([]) == []
    with pytest.raises(KeyError):
        data.texts(["nobody"])


def test_reference_and_everything_select_by_split() -> None:
    data = real(LAYOUT)
    assert data.reference().X[:, 0].tolist() == [0, 3, 4, 5]
    assert data.reference().label.tolist() == [1, 0, 2, 1]
    assert data.everything().X[:, 0].tolist() == list(range(6))
    assert data.everything().X.dtype == np.float32


def test_reference_rows_are_positions_of_one_label() -> None:
    data = real(LAYOUT)
    assert data.reference_rows(1).tolist() == [0, 5]
    assert data.reference_rows(0).tolist() == [3]


def test_scoring_takes_the_hold_out_and_the_reference_of_labels_without_one() -> None:
    data = real(LAYOUT)
    assert data.scored_on == "mixed"
    assert data.scoring().X[:, 0].tolist() == [1, 2, 4]
    assert data.scoring().label.tolist() == [0, 1, 2]


def test_scoring_with_a_hold_out_of_every_label_is_the_hold_out() -> None:
    data = real([*LAYOUT, ("c", "holdout")])
    assert data.scored_on == "holdout"
    assert data.scoring().X[:, 0].tolist() == [1, 2, 6]


def test_scoring_without_a_hold_out_is_the_reference() -> None:
    data = real([(label, "reference") for label, _ in LAYOUT])
    assert data.scored_on == "reference"
    assert data.scoring().X[:, 0].tolist() == list(range(6)) == data.reference().X[:, 0].tolist()
