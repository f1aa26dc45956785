from __future__ import annotations

import numpy as np
import pytest

from synalign_agent.core.arrays import Array
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.mmd import mean_kernel, mmd2_unbiased
from synalign_agent.core.mmd_fast import Estimate, mean_kernel_blocks, mmd2_blocks, mmd2_linear
from synalign_agent.errors import InputError

KERNEL = RBFMixture((1.0,))


class _InOrder:
    """Stands in for a generator that leaves rows where they are."""

    def permutation(self, n: int) -> np.ndarray:
        return np.arange(n)


def sets(n: int, m: int, seed: int = 0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)), rng.normal(shift, 1.0, size=(m, 2))


def k(x: np.ndarray, z: np.ndarray) -> float:
    return float(np.exp(-((x - z) ** 2).sum() / 2))


def test_linear_is_the_mean_over_quadruples() -> None:
    X, Y = sets(101, 94)
    terms = [k(X[i], X[i + 47]) + k(Y[i], Y[i + 47]) - k(X[i], Y[i + 47]) - k(X[i + 47], Y[i]) for i in range(47)]
    found = mmd2_linear(X, Y, KERNEL, rng=_InOrder())
    assert found.value == pytest.approx(np.mean(terms), rel=1e-10)
    assert found.standard_error == pytest.approx(np.std(terms, ddof=1) / np.sqrt(47), rel=1e-10)
    assert found.n_terms == 47


@pytest.mark.parametrize(("n", "m", "block_rows"), [(30, 30, 10), (41, 23, 9), (23, 41, 9), (12, 12, None)])
def test_blocks_average_the_unbiased_estimator(n: int, m: int, block_rows: int | None) -> None:
    X, Y = sets(n, m)
    size = block_rows or 3
    n_blocks = max(n, m) // size
    terms = [
        mmd2_unbiased(X[i], Y[j], KERNEL)
        for i, j in zip(np.array_split(np.arange(n), n_blocks), np.array_split(np.arange(m), n_blocks), strict=True)
    ]
    found = mmd2_blocks(X, Y, KERNEL, rng=_InOrder(), block_rows=block_rows)
    assert found == pytest.approx((np.mean(terms), np.std(terms, ddof=1) / np.sqrt(n_blocks), n_blocks), rel=1e-9)


def test_a_side_too_small_for_the_blocks_makes_them_fewer() -> None:
    X, Y = sets(400, 6)
    largest = []

    def spy(A: Array, B: Array, /) -> Array:
        largest.append(max(len(A), len(B)))
        return KERNEL(A, B)

    found = mmd2_blocks(X, Y, spy, rng=np.random.default_rng(0), block_rows=10)
    assert found.n_terms == 3 and max(largest) < 20


def test_mean_kernel_blocks_average_pairs() -> None:
    X, _ = sets(29, 1)
    terms = [mean_kernel(part, KERNEL) for part in np.array_split(X, 4)]
    found = mean_kernel_blocks(X, KERNEL, rng=_InOrder(), block_rows=7)
    assert found == pytest.approx((np.mean(terms), np.std(terms, ddof=1) / 2, 4), rel=1e-9)


@pytest.mark.parametrize("estimate", [mmd2_linear, mmd2_blocks])
def test_estimates_are_unbiased_and_their_errors_right_under_null_and_alternative(estimate: object) -> None:
    # x - x' is N(0, 2 I) in 2 dimensions, and x - y the same around the shift (s, s).
    for shift in (0.0, 0.7):
        expected = 2.0 / 3.0 * (1.0 - np.exp(-2 * shift**2 / 6.0))
        rng = np.random.default_rng(3)
        runs = [
            estimate(rng.normal(size=(64, 2)), rng.normal(shift, 1.0, size=(64, 2)), KERNEL, rng=rng)
            for _ in range(400)
        ]
        values = np.array([run.value for run in runs])
        assert abs(values.mean() - expected) < 3.5 * values.std() / np.sqrt(len(values))
        claimed = np.sqrt(np.mean([run.standard_error**2 for run in runs]))
        assert values.std() == pytest.approx(claimed, rel=0.12)


def test_sorted_files_do_not_bias_the_estimates() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0.0, 6.0], 300)[:, None]
    X, Y = rng.normal(size=(600, 2)) + labels, rng.normal(size=(600, 2)) + labels[::-1]
    for found in (mmd2_linear(X, Y, KERNEL, rng=rng), mmd2_blocks(X, Y, KERNEL, rng=rng)):
        # The sets have the same law; in order, every pair would come from different modes.
        assert abs(found.value) < 4 * found.standard_error


def test_blocks_are_less_noisy_than_linear() -> None:
    X, Y = sets(2000, 2000)
    rng = np.random.default_rng(0)
    assert mmd2_blocks(X, Y, KERNEL, rng=rng).standard_error < 0.4 * mmd2_linear(X, Y, KERNEL, rng=rng).standard_error


def test_single_precision_and_equal_rows() -> None:
    X, Y = (rows.astype(np.float32) for rows in sets(300, 200, shift=0.5))
    for run in (mmd2_linear, mmd2_blocks):
        single = run(X, Y, KERNEL, rng=np.random.default_rng(1))
        double = run(X.astype(float), Y.astype(float), KERNEL, rng=np.random.default_rng(1))
        assert single == pytest.approx(double, abs=1e-6)
        still = run(np.ones((9, 1)), np.ones((8, 1)), KERNEL, rng=np.random.default_rng(0))
        assert still.value == still.standard_error == 0.0


@pytest.mark.parametrize(("n", "m", "block_rows"), [(3, 9, None), (9, 3, None), (9, 9, 1), (9, 9, 5), (1, 1, None)])
def test_too_few_rows_or_blocks_are_refused(n: int, m: int, block_rows: int | None) -> None:
    X, Y = sets(n, m)
    with pytest.raises(InputError):
        mmd2_blocks(X, Y, KERNEL, rng=np.random.default_rng(0), block_rows=block_rows)
    if block_rows is None:
        with pytest.raises(InputError, match="4 rows"):
            mmd2_linear(X, Y, KERNEL, rng=np.random.default_rng(0))
    with pytest.raises(InputError):
        mean_kernel_blocks(X[: min(n, 3)], KERNEL, rng=np.random.default_rng(0))


def test_an_estimate_follows_the_seed() -> None:
    X, Y = sets(50, 60)

    def value(seed: int) -> Estimate:
        return mmd2_blocks(X, Y, KERNEL, rng=np.random.default_rng(seed))

    assert value(1) == value(1) != value(2)
