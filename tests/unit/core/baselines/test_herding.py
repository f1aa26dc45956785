from __future__ import annotations

import numpy as np
import pytest

from synalign_agent.core.baselines.herding import herd, herding
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.errors import InputError

KERNEL = RBFMixture((0.8, 1.6))


def world(m: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0.5, 1.0, size=(m, 2)), rng.normal(size=(30, 2))


def run(syn: np.ndarray, real: np.ndarray, n: int, cap: float) -> np.ndarray:
    return herding(syn, real, n=n, cap=cap, kernel=KERNEL, rng=np.random.default_rng(0), tolerance=1e-6).w


@pytest.mark.parametrize("max_copies", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_every_pick_brings_the_mean_embedding_closest(seed: int, max_copies: int) -> None:
    syn, real = world(seed=seed)
    K, k_sr = KERNEL(syn, syn), KERNEL(syn, real).mean(axis=1)
    expected: list[int] = []
    for t in range(9):
        distances = []
        for j in range(12):
            picks = [*expected, j]
            full = expected.count(j) >= max_copies
            distances.append(
                np.inf if full else K[np.ix_(picks, picks)].sum() / (t + 1) ** 2 - 2 * k_sr[picks].sum() / (t + 1)
            )
        expected.append(int(np.argmin(distances)))
        found = run(syn, real, t + 1, max_copies / (t + 1))
        np.testing.assert_allclose(found, np.bincount(expected, minlength=12) / (t + 1), atol=1e-15)


def test_herding_goes_on_from_a_selection() -> None:
    syn, real = world()
    k_sr = KERNEL(syn, real).mean(axis=1)
    three = herd(syn, k_sr, np.zeros(12, dtype=np.intp), 3, KERNEL, 1)
    np.testing.assert_array_equal(
        herd(syn, k_sr, three, 7, KERNEL, 1), herd(syn, k_sr, np.zeros(12, dtype=np.intp), 7, KERNEL, 1)
    )
    assert three.sum() == 3


def test_all_rows_and_equal_rows() -> None:
    syn, real = world()
    np.testing.assert_allclose(run(syn, real, 12, 1 / 12), 1 / 12)
    # Of equal rows the first are taken.
    np.testing.assert_allclose(run(np.ones((5, 1)), np.ones((3, 1)), 2, 0.5), [0.5, 0.5, 0, 0, 0])
    assert run(syn[:1], real, 1, 1.0).tolist() == [1.0]


@pytest.mark.parametrize(("n", "cap"), [(13, 1 / 13), (0, 1.0), (5, 0.1)])
def test_picks_that_do_not_fit_are_refused(n: int, cap: float) -> None:
    syn, real = world()
    with pytest.raises(InputError):
        run(syn, real, n, cap)
