from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from synalign_agent.gates import duplicate
from synalign_agent.gates.base import Verdict
from synalign_agent.gates.duplicate import SeenTexts, check_duplicates


def vectors(*degrees: float) -> NDArray[np.float32]:
    """Return unit vectors at these angles, so that the cosine of two is that of the angle between them."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def check(
    texts: list[str],
    X: NDArray[np.float32],
    *,
    pool: tuple[str, ...] = (),
    similarity: list[float] | None = None,
    max_cosine: float = 0.95,
) -> list[str | None]:
    nearest = np.array([-1.0] * len(texts) if similarity is None else similarity, dtype=np.float32)
    verdicts: list[Verdict | None] = check_duplicates(texts, X, SeenTexts(pool), nearest, max_cosine)
    return [None if verdict is None else verdict.reason for verdict in verdicts]


def test_the_first_of_equal_texts_is_kept() -> None:
    found = check(["one two", "three", "One, two!", "one two"], vectors(0, 90, 0, 0))
    assert found == [None, None, "duplicate", "duplicate"]


def test_the_first_of_near_texts_is_kept() -> None:
    # 10 degrees apart: .985; 30 degrees apart: .866.
    assert check(["a", "b", "c"], vectors(0, 10, 30)) == [None, "near_duplicate", None]


def test_a_rejected_text_rejects_no_other() -> None:
    # The second is near the first and the third near the second alone.
    assert check(["a", "b", "c"], vectors(0, 15, 30)) == [None, "near_duplicate", None]


def test_texts_of_the_pool_come_first() -> None:
    assert check(["One two.", "three"], vectors(0, 90), pool=("one two",)) == ["duplicate", None]


def test_what_is_not_accepted_yet_makes_no_duplicates_and_the_pool_still_does() -> None:
    seen = SeenTexts(["three"])
    nearest = np.array([-1.0, -1.0, -1.0, 0.99], dtype=np.float32)
    found = check_duplicates(
        ["one", "one", "Three!", "four"], vectors(0, 0, 90, 180), seen, nearest, 0.95, accept=False
    )
    assert [verdict and verdict.reason for verdict in found] == [None, None, "duplicate", "near_duplicate"]
    assert "one" not in seen


def test_the_pools_similarity_counts_on_both_sides_of_the_threshold() -> None:
    assert check(["a", "b"], vectors(0, 90), similarity=[0.5, 0.5001], max_cosine=0.5) == [None, "near_duplicate"]


def test_the_cosine_within_the_batch_on_both_sides_of_the_threshold() -> None:
    X = np.array([[1, 0], [0.5, 0.8660254]], dtype=np.float32)
    assert check(["a", "b"], X, max_cosine=0.5) == [None, None]
    assert check(["a", "b"], X, max_cosine=0.4999) == [None, "near_duplicate"]


def test_unrelated_texts_pass() -> None:
    X = np.eye(5, dtype=np.float32)
    assert check(list("abcde"), X, pool=("f", "g"), similarity=[0.9] * 5) == [None] * 5


def test_texts_without_words_are_not_all_the_same() -> None:
    assert check(["👍👍👍", "😡😡😡", "👍👍👍"], vectors(0, 90, 0), pool=("...",)) == [None, None, "duplicate"]


def test_no_texts_no_verdicts() -> None:
    assert check([], np.empty((0, 2), dtype=np.float32)) == []


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0]])
def test_every_text_gets_its_own_verdict(order: list[int]) -> None:
    texts, X = ["a", "b", "b", "c"], vectors(0, 90, 90, 180)
    found = check([texts[n] for n in order], X[order])
    assert found.count(None) == 3 and found.count("duplicate") == 1


def test_the_inputs_are_not_changed() -> None:
    X = vectors(0, 10)
    before = X.copy()
    check(["a", "b"], X)
    assert (before == X).all()


@pytest.mark.parametrize("block", [1, 3, 512])
def test_blocks_change_no_verdict(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(90, 4)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    texts = [f"text {number}" for number in rng.integers(70, size=90)]
    similarity = rng.uniform(-1, 0.9, size=90).tolist()
    expected: list[str | None] = []
    for row, text in enumerate(texts):
        kept = [other for other in range(row) if expected[other] is None]
        if text in [texts[other] for other in kept]:
            expected.append("duplicate")
        else:
            nearest = max([similarity[row], *(float(X[row] @ X[other]) for other in kept)])
            expected.append("near_duplicate" if nearest > 0.85 else None)
    monkeypatch.setattr(duplicate, "_BLOCK", block)
    assert check(texts, X, similarity=similarity, max_cosine=0.85) == expected
    assert {None, "duplicate", "near_duplicate"} == set(expected)
