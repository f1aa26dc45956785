from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.mmd import (
    equivalent_rows,
    mean_kernel,
    mmd2_biased,
    mmd2_to_population,
    mmd2_unbiased,
    witness,
)
from synalign_agent.errors import InputError

KERNEL = RBFMixture((0.8, 1.6))
BLOCKS = [1, 3, 2048]


def k(x: np.ndarray, z: np.ndarray) -> float:
    d2 = float(((x - z) ** 2).sum())
    return (np.exp(-d2 / (2 * 0.8**2)) + np.exp(-d2 / (2 * 1.6**2))) / 2


def sets(n: int = 9, m: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(n, 3)), rng.normal(0.5, 1.0, size=(m, 3))
    return X, Y, rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))


def double_loop(X: np.ndarray, a: np.ndarray, Y: np.ndarray, b: np.ndarray) -> float:
    return sum(a[i] * b[j] * k(X[i], Y[j]) for i, j in product(range(len(X)), range(len(Y))))


@pytest.mark.parametrize("block_rows", BLOCKS)
def test_biased_is_the_weighted_double_loop(block_rows: int) -> None:
    X, Y, a, b = sets()
    expected = double_loop(X, a, X, a) - 2 * double_loop(X, a, Y, b) + double_loop(Y, b, Y, b)
    found = mmd2_biased(X, Y, KERNEL, x_weights=a, y_weights=b, block_rows=block_rows)
    assert found == pytest.approx(expected, rel=1e-10)


def test_biased_of_a_set_with_itself_is_zero() -> None:
    X, _, a, _ = sets()
    assert mmd2_biased(X, X, KERNEL, x_weights=a, y_weights=a) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("block_rows", BLOCKS)
def test_unbiased_is_the_double_loop_without_diagonal(block_rows: int) -> None:
    X, Y, _, _ = sets()
    n, m = len(X), len(Y)
    xx = sum(k(X[i], X[j]) for i, j in product(range(n), repeat=2) if i != j) / (n * (n - 1))
    yy = sum(k(Y[i], Y[j]) for i, j in product(range(m), repeat=2) if i != j) / (m * (m - 1))
    xy = sum(k(x, y) for x, y in product(X, Y)) / (n * m)
    assert mmd2_unbiased(X, Y, KERNEL, block_rows=block_rows) == pytest.approx(xx + yy - 2 * xy, rel=1e-10)


def test_unbiased_needs_pairs() -> None:
    with pytest.raises(InputError, match="2 rows"):
        mmd2_unbiased(np.ones((1, 2)), np.ones((5, 2)), KERNEL)


@pytest.mark.parametrize("block_rows", BLOCKS)
def test_to_population_with_strata_is_the_double_loop(block_rows: int) -> None:
    real, syn, _, w = sets(n=9, m=7)
    strata = np.array([4, 4, 1, 1, 1, 9, 4, 1, 4])
    mass = {1: 0.5, 4: 0.2, 9: 0.3}
    size = {label: int((strata == label).sum()) for label in mass}
    v = np.array([mass[int(label)] / size[int(label)] for label in strata])
    population = 0.0
    for i, j in product(range(9), repeat=2):
        label = int(strata[i])
        if label != strata[j]:
            population += v[i] * v[j] * k(real[i], real[j])
        elif i != j:
            population += mass[label] ** 2 * k(real[i], real[j]) / (size[label] * (size[label] - 1))
        elif size[label] == 1:
            population += mass[label] ** 2
    expected = double_loop(syn, w, syn, w) - 2 * double_loop(syn, w, real, v) + population
    found = mmd2_to_population(
        syn, real, KERNEL, syn_weights=w, real_weights=v, real_strata=strata, block_rows=block_rows
    )
    assert found == pytest.approx(expected, rel=1e-10)
    assert mean_kernel(real, KERNEL, weights=v, strata=strata) == pytest.approx(population, rel=1e-10)


def test_to_population_of_real_rows_averages_to_one_minus_mean_kernel_over_m() -> None:
    rng = np.random.default_rng(0)
    kernel, m, h = RBFMixture((1.0,)), 12, 15
    # E k of N(0, I_2) under this kernel: x - x' is N(0, 2 I), so E k = 1 / (1 + 2).
    expected = (1.0 - 1.0 / 3.0) / m
    draws = [mmd2_to_population(rng.normal(size=(m, 2)), rng.normal(size=(h, 2)), kernel) for _ in range(3000)]
    standard_error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws) - expected) < 3.5 * standard_error
    # Counting the diagonal would add (1 - E k) / h, which this many draws tell apart.
    assert 3.5 * standard_error < (2.0 / 3.0) / h / 4


