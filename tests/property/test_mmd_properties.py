from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from synalign_agent.core.arrays import unit_rows
from synalign_agent.core.baselines.thinning import halve
from synalign_agent.core.cross_mmd import cross_mmd_test
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.mmd import mean_kernel, mmd2_biased, mmd2_to_population, mmd2_unbiased, real_floor
from synalign_agent.core.mmd_fast import mmd2_blocks, mmd2_linear
from synalign_agent.core.objectives import objective
from synalign_agent.core.resample import Duplicates, resample
from synalign_agent.core.swaps import improve_by_swaps

settings.register_profile("mmd", deadline=None, derandomize=True, max_examples=40)
mmd = settings.get_profile("mmd")

KERNEL = RBFMixture((0.5, 1.0))
sizes = st.integers(4, 24)
seeds = st.integers(0, 2**32 - 1)
precisions = st.sampled_from([np.float32, np.float64])
dimensions = st.integers(1, 4)


def rows(n: int, seed: int, d: int = 3, dtype: type = np.float64) -> np.ndarray:
    """Unit rows; about a quarter are copies of another, as texts often are."""
    rng = np.random.default_rng((42, n, seed))
    X = unit_rows(rng.normal(size=(n, d)))
    copies = rng.random(n) < 0.25
    X[copies] = X[rng.integers(0, n, copies.sum())]
    return X.astype(dtype)


@mmd
@given(sizes, sizes, seeds, dimensions, st.integers(1, 30))
def test_precision_and_blocks_change_distances_by_round_off_only(
    n: int, m: int, seed: int, d: int, block_rows: int
) -> None:
    X, Y = rows(n, seed, d, np.float32), rows(m, seed + 1, d, np.float32)
    wide = X.astype(np.float64), Y.astype(np.float64)
    for estimate in (mmd2_biased, mmd2_unbiased, mmd2_to_population):
        assert math.isclose(
            estimate(X, Y, KERNEL, block_rows=block_rows), estimate(*wide, KERNEL), rel_tol=0, abs_tol=2e-6
        )
        assert math.isclose(estimate(*wide, KERNEL, block_rows=block_rows), estimate(*wide, KERNEL), abs_tol=1e-12)


@mmd
@given(sizes, sizes, seeds)
def test_the_three_estimators_differ_by_their_diagonals(n: int, m: int, seed: int) -> None:
    X, Y = rows(n, seed), rows(m, seed + 1)
    biased, unbiased = mmd2_biased(X, Y, KERNEL), mmd2_unbiased(X, Y, KERNEL)
    of_x, of_y = ((1 - mean_kernel(side, KERNEL)) / len(side) for side in (X, Y))
    assert math.isclose(biased, unbiased + of_x + of_y, abs_tol=1e-12)
    assert math.isclose(mmd2_to_population(X, Y, KERNEL), unbiased + of_x, abs_tol=1e-12)


@mmd
@given(st.integers(4, 40), st.integers(4, 40), seeds)
def test_fast_estimates_are_finite_with_errors_and_swap_sides(n: int, m: int, seed: int) -> None:
    X, Y = rows(n, seed), rows(m, seed + 1)
    for estimate in (mmd2_linear, mmd2_blocks):
        found = estimate(X, Y, KERNEL, rng=np.random.default_rng(seed))
        assert math.isfinite(found.value) and found.standard_error >= 0 and found.n_terms >= 2
        assert -2.0 <= found.value <= 2.0
        assert found == estimate(X, Y, KERNEL, rng=np.random.default_rng(seed))


@mmd
@given(st.integers(3, 30), st.integers(3, 30), seeds, st.integers(1, 40))
def test_the_cross_test_is_a_repeatable_probability(n: int, m: int, seed: int, block_rows: int) -> None:
    X, Y = rows(n, seed), rows(m, seed + 1)
    found = cross_mmd_test(X, Y, KERNEL, rng=np.random.default_rng(seed))
    assert 0.0 <= found.p_value <= 1.0 and found.standard_error >= 0.0
    again = cross_mmd_test(X, Y, KERNEL, rng=np.random.default_rng(seed), block_rows=block_rows)
    assert math.isclose(found.mmd2, again.mmd2, abs_tol=1e-12)
    assert math.isclose(found.p_value, again.p_value, abs_tol=1e-6)


