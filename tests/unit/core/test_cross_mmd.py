from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from synalign_agent.core import cross_mmd
from synalign_agent.core.cross_mmd import cross_mmd_test
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.errors import InputError

KERNEL = RBFMixture((1.0,))


class _InOrder:
    """Stands in for a generator: the first half of every stratum defines the witness."""

    def permutation(self, rows: np.ndarray) -> np.ndarray:
        return rows


def k(x: np.ndarray, z: np.ndarray) -> float:
    return float(np.exp(-((x - z) ** 2).sum() / 2))


def rejections(p_values: list[float], alpha: float = 0.05) -> tuple[float, float]:
    """Return a binomial interval for the level that misses the truth once in 2,000."""
    interval = stats.binomtest(int(np.sum(np.array(p_values) <= alpha)), len(p_values)).proportion_ci(0.9995)
    return interval.low, interval.high


@pytest.mark.parametrize("block_rows", [1, 4, 2048])
def test_without_strata_it_is_welchs_test_of_the_witness(block_rows: int) -> None:
    rng = np.random.default_rng(0)
    syn, real = rng.normal(0.4, 1.0, size=(13, 3)), rng.normal(size=(18, 3))
    witness = [
        np.mean([k(x, s) for s in syn[:6]]) - np.mean([k(x, r) for r in real[:9]]) for x in [*syn[6:], *real[9:]]
    ]
    expected = stats.ttest_ind(witness[:7], witness[7:], equal_var=False, alternative="greater")
    found = cross_mmd_test(syn, real, KERNEL, rng=_InOrder(), block_rows=block_rows)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-10)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-10)
    assert found.mmd2 == pytest.approx(np.mean(witness[:7]) - np.mean(witness[7:]), rel=1e-10)


