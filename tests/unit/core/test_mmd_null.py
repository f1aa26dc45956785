from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from synalign_agent.core.arrays import FloatArray
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.mmd import mean_kernel, mmd2_to_population, permutation_p_value, real_floor
from synalign_agent.errors import InputError

KERNEL = RBFMixture((1.0,))


def test_floor_averages_to_one_minus_mean_kernel_over_n_syn() -> None:
    X = np.random.default_rng(0).normal(size=(60, 3))
    expected = (1.0 - mean_kernel(X, KERNEL)) / 100
    floor = real_floor(X, KERNEL, n_syn=100, n_real=200, rng=np.random.default_rng(1), n_draws=20000)
    standard_error = floor.draws.std() / np.sqrt(len(floor.draws))
    assert floor.mean == pytest.approx(expected, abs=4 * standard_error)
    assert 4 * standard_error < 0.05 * expected


def test_floor_with_strata_averages_to_its_closed_form() -> None:
    rng = np.random.default_rng(0)
    strata = np.repeat([3, 8], [25, 12])
    X = rng.normal(size=(37, 2)) + 2.0 * (strata == 8)[:, None]
    masses, n_syn = {3: 0.4, 8: 0.6}, {3: 30, 8: 10}
    expected = sum(
        masses[label] ** 2 * (1.0 - mean_kernel(X[strata == label], KERNEL)) / n_syn[label] for label in (3, 8)
    )
    floor = real_floor(
        X, KERNEL, n_syn=n_syn, n_real={3: 20, 8: 1000}, rng=rng, strata=strata, masses=masses, n_draws=20000
    )
    # n_real of 1000 and 20 rather than equal: the hold-out must not move the mean.
    assert floor.mean == pytest.approx(expected, rel=0.03)


def test_floor_draws_are_the_statistic_of_the_rows_drawn() -> None:
    """One stratum far from the other, each of equal rows but one: draws take few values."""
    X = np.array([[0.0], [1.0]])
    floor = real_floor(X, KERNEL, n_syn=2, n_real=2, rng=np.random.default_rng(0), n_draws=400)
    outcomes = [
        mmd2_to_population(X[list(syn)], X[list(real)], KERNEL)
        for syn in ((0, 0), (0, 1), (1, 1))
        for real in ((0, 0), (0, 1), (1, 1))
    ]
    # Two rows spread half as much as what they came from, so the draws are scaled by 2.
    assert {round(float(draw), 9) for draw in floor.draws} == {round(2 * value, 9) for value in outcomes}


def test_floor_quantile_holds_for_fresh_real_rows() -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(1000, 3))
    floor = real_floor(X, KERNEL, n_syn=50, n_real=80, rng=rng, n_draws=2000, alpha=0.1)
    fresh = [mmd2_to_population(rng.normal(size=(50, 3)), rng.normal(size=(80, 3)), KERNEL) for _ in range(600)]
    assert floor.alpha == 0.1
    assert floor.quantile == pytest.approx(np.quantile(floor.draws, 0.9))
    assert 0.06 < np.mean(np.array(fresh) > floor.quantile) < 0.14


def test_floor_follows_the_seed_and_subsamples() -> None:
    X = np.random.default_rng(0).normal(size=(300, 3))
    sizes = []

    def spy(A: FloatArray, B: FloatArray, /) -> FloatArray:
        sizes.append(len(A))
        return KERNEL(A, B)

    def draw(seed: int) -> FloatArray:
        strata = np.repeat([0, 1], [200, 100])
        rng = np.random.default_rng(seed)
        return real_floor(
            X, spy, n_syn=[20, 10], n_real=[20, 10], rng=rng, strata=strata, n_draws=50, max_rows=90
        ).draws

    np.testing.assert_array_equal(draw(5), draw(5))
    assert not np.array_equal(draw(5), draw(6))
    assert max(sizes) == 90


def test_floor_of_equal_rows_is_zero() -> None:
    floor = real_floor(np.ones((5, 2)), KERNEL, n_syn=3, n_real=3, rng=np.random.default_rng(0), n_draws=10)
    np.testing.assert_allclose(floor.draws, 0.0, atol=1e-14)