@mmd
@given(st.integers(6, 30), seeds, st.data())
def test_split_draws_are_real_distances(n: int, seed: int, data: st.DataObject) -> None:
    X = rows(n, seed)
    m = data.draw(st.integers(1, n - 2))
    h = data.draw(st.integers(2, n - m)) if n - m > 2 else n - m
    floor = real_floor(X, KERNEL, n_syn=m, n_real=h, rng=np.random.default_rng(seed), draw="splits", n_draws=10)
    # A distance to a population may be below 0, by no more than the spread within the held-out sample.
    assert np.isfinite(floor.draws).all() and floor.draws.min() >= -1.0 / (h - 1) and floor.draws.max() <= 2.0


@mmd
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 60), seeds, st.integers(1, 4))
def test_a_resample_says_exactly_what_it_did(draws: list[float], n: int, seed: int, max_copies: int) -> None:
    w = np.where(np.array(draws) < 0.2, 0.0, draws)
    w[0] += 1e-3
    w /= w.sum()
    found = resample(w, n, np.random.default_rng(seed), max_copies=max_copies)
    support = np.count_nonzero(w)
    assert found.copies.sum() == n - found.n_missing == min(n, max_copies * support)
    assert found.copies.max() <= max_copies and not found.copies[w == 0].any()
    assert (found.duplicates is Duplicates.NONE) == (found.copies.max() <= 1)
    if found.duplicates is Duplicates.UNAVOIDABLE:
        assert found.copies.sum() > support
    if max_copies == 1:
        assert found.duplicates is Duplicates.NONE


@mmd
@given(st.integers(2, 40), seeds, precisions, st.integers(1, 2), st.data())
def test_swaps_keep_the_number_and_the_limit_and_never_harm(
    m: int, seed: int, dtype: type, max_copies: int, data: st.DataObject
) -> None:
    X, real = rows(m, seed, dtype=dtype), rows(20, seed + 1, dtype=dtype)
    n = data.draw(st.integers(1, m * max_copies))
    slots = np.random.default_rng(seed).choice(np.repeat(np.arange(m), max_copies), n, replace=False)
    copies = np.bincount(slots, minlength=m)
    k_sr = KERNEL(X, real).mean(axis=1, dtype=np.float64)
    found = improve_by_swaps(X, copies, KERNEL, k_sr, max_copies=max_copies)
    assert found.copies.sum() == n and found.copies.min() >= 0 and found.copies.max() <= max_copies
    assert found.after <= found.before and found.is_local_optimum
    assert (found.n_swaps == 0) == bool((found.copies == copies).all())
    w = found.copies / n
    wide = X.astype(np.float64)
    true = float(w @ KERNEL(wide, wide) @ w - 2 * w @ k_sr)
    assert math.isclose(found.after, true, rel_tol=0, abs_tol=2e-6 if dtype is np.float32 else 1e-12)
    # From its own result there is nothing left to do.
    assert improve_by_swaps(X, found.copies, KERNEL, k_sr, max_copies=max_copies).n_swaps == 0


@mmd
@given(st.integers(2, 60), seeds, precisions)
def test_halves_are_disjoint_and_take_one_row_of_each_pair(n: int, seed: int, dtype: type) -> None:
    X = rows(n, seed, dtype=dtype)
    first, second = halve(X, KERNEL, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(np.stack([first, second]), axis=0), np.arange(n // 2 * 2).reshape(-1, 2).T)


@settings(mmd, max_examples=25)
@given(st.sampled_from(["projection", "herding", "thinning", "none"]), st.integers(1, 30), seeds, precisions, st.data())
def test_no_baseline_beats_the_kernel_objective(name: str, m: int, seed: int, dtype: type, data: st.DataObject) -> None:
    syn, real = rows(m, seed, dtype=dtype), rows(12, seed + 1, dtype=dtype)
    n = data.draw(st.integers(1, m))

    def run(which: str) -> tuple[np.ndarray, float]:
        found = objective(which)(
            syn, real, n=n, cap=1 / n, kernel=KERNEL, rng=np.random.default_rng(seed), tolerance=1e-6
        )
        return found.w, found.objective

    w, value = run(name)
    assert w.min() >= 0 and w.max() <= 1 / n + 1e-12 and math.isclose(w.sum(), 1.0, abs_tol=1e-9)
    assert value >= run("kernel")[1] - 3e-6
    np.testing.assert_array_equal(w, run(name)[0])
