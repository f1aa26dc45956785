from __future__ import annotations

import numpy as np
import pytest

from synalign_agent.core import coverage
from synalign_agent.core.coverage import coverage_curve, hull_coverage, radius_coverage
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


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("block_rows", [7, 2048])
def test_the_curve_is_the_coverage_of_every_prefix(
    monkeypatch: pytest.MonkeyPatch, precision: type, block_rows: int
) -> None:
    X = np.random.default_rng(2).normal(size=(60, 3)).astype(precision)
    selected = [5, 40, 5, 17, 3, 59, 0, 22, 31, 8]
    monkeypatch.setattr(coverage, "_BLOCK_ROWS", block_rows)
    curve = coverage_curve(X, selected, 0.9)
    near = np.linalg.norm(X[:, None] - X[selected][None], axis=2) <= 0.9
    assert curve.tolist() == [near[:, :t].any(axis=1).mean() for t in range(1, 11)]
    assert curve.tolist() == [radius_coverage(X, selected[:t], 0.9) for t in range(1, 11)]
    assert 0 < curve[0] < curve[-1] < 1


def test_the_curve_of_nothing_is_empty_and_of_everything_ends_at_one() -> None:
    X = np.random.default_rng(3).normal(size=(20, 4))
    assert coverage_curve(X, [], 1.0).shape == (0,)
    assert coverage_curve(X, np.arange(20), 0.0) == pytest.approx(np.arange(1, 21) / 20)


def test_hull_coverage_of_a_square_in_space() -> None:
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], float)
    inside = np.array([[0.5, 0.2], [0.0, 0.0], [1.0, 0.0]])
    outside = np.array([[2.0, 0.0], [0.0, -1.5], [0.9, 1.2]])
    plane = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 2)))[0]
    X = np.vstack([corners, inside, outside]) @ plane.T + 3.0
    assert hull_coverage(X, [0, 1, 2, 3]) == 7 / 10
    assert hull_coverage(X, np.arange(10)) == 1.0


def test_the_hull_in_blocks_and_in_single_precision_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(4).normal(size=(200, 6))
    selected = np.arange(0, 200, 9)
    expected = hull_coverage(X, selected)
    assert expected is not None and 0.1 < expected < 0.99
    assert hull_coverage(X.astype(np.float32), selected) == pytest.approx(expected, abs=0.01)
    monkeypatch.setattr(coverage, "_BLOCK_ROWS", 7)
    assert hull_coverage(X, selected) == expected


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
