from __future__ import annotations

import numpy as np
import pytest

from synalign_agent.core.resample import Duplicates, copies_within, effective_sample_size, resample, systematic
from synalign_agent.errors import InputError


@pytest.mark.parametrize("m", [3, 7, 10, 49, 100, 1000, 5003])
def test_uniform_weights_take_every_row_once_whatever_the_round_off(m: int) -> None:
    for weights in (np.full(m, 1.0 / m), np.full(m, np.float32(1.0 / m))):
        for seed in range(5):
            counts = systematic(weights, m, np.random.default_rng(seed))
            np.testing.assert_array_equal(counts, 1)


def test_weights_up_to_one_over_n_never_repeat_a_row() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        m = int(rng.integers(5, 60))
        n = int(rng.integers(1, m))
        w = np.full(m, 1.0 / n)
        w[n:] = 0.0
        share = rng.uniform(0, 1 / n, size=min(n, m - n))
        w[: len(share)] -= share
        w[n : n + len(share)] += share
        counts = systematic(w, n, rng)
        assert counts.max() == 1 and counts.sum() == n


def test_counts_average_to_n_times_weight() -> None:
    rng = np.random.default_rng(1)
    w = np.array([0.05, 0.4, 0.0, 0.25, 0.3])
    mean = np.mean([systematic(w, 7, rng) for _ in range(8000)], axis=0)
    np.testing.assert_allclose(mean, 7 * w, atol=0.025)


def test_one_row_takes_all_and_nothing_can_be_drawn() -> None:
    rng = np.random.default_rng(0)
    assert systematic(np.array([0.0, 1.0, 0.0]), 5, rng).tolist() == [0, 5, 0]
    assert systematic(np.array([0.5, 0.5]), 0, rng).tolist() == [0, 0]


@pytest.mark.parametrize(("w", "n"), [([0.5, 0.4], 3), ([1.5, -0.5], 3), ([], 3), ([1.0], -1)])
def test_bad_input_is_refused(w: list[float], n: int) -> None:
    with pytest.raises(InputError):
        systematic(np.array(w), n, np.random.default_rng(0))


def test_effective_sample_size() -> None:
    assert effective_sample_size(np.full(8, 1 / 8)) == pytest.approx(8)
    assert effective_sample_size(np.array([1.0, 0.0])) == 1.0
    assert effective_sample_size(np.array([0.5, 0.25, 0.25])) == pytest.approx(1 / 0.375)


