from __future__ import annotations

import numpy as np
import pytest

from synalign_agent.core.resample import effective_sample_size, systematic
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