def test_weights_must_be_equal_inside_a_stratum() -> None:
    X, Y, a, _ = sets()
    with pytest.raises(InputError, match="stratum 0"):
        mmd2_to_population(Y, X, KERNEL, real_weights=a)
    with pytest.raises(InputError, match="labels"):
        mean_kernel(X, KERNEL, strata=np.zeros(3, dtype=int))


def test_equivalent_rows_inverts_the_floor() -> None:
    assert equivalent_rows((1 - 0.4) / 250, 0.4) == pytest.approx(250)
    assert equivalent_rows(0.0, 0.4) is None
    assert equivalent_rows(-1e-5, 0.4) is None


@pytest.mark.parametrize("block_rows", BLOCKS)
def test_witness_is_the_double_loop(block_rows: int) -> None:
    real, syn, v, w = sets()
    Z = np.random.default_rng(9).normal(size=(5, 3))
    expected = [sum(v[j] * k(z, real[j]) for j in range(9)) - sum(w[i] * k(z, syn[i]) for i in range(7)) for z in Z]
    found = witness(Z, real, syn, KERNEL, real_weights=v, syn_weights=w, block_rows=block_rows)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_witness_is_positive_where_real_mass_is_missing() -> None:
    real, syn = np.array([[0.0, 0.0], [5.0, 0.0]]), np.array([[0.0, 0.0], [0.1, 0.0]])
    values = witness(real, real, syn, KERNEL)
    assert values[1] > 0.4 and values[0] < 0.0


def test_block_rows_must_be_positive() -> None:
    X, Y, _, _ = sets()
    with pytest.raises(InputError, match="block_rows"):
        mmd2_biased(X, Y, KERNEL, block_rows=0)


def test_single_precision_rows_are_never_widened() -> None:
    seen = set()

    def spy(A: np.ndarray, B: np.ndarray, /) -> np.ndarray:
        seen.update({A.dtype, B.dtype})
        return KERNEL(A, B)

    real, syn, v, w = sets(n=60, m=50)
    strata = np.arange(60) % 2
    v = np.full(60, 1 / 60)
    real32, syn32 = real.astype(np.float32), syn.astype(np.float32)
    wide_real, wide_syn = real32.astype(np.float64), syn32.astype(np.float64)
    pairs = [
        (mmd2_biased(syn32, real32, spy, x_weights=w), mmd2_biased(wide_syn, wide_real, KERNEL, x_weights=w)),
        (mmd2_unbiased(syn32, real32, spy), mmd2_unbiased(wide_syn, wide_real, KERNEL)),
        (
            mmd2_to_population(syn32, real32, spy, real_weights=v, real_strata=strata, block_rows=16),
            mmd2_to_population(wide_syn, wide_real, KERNEL, real_weights=v, real_strata=strata),
        ),
        (mean_kernel(real32, spy), mean_kernel(wide_real, KERNEL)),
    ]
    for single, double in pairs:
        assert single == pytest.approx(double, abs=3e-7)
    np.testing.assert_allclose(
        witness(real32, real32, syn32, spy), witness(wide_real, wide_real, wide_syn, KERNEL), atol=3e-7
    )
    assert seen == {np.dtype(np.float32)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_degenerate_sets_have_a_distance(dtype: type) -> None:
    one, two = np.zeros((1, 1), dtype), np.full((1, 1), 2.0, dtype)
    apart = 2 - 2 * k(one[0], two[0])
    assert mmd2_biased(one, two, KERNEL) == pytest.approx(apart)
    assert mmd2_to_population(one, two, KERNEL) == pytest.approx(apart)
    assert mean_kernel(one, KERNEL) == pytest.approx(1.0)
    equal = np.full((5, 3), 0.3, dtype)
    assert mmd2_biased(equal, equal[:2], KERNEL) == pytest.approx(0.0, abs=1e-6)
    assert mmd2_unbiased(equal, equal[:2], KERNEL) == pytest.approx(0.0, abs=1e-6)
    # A weight of zero takes its row out.
    X = np.array([[0.0], [9.0]], dtype)
    assert mmd2_biased(X, two, KERNEL, x_weights=[1.0, 0.0]) == pytest.approx(apart)


@pytest.mark.parametrize("bad", [np.array([[0.0], [np.nan]]), np.zeros((0, 1)), np.zeros((2, 0)), np.zeros(3)])
def test_rows_that_cannot_be_compared_are_refused(bad: np.ndarray) -> None:
    good = np.zeros((3, 1))
    for estimate in (mmd2_biased, mmd2_unbiased, mmd2_to_population):
        with pytest.raises(InputError):
            estimate(bad, good, KERNEL)
        with pytest.raises(InputError):
            estimate(good, bad, KERNEL)
