from __future__ import annotations

import numpy as np
import pytest

from synalign_agent.core.arrays import as_indices, as_rows, as_weights, squared_distances, unit_rows
from synalign_agent.errors import InputError


def test_unit_rows_have_norm_one_and_keep_direction() -> None:
    X = np.array([[3.0, 4.0], [1e-200, 0.0], [-1e200, 1e200]])
    unit = unit_rows(X)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(unit[0], [0.6, 0.8])
    assert unit.dtype == np.float64


def test_unit_rows_leaves_its_argument_alone() -> None:
    X = np.array([[3.0, 4.0]])
    unit_rows(X)
    np.testing.assert_array_equal(X, [[3.0, 4.0]])


def test_zero_row_is_named() -> None:
    with pytest.raises(InputError, match="Row 2"):
        unit_rows(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))


def test_row_that_is_not_finite_is_named() -> None:
    with pytest.raises(InputError, match=r"X_real .* row 1"):
        as_rows(np.array([[1.0], [np.nan]]), "X_real")


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2), (0, 3), (3, 0)])
def test_only_non_empty_matrices_pass(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="rows, dimensions"):
        as_rows(np.ones(shape))


def test_weights_default_to_uniform_and_are_rescaled_exactly() -> None:
    np.testing.assert_array_equal(as_weights(None, 4), np.full(4, 0.25))
    stored = np.array([1, 2, 4], dtype=np.float32) / np.float32(7)
    assert as_weights(stored, 3).sum() == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5], [0.5, np.nan], [1.0], [[0.5, 0.5]]])
def test_weights_off_the_simplex_are_refused(weights: list[float]) -> None:
    with pytest.raises(InputError, match="w must"):
        as_weights(weights, 2, "w")


@pytest.mark.parametrize("indices", [[-1], [3], [0.5], [[0, 1]], [True]])
def test_bad_indices_are_refused(indices: list[int]) -> None:
    with pytest.raises(InputError, match="chosen"):
        as_indices(indices, 3, "chosen")


def test_squared_distances_match_differences_and_never_go_below_zero() -> None:
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(7, 5)), rng.normal(size=(4, 5))
    direct = ((A[:, None, :] - B[None, :, :]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared_distances(A, B), direct, rtol=1e-12)
    assert squared_distances(A, A).min() >= 0.0


def test_rows_of_other_dimension_are_refused() -> None:
    with pytest.raises(InputError, match="dimensions"):
        squared_distances(np.ones((2, 3)), np.ones((2, 4)))
