from __future__ import annotations

import numpy as np
import pytest

from synalign_agent.core import coverage
from synalign_agent.core.coverage import hull_coverage, radius_coverage
from synalign_agent.errors import InputError


def test_radius_coverage_counts_the_near_rows() -> None:
    X = np.array([[0.0], [1.0], [2.0], [10.0]])
    assert radius_coverage(X, [0], 1.0) == 0.5
    assert radius_coverage(X, [0, 3], 0.5) == 0.5
    assert radius_coverage(X, [1], 1.0) == 0.75
    assert radius_coverage(X, [], 5.0) == 0.0


def test_selected_rows_are_covered_at_radius_zero() -> None:
    X = np.random.default_rng(0).normal(size=(50, 384))
    assert radius_coverage(X, [3, 7, 9], 0.0) == 3 / 50


def test_radius_coverage_in_blocks_matches_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(1).normal(size=(40, 2))
    selected = np.arange(0, 40, 5)
    distances = np.linalg.norm(X[:, None] - X[selected][None], axis=2).min(axis=1)
    expected = float((distances <= 0.6).mean())
    assert 0.2 < expected < 1.0
    monkeypatch.setattr(coverage, "_BLOCK_ROWS", 3)
    assert radius_coverage(X, selected, 0.6) == expected


def test_hull_coverage_of_a_square_in_space() -> None:
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], float)
    inside = np.array([[0.5, 0.2], [0.0, 0.0], [1.0, 0.0]])
    outside = np.array([[2.0, 0.0], [0.0, -1.5], [0.9, 1.2]])
    plane = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 2)))[0]
    X = np.vstack([corners, inside, outside]) @ plane.T + 3.0
    assert hull_coverage(X, [0, 1, 2, 3]) == 7 / 10
    assert hull_coverage(X, np.arange(10)) == 1.0


@pytest.mark.parametrize("selected", [[], [0], [0, 1], [0, 1, 1, 0]])
def test_hull_of_fewer_than_three_rows_is_absent(selected: list[int]) -> None:
    assert hull_coverage(np.random.default_rng(0).normal(size=(9, 3)), selected) is None


def test_hull_of_rows_on_a_line_is_absent() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 4))
    X[:5] = np.outer(np.arange(5.0), rng.normal(size=4)) + 1.0
    assert hull_coverage(X, np.arange(5)) is None
    assert hull_coverage(X, np.arange(6)) is not None
    assert hull_coverage(np.outer(np.arange(9.0), np.ones(4)), np.arange(9)) is None
    assert hull_coverage(np.ones((9, 4)), np.arange(9)) is None
    assert hull_coverage(np.arange(9.0)[:, None], np.arange(9)) is None


@pytest.mark.parametrize("radius", [-1.0, np.nan])
def test_radius_must_not_be_negative(radius: float) -> None:
    with pytest.raises(InputError, match="radius"):
        radius_coverage(np.ones((2, 2)), [0], radius)


def test_selected_must_be_rows() -> None:
    with pytest.raises(InputError, match="selected"):
        radius_coverage(np.ones((2, 2)), [2], 1.0)
    with pytest.raises(InputError, match="selected"):
        hull_coverage(np.ones((2, 2)), [-1])