class _Fixed:
    """Stands in for a generator at the ends of its range, where round-off shows."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value

    def permutation(self, n: int) -> np.ndarray:
        return np.arange(n)


@pytest.mark.parametrize("value", [0.0, 1e-16, float(np.nextafter(1.0, 0.0))])
def test_round_off_at_the_ends_of_the_random_number_is_repaired(value: float) -> None:
    rng = np.random.default_rng(0)
    for m in range(1, 300):
        uniform = np.full(m, 1.0 / m)
        np.testing.assert_array_equal(systematic(uniform, m, _Fixed(value)), 1)
        w = rng.dirichlet(np.ones(m))
        counts = systematic(w, 2 * m + 1, _Fixed(value))
        assert counts.sum() == 2 * m + 1
        assert (np.abs(counts - (2 * m + 1) * w) < 1.0 + 1e-9).all()
        # Half of the rows at exactly the cap, the rest sharing what is left.
        n = m // 2 + 1
        capped = np.full(m, 1.0 / n)
        capped[n // 2 :] = (1.0 - (n // 2) / n) / (m - n // 2)
        counts = systematic(capped, n, _Fixed(value))
        assert counts.sum() == n and counts.max() == 1
        np.testing.assert_array_equal(counts[: n // 2], 1)


def test_rows_that_come_in_a_pattern_are_drawn_in_proportion() -> None:
    w = np.tile([0.75, 0.25], 20) / 20
    shares = [systematic(w, 10, np.random.default_rng(seed))[::2].sum() / 10 for seed in range(200)]
    # Steps through the rows in their order would take the heavier kind every time.
    assert np.mean(shares) == pytest.approx(0.75, abs=0.03)


def test_distinct_rows_where_the_weights_allow_it() -> None:
    w = np.array([0.25, 0.25, 0.2, 0.2, 0.1])
    found = resample(w, 4, np.random.default_rng(0))
    assert found.duplicates is Duplicates.NONE and found.n_missing == 0
    assert found.copies.sum() == found.n_distinct == 4
    np.testing.assert_array_equal(found.copies, systematic(w, 4, np.random.default_rng(0)))


def test_duplicates_that_the_weights_ask_for_are_named() -> None:
    found = resample([0.7, 0.1, 0.1, 0.1], 3, np.random.default_rng(0))
    assert found.duplicates is Duplicates.FROM_WEIGHTS and found.copies[0] >= 2 and found.n_missing == 0
    # A heavy row may draw its one copy: that is no duplicate.
    assert resample([0.7, 0.3, 0.0], 1, np.random.default_rng(0)).duplicates is Duplicates.NONE


def test_duplicates_that_nothing_avoids_are_named() -> None:
    found = resample([0.5, 0.5, 0.0], 5, np.random.default_rng(0))
    assert found.duplicates is Duplicates.UNAVOIDABLE and found.n_distinct == 2 and found.n_missing == 0
    within = resample([0.5, 0.5, 0.0], 4, np.random.default_rng(0), max_copies=2)
    assert within.copies.tolist() == [2, 2, 0] and within.duplicates is Duplicates.UNAVOIDABLE


@pytest.mark.parametrize(("max_copies", "drawn"), [(1, 2), (2, 4), (3, 6), (4, 7)])
def test_more_rows_than_the_copies_allow_are_missing(max_copies: int, drawn: int) -> None:
    found = resample([0.9, 0.1, 0.0, 0.0], 7, np.random.default_rng(0), max_copies=max_copies)
    assert found.copies.sum() == drawn and found.n_missing == 7 - drawn
    assert found.copies[2:].tolist() == [0, 0] and found.copies.max() <= max_copies


def test_weights_above_the_cap_are_shared_out_in_proportion() -> None:
    w = np.array([0.6, 0.2, 0.1, 0.1, 0.0])
    rng = np.random.default_rng(0)
    mean = np.mean([resample(w, 2, rng, max_copies=1).copies for _ in range(6000)], axis=0)
    # Row 0 is certain; the other pick falls on the rest by weight.
    np.testing.assert_allclose(mean, [1.0, 0.5, 0.25, 0.25, 0.0], atol=0.025)
    # Cutting one row lifts the next above the cap as well.
    mean = np.mean([resample([0.5, 0.3, 0.1, 0.1], 3, rng, max_copies=1).copies for _ in range(4000)], axis=0)
    np.testing.assert_allclose(mean, [1.0, 1.0, 0.5, 0.5], atol=0.025)


def test_a_cap_that_weights_meet_but_for_round_off_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        m = int(rng.integers(1, 50))
        n = int(rng.integers(1, m + 1))
        w = rng.dirichlet(np.full(m, 0.3)).astype(np.float32).astype(float)
        found = resample(w / w.sum(), n, rng, max_copies=1)
        assert found.copies.max() == 1
        assert found.copies.sum() == min(n, np.count_nonzero(w)) and found.duplicates is Duplicates.NONE


def test_vanishing_weights_are_no_trouble() -> None:
    found = resample([1.0, 1e-310, 1e-310], 3, np.random.default_rng(0), max_copies=1)
    assert found.copies.tolist() == [1, 1, 1]
    assert resample([1.0], 0, np.random.default_rng(0), max_copies=1).copies.tolist() == [0]


@pytest.mark.parametrize("changed", [{"n": -1}, {"max_copies": 0}, {"w": [0.5, 0.4]}, {"w": []}, {"w": [np.nan, 1.0]}])
def test_resample_refuses_bad_input(changed: dict[str, object]) -> None:
    good: dict[str, object] = {"w": [0.5, 0.5], "n": 1, "rng": np.random.default_rng(0)}
    resample(**good)
    with pytest.raises(InputError):
        resample(**(good | changed))


@pytest.mark.parametrize(
    ("cap", "n", "m", "copies"), [(0.1, 10, 10, 1), (0.1, 10, 99, 1), (0.25, 10, 99, 2), (1.0, 5, 9, 5), (9.0, 5, 9, 5)]
)
def test_copies_that_fit_under_a_cap(cap: float, n: int, m: int, copies: int) -> None:
    assert copies_within(cap, n, m) == copies


def test_copies_survive_round_off_in_the_cap() -> None:
    assert all(copies_within(c / n, n, n) == c for n in range(1, 400) for c in (1, 2, 3) if c <= n)


@pytest.mark.parametrize(("cap", "n", "m"), [(0.1, 0, 9), (0.1, 10, 9), (0.05, 10, 99)])
def test_picks_that_do_not_fit_are_refused(cap: float, n: int, m: int) -> None:
    with pytest.raises(InputError):
        copies_within(cap, n, m)