def test_splits_are_the_statistic_of_disjoint_rows() -> None:
    X = np.array([[0.0], [1.0], [3.0], [7.0]])
    floor = real_floor(X, KERNEL, n_syn=1, n_real=2, rng=np.random.default_rng(0), draw="splits", n_draws=300)
    outcomes = {round(mmd2_to_population(X[[i]], X[[j, k]], KERNEL), 9) for i, j, k in permutations(range(4), 3)}
    assert {round(float(draw), 9) for draw in floor.draws} == outcomes


def test_splits_with_strata_average_to_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    strata = np.repeat([3, 8], [60, 40])
    X = rng.normal(size=(100, 2)) + 2.0 * (strata == 8)[:, None]
    masses, n_syn = {3: 0.4, 8: 0.6}, {3: 20, 8: 10}
    expected = sum(
        masses[label] ** 2 * (1.0 - mean_kernel(X[strata == label], KERNEL)) / n_syn[label] for label in (3, 8)
    )
    floor = real_floor(
        X, KERNEL, n_syn=n_syn, n_real={3: 40, 8: 30}, rng=rng, strata=strata, masses=masses, draw="splits",
        n_draws=20000,
    )  # fmt: skip
    standard_error = floor.draws.std() / np.sqrt(len(floor.draws))
    assert floor.mean == pytest.approx(expected, abs=4 * standard_error)


def test_splits_and_bootstrap_agree() -> None:
    X = np.random.default_rng(5).normal(size=(1500, 3))
    floors = [
        real_floor(X, KERNEL, n_syn=60, n_real=90, rng=np.random.default_rng(6), draw=draw, n_draws=4000)
        for draw in ("bootstrap", "splits")
    ]
    assert floors[0].mean == pytest.approx(floors[1].mean, rel=0.03)
    assert floors[0].quantile == pytest.approx(floors[1].quantile, rel=0.05)
    assert floors[0].draws.std() == pytest.approx(floors[1].draws.std(), rel=0.08)


def test_splits_of_all_rows_have_the_null_law_over_fresh_data() -> None:
    """Nothing is left over: the draws of one data set depend on each other, their law over data sets is still exact."""
    rng = np.random.default_rng(4)
    draws = [
        real_floor(rng.normal(size=(30, 2)), KERNEL, n_syn=12, n_real=18, rng=rng, draw="splits", n_draws=1).draws[0]
        for _ in range(3000)
    ]
    fresh = [mmd2_to_population(rng.normal(size=(12, 2)), rng.normal(size=(18, 2)), KERNEL) for _ in range(3000)]
    assert ks_2samp(draws, fresh).pvalue > 0.001


def test_splits_need_enough_rows() -> None:
    X = np.random.default_rng(0).normal(size=(40, 2))
    common = {"n_syn": 20, "n_real": 20, "rng": np.random.default_rng(0), "n_draws": 2, "draw": "splits"}
    real_floor(X, KERNEL, **common)
    with pytest.raises(InputError, match="39 are used"):
        real_floor(X[:39], KERNEL, **common)
    with pytest.raises(InputError, match="raise max_rows"):
        real_floor(X, KERNEL, max_rows=30, **common)


@pytest.mark.parametrize("draw", ["bootstrap", "splits"])
def test_floor_of_single_precision_rows(draw: str) -> None:
    X = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    single, double = (
        real_floor(rows, KERNEL, n_syn=20, n_real=30, rng=np.random.default_rng(1), draw=draw)
        for rows in (X, X.astype(np.float64))
    )
    np.testing.assert_allclose(single.draws, double.draws, atol=2e-7)


@pytest.mark.parametrize(
    "changed",
    [
        {"draw": "split"},
        {"n_syn": {0: 5}},
        {"n_syn": {0: 5, 1: 5, 2: 5}},
        {"n_syn": [5, 0]},
        {"n_syn": [5, 2.5]},
        {"n_syn": 5},
        {"masses": [0.0, 0.0]},
        {"masses": {0: -1.0, 1: 2.0}},
        {"n_draws": 0},
        {"alpha": 1.0},
    ],
)
def test_floor_checks_its_numbers(changed: dict[str, object]) -> None:
    arguments = {"n_syn": [5, 5], "n_real": [5, 5], "strata": [0, 0, 1, 1], "rng": np.random.default_rng(0)}
    X = np.arange(8.0).reshape(4, 2)
    real_floor(X, KERNEL, **arguments)
    with pytest.raises(InputError):
        real_floor(X, KERNEL, **(arguments | changed))


