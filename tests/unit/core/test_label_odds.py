from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from synalign_agent.core.arrays import FloatArray, IntArray, unit_rows
from synalign_agent.core.label_odds import doubtful_rows, label_probabilities

NONE_KEPT = np.zeros(2, dtype=np.int64)


def two_kinds(n: int, seed: int, share: float = 0.5) -> tuple[FloatArray, IntArray]:
    """Return rows around two opposite directions, the first `share` of them around the first."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) >= share * n).astype(np.int64)
    centre = np.array([1.0, 0.0, 0.0])
    return unit_rows(np.where(labels[:, None] == 0, centre, -centre) + 0.2 * rng.normal(size=(n, 3))), labels


def marks(pool: FloatArray, labels: IntArray, n_ref: int = 400, max_odds: float = 2.0, **changes: object) -> IntArray:
    X, ref_labels = two_kinds(n_ref, 0)
    values = {"at_least": NONE_KEPT, "rng": np.random.default_rng(0), **changes}
    return doubtful_rows(pool, labels, X, ref_labels, max_odds=max_odds, **values)  # type: ignore[arg-type,return-value]


def test_rows_under_the_wrong_label_are_marked_and_others_are_not() -> None:
    X, labels = two_kinds(100, 1)
    given = labels.copy()
    given[[3, 60]] = 1 - given[[3, 60]]
    assert np.flatnonzero(marks(X, given)).tolist() == [3, 60]


def test_a_few_reference_rows_are_not_believed() -> None:
    X, labels = two_kinds(100, 1)
    assert marks(X, 1 - labels, n_ref=400, max_odds=10.0).mean() > 0.9
    assert marks(X, 1 - labels, n_ref=4, max_odds=10.0).sum() == 0


def test_the_least_doubtful_rows_stay_where_too_few_are_left() -> None:
    X, _ = two_kinds(40, 2)
    wrong = np.ones(40, dtype=np.int64)  # half of the rows of the only label are not of it
    found = marks(X, wrong, at_least=np.array([0, 30]))
    assert found.sum() == 10
    reference, ref_labels = two_kinds(400, 0)
    own = label_probabilities(reference, ref_labels, np.ones(400), X, 2)[:, 1]
    assert own[found].max() < own[~found].min()


def test_rarity_does_not_outvote_a_label() -> None:
    X, ref_labels = two_kinds(400, 3, share=0.97)
    rare = np.flatnonzero(ref_labels == 1)
    found = doubtful_rows(
        X[rare], ref_labels[rare], X, ref_labels, max_odds=2.0, at_least=NONE_KEPT, rng=np.random.default_rng(0)
    )
    assert not found.any()


def test_without_a_second_label_nothing_is_marked() -> None:
    X, _ = two_kinds(20, 4)
    zeros = np.zeros(20, dtype=np.int64)
    assert not doubtful_rows(X, zeros, X, zeros, max_odds=1.0, at_least=NONE_KEPT, rng=np.random.default_rng(0)).any()


def test_a_label_that_the_reference_lacks_is_not_judged() -> None:
    X, _ = two_kinds(50, 5)
    reference, ref_labels = two_kinds(200, 0)
    found = doubtful_rows(
        X, np.full(50, 2), reference, ref_labels, max_odds=2.0, at_least=np.zeros(3, dtype=np.int64),
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert not found.any()


def test_a_large_reference_is_represented_by_some_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synalign_agent.core.label_odds._MOST_ROWS", 100)
    X, labels = two_kinds(100, 1)
    assert marks(X, 1 - labels, n_ref=5000).mean() > 0.9


def test_a_label_so_rare_that_it_is_not_drawn_marks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synalign_agent.core.label_odds._MOST_ROWS", 2)
    X, labels = two_kinds(200, 1, share=0.995)
    found = doubtful_rows(
        X, 1 - labels, X, labels, max_odds=1.0, at_least=NONE_KEPT, rng=np.random.default_rng(0)
    )  # fmt: skip
    assert not found.any()


@given(odds=st.floats(1.0, 50.0), seed=st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_a_looser_bound_marks_a_part_of_what_a_tighter_one_marks(odds: float, seed: int) -> None:
    X, labels = two_kinds(60, seed + 10)
    given = np.where(np.random.default_rng(seed).random(60) < 0.3, 1 - labels, labels)
    tight, loose = marks(X, given, max_odds=odds), marks(X, given, max_odds=2 * odds)
    assert not (loose & ~tight).any()


def test_probabilities_are_those_of_scikit_learn_and_absent_labels_have_none() -> None:
    X, labels = two_kinds(80, 6)
    found = label_probabilities(X, 2 * labels, np.ones(80), X, 4, inverse_penalty=3.0)
    oracle = LogisticRegression(C=3.0, max_iter=1000, tol=1e-8).fit(X, labels).predict_proba(X)
    assert found[:, [0, 2]] == pytest.approx(oracle, abs=5e-3)
    assert (found[:, [1, 3]] == 0).all()