def test_with_strata_it_is_the_double_loop() -> None:
    rng = np.random.default_rng(1)
    syn, real = rng.normal(0.4, 1.0, size=(10, 2)), rng.normal(size=(12, 2))
    syn_strata, real_strata = np.array([5, 2] * 5), np.array([2, 2, 5] * 4)
    masses = {2: 0.3, 5: 0.7}
    parts = {}
    for label, (name, rows, strata) in product(masses, [("s", syn, syn_strata), ("r", real, real_strata)]):
        inside = rows[strata == label]
        parts[name, label] = np.split(inside, [len(inside) // 2])

    def g(x: np.ndarray) -> float:
        return sum(
            masses[label] * (np.mean([k(x, z) for z in parts["s", label][0]]) - np.mean([k(x, z) for z in parts["r", label][0]]))
            for label in masses
        )  # fmt: skip

    scores = {key: np.array([g(x) for x in halves[1]]) for key, halves in parts.items()}
    mmd2 = sum(masses[label] * (scores["s", label].mean() - scores["r", label].mean()) for label in masses)
    variance = sum(
        masses[label] ** 2 * scores[name, label].var(ddof=1) / len(scores[name, label])
        for name, label in product("sr", masses)
    )
    found = cross_mmd_test(
        syn, real, KERNEL, rng=_InOrder(), syn_strata=syn_strata, real_strata=real_strata, masses=masses
    )
    assert found.mmd2 == pytest.approx(mmd2, rel=1e-10)
    assert found.standard_error == pytest.approx(np.sqrt(variance), rel=1e-10)
    assert 0.0 < found.p_value < 1.0


def test_the_level_is_held_on_gaussian_rows() -> None:
    rng = np.random.default_rng(7)
    p_values = [
        cross_mmd_test(rng.normal(size=(40, 3)), rng.normal(size=(30, 3)), KERNEL, rng=rng).p_value for _ in range(1000)
    ]
    low, high = rejections(p_values)
    assert low < 0.05 < high and high - low < 0.06
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_the_level_is_held_in_strata_of_other_proportions() -> None:
    rng = np.random.default_rng(8)
    syn_strata, real_strata = np.repeat([0, 1], [30, 10]), np.repeat([0, 1], [12, 28])
    with_strata, without = [], []
    for _ in range(600):
        syn = rng.normal(size=(40, 2)) + 4.0 * syn_strata[:, None]
        real = rng.normal(size=(40, 2)) + 4.0 * real_strata[:, None]
        with_strata.append(
            cross_mmd_test(syn, real, KERNEL, rng=rng, syn_strata=syn_strata, real_strata=real_strata).p_value
        )
        without.append(cross_mmd_test(syn, real, KERNEL, rng=rng).p_value)
    low, high = rejections(with_strata)
    assert low < 0.05 < high
    assert np.mean(np.array(without) <= 0.05) > 0.5  # the proportions alone tell the sets apart


def test_a_difference_is_found_and_measured() -> None:
    rng = np.random.default_rng(2)
    # E k = 1/3 within; between means at distance 1 in each of 2 dimensions it is 1/3 exp(-2 / 6).
    expected = 2.0 / 3.0 * (1.0 - np.exp(-1.0 / 3.0))
    found = [
        cross_mmd_test(rng.normal(1.0, 1.0, size=(100, 2)), rng.normal(size=(100, 2)), KERNEL, rng=rng)
        for _ in range(50)
    ]
    assert max(test.p_value for test in found) < 1e-3
    assert np.mean([test.mmd2 for test in found]) == pytest.approx(expected, rel=0.1)


def test_single_precision_gives_the_same_answer() -> None:
    rng = np.random.default_rng(2)
    syn, real = rng.normal(0.3, 1.0, size=(50, 4)).astype(np.float32), rng.normal(size=(60, 4)).astype(np.float32)
    single = cross_mmd_test(syn, real, KERNEL, rng=np.random.default_rng(0))
    double = cross_mmd_test(syn.astype(float), real.astype(float), KERNEL, rng=np.random.default_rng(0))
    assert single == pytest.approx(double, rel=1e-4)


def test_rows_are_split_at_random() -> None:
    X = np.random.default_rng(0).normal(size=(30, 2))
    found = [cross_mmd_test(X, X + 0.1, KERNEL, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    # A file that is sorted by a hidden mode: in order, witness and scores would come from different ones.
    modes = np.repeat([0.0, 6.0], 100)[:, None]
    rng = np.random.default_rng(5)
    p_values = []
    for _ in range(100):
        syn, real = rng.normal(size=(200, 2)) + modes, rng.normal(size=(200, 2)) + modes[::-1]
        p_values.append(cross_mmd_test(syn, real, KERNEL, rng=rng).p_value)
    low, high = rejections(p_values)
    assert low < 0.05 < high


def test_rows_without_spread() -> None:
    rng = np.random.default_rng(0)
    equal = cross_mmd_test(np.ones((6, 1)), np.ones((4, 1)), KERNEL, rng=rng)
    assert (equal.p_value, equal.statistic) == (1.0, 0.0)
    apart = cross_mmd_test(np.ones((6, 1)), np.zeros((4, 1)), KERNEL, rng=rng)
    assert (apart.p_value, apart.statistic) == (0.0, np.inf)
    assert apart.mmd2 == pytest.approx(2 - 2 * np.exp(-0.5))


def test_a_stratum_without_mass_needs_no_rows() -> None:
    rng = np.random.default_rng(0)
    X, strata = rng.normal(size=(9, 2)), np.repeat([0, 1], [8, 1])
    found = cross_mmd_test(
        X, X[::-1], KERNEL, rng=_InOrder(), syn_strata=strata, real_strata=strata[::-1], masses=[1, 0]
    )
    alone = cross_mmd_test(X[:8], X[:8][::-1], KERNEL, rng=_InOrder())
    assert found == pytest.approx(alone)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"syn_strata": np.repeat([0, 1], [18, 2])}, "3 synthetic rows of every stratum, and stratum 1"),
        ({"real_strata": np.repeat([0, 1], [2, 18])}, "3 real rows of every stratum, and stratum 0"),
        ({"real_strata": np.zeros(20, dtype=int)}, "Strata differ"),
        ({"block_rows": 0}, "block_rows"),
        ({"masses": [0.0, 0.0]}, "masses"),
    ],
)
def test_bad_input_is_refused(changed: dict[str, object], message: str) -> None:
    X = np.random.default_rng(0).normal(size=(20, 2))
    strata = np.repeat([0, 1], 10)
    good = {"rng": np.random.default_rng(0), "syn_strata": strata, "real_strata": strata}
    cross_mmd_test(X, X, KERNEL, **good)
    with pytest.raises(InputError, match=message):
        cross_mmd_test(X, X, KERNEL, **(good | changed))


def test_no_half_is_ever_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    means = cross_mmd.weighted_means

    def spy(Z: np.ndarray, X: np.ndarray, *rest: object) -> np.ndarray:
        sizes.append(max(len(Z), len(X)))
        return means(Z, X, *rest)

    monkeypatch.setattr(cross_mmd, "weighted_means", spy)
    X = np.random.default_rng(0).normal(size=(100, 2))
    cross_mmd_test(X, X, KERNEL, rng=np.random.default_rng(0), block_rows=16)
    assert max(sizes) == 16
