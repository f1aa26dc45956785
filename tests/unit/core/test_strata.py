from __future__ import annotations

import numpy as np
import pytest

from synalign_agent.core.strata import packed, per_stratum, same_strata, stratum_masses, stratum_rows, subsample
from synalign_agent.errors import InputError


def test_rows_are_grouped_by_label() -> None:
    rows = stratum_rows([7, -1, 7, 2], 4, "strata")
    assert {label: found.tolist() for label, found in rows.items()} == {-1: [1], 2: [3], 7: [0, 2]}
    assert list(rows) == [-1, 2, 7]
    assert stratum_rows(None, 3, "strata")[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("strata", [[0, 1], [0.0, 1.0, 2.0], ["a", "b", "c"]])
def test_labels_must_be_integers_one_a_row(strata: list[object]) -> None:
    with pytest.raises(InputError, match="strata"):
        stratum_rows(np.array(strata), 3, "strata")


def test_numbers_follow_the_sorted_labels() -> None:
    rows = stratum_rows([9, 4, 9], 3, "strata")
    assert per_stratum({9: 0.25, 4: 0.75, 5: 0.0}, rows, "masses").tolist() == [0.75, 0.25]
    assert per_stratum([0.75, 0.25], rows, "masses").tolist() == [0.75, 0.25]
    assert per_stratum(6, stratum_rows(None, 3, "strata"), "n").tolist() == [6.0]


@pytest.mark.parametrize("values", [{9: 1.0}, {4: 1.0, 9: 1.0, 5: 1.0}, [1.0], 1.0, [-1.0, 2.0], [np.inf, 1.0]])
def test_numbers_must_fit_the_strata(values: object) -> None:
    with pytest.raises(InputError, match="masses"):
        per_stratum(values, stratum_rows([9, 4, 9], 3, "strata"), "masses")


def test_subsample_keeps_shares_and_chooses_at_random() -> None:
    rows = stratum_rows(np.repeat([0, 1, 2], [600, 300, 3]), 903, "strata")
    kept = subsample(rows, 90, np.random.default_rng(0))
    assert [len(found) for found in kept.values()] == [59, 29, 2]
    for label, found in kept.items():
        assert set(found) <= set(rows[label]) and (np.diff(found) > 0).all()
    again = subsample(rows, 90, np.random.default_rng(0))
    other = subsample(rows, 90, np.random.default_rng(1))
    np.testing.assert_array_equal(kept[0], again[0])
    assert not np.array_equal(kept[0], other[0])
    assert 200 < kept[0].mean() < 400
    assert subsample(rows, 903, np.random.default_rng(0)) is rows


def test_masses_are_shares() -> None:
    rows = stratum_rows([9, 4, 9, 9], 4, "strata")
    assert stratum_masses(None, rows).tolist() == [0.25, 0.75]
    assert stratum_masses({9: 3.0, 4: 2.0}, rows).tolist() == [0.4, 0.6]
    with pytest.raises(InputError, match="zero"):
        stratum_masses([0.0, 0.0], rows)


def test_both_sides_need_the_same_labels() -> None:
    syn, real = same_strata([7, 1, 7], 3, [1, 1, 7], 3)
    assert {label: found.tolist() for label, found in syn.items()} == {1: [1], 7: [0, 2]}
    assert {label: found.tolist() for label, found in real.items()} == {1: [0, 1], 7: [2]}
    with pytest.raises(InputError, match="Strata differ"):
        same_strata([7, 1, 7], 3, [1, 1, 1], 3)


def test_strata_are_laid_one_after_another() -> None:
    rows, places = packed(stratum_rows([9, 4, 9, 1], 4, "strata"))
    assert rows.tolist() == [3, 1, 0, 2]
    assert [rows[place].tolist() for place in places] == [[3], [1], [0, 2]]