def test_a_stratum_without_mass_needs_no_rows() -> None:
    X = np.arange(8.0).reshape(4, 2)
    floor = real_floor(
        X,
        KERNEL,
        n_syn=[5, 0],
        n_real=[5, 0],
        strata=[0, 0, 1, 1],
        masses=[1.0, 0.0],
        rng=np.random.default_rng(0),
        n_draws=20,
    )
    alone = real_floor(X[:2], KERNEL, n_syn=5, n_real=5, rng=np.random.default_rng(0), n_draws=20)
    np.testing.assert_allclose(floor.draws, alone.draws, atol=1e-14)


def test_permutation_test_holds_its_level() -> None:
    """Strata of other sizes on either side, so a permutation across them would reject."""
    rng = np.random.default_rng(11)
    p_values = []
    for _ in range(300):
        syn_strata, real_strata = np.repeat([0, 1], [20, 8]), np.repeat([0, 1], [10, 18])
        syn = rng.normal(size=(28, 2)) + 4.0 * syn_strata[:, None]
        real = rng.normal(size=(28, 2)) + 4.0 * real_strata[:, None]
        p_values.append(
            permutation_p_value(
                syn, real, KERNEL, rng=rng, syn_strata=syn_strata, real_strata=real_strata, n_permutations=99
            )
        )
    assert 0.02 < np.mean(np.array(p_values) <= 0.05) < 0.085
    assert 0.45 < np.mean(p_values) < 0.56


def test_permutation_test_finds_a_difference() -> None:
    rng = np.random.default_rng(0)
    p = permutation_p_value(
        rng.normal(1.0, 1.0, size=(40, 2)), rng.normal(size=(40, 2)), KERNEL, n_permutations=199, rng=rng
    )
    assert p == 1 / 200


def test_permutation_test_of_equal_sets_is_one() -> None:
    X = np.random.default_rng(0).normal(size=(20, 2))
    assert permutation_p_value(X, X, KERNEL, n_permutations=50, rng=np.random.default_rng(0)) == 1.0


def test_permutations_that_reproduce_the_observed_split_count() -> None:
    X = np.random.default_rng(0).normal(size=(2, 3))
    assert permutation_p_value(X[:1], X[1:], KERNEL, n_permutations=20, rng=np.random.default_rng(0)) == 1.0


def test_permutation_test_is_bounded_and_follows_the_seed() -> None:
    rng = np.random.default_rng(0)
    syn, real = rng.normal(0.3, 1.0, size=(400, 2)), rng.normal(size=(200, 2))
    sizes = []

    def spy(A: FloatArray, B: FloatArray, /) -> FloatArray:
        sizes.append(len(A))
        return KERNEL(A, B)

    def p(seed: int) -> float:
        return permutation_p_value(syn, real, spy, n_permutations=99, rng=np.random.default_rng(seed), max_rows=60)

    assert p(1) == p(1)
    assert len({p(seed) for seed in range(5)}) > 1
    assert max(sizes) == 60


def test_permutation_test_needs_the_same_strata_on_both_sides() -> None:
    X = np.random.default_rng(0).normal(size=(4, 2))
    with pytest.raises(InputError, match="Strata differ"):
        permutation_p_value(
            X, X, KERNEL, rng=np.random.default_rng(0), syn_strata=[0, 0, 0, 0], real_strata=[0, 0, 1, 1]
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_permutation_test_of_single_rows_and_one_dimension(dtype: type) -> None:
    rng = np.random.default_rng(0)
    assert permutation_p_value(np.ones((1, 1), dtype), np.zeros((1, 1), dtype), KERNEL, rng=rng) == 1.0
    equal = permutation_p_value(np.ones((7, 1), dtype), np.ones((5, 1), dtype), KERNEL, rng=rng, n_permutations=50)
    assert equal == 1.0
    apart = permutation_p_value(np.ones((9, 1), dtype), np.zeros((9, 1), dtype), KERNEL, rng=rng, n_permutations=99)
    assert apart == 0.01
