"""Scores against definitions written out as loops, and against the core."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("evals.scorers", reason="the evals are not part of the source distribution")

from evals.scorers.held_out import HeldOut
from evals.scorers.prdc import neighbour_radii2, prdc
from evals.scorers.texts import distinct_ngrams, exact_duplicates, near_duplicates
from evals.scorers.two_sample import c2st_auc
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.mmd import mmd2_to_population
from synalign_agent.errors import InputError

KERNEL = RBFMixture((0.5, 1.0))


def gaussian(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 4)) + np.array([shift, 0.0, 0.0, 0.0])


def test_prdc_is_its_definition() -> None:
    real, syn, k = gaussian(30, 0), gaussian(25, 1, 0.7), 3

    def radius(X: np.ndarray, i: int) -> float:
        return sorted(float(np.linalg.norm(X[i] - x)) for x in X)[k]

    def inside(point: np.ndarray, X: np.ndarray, i: int) -> bool:
        return float(np.linalg.norm(point - X[i])) <= radius(X, i)

    found = prdc(real, syn, neighbour_radii2(real, k), k)
    assert found.precision == pytest.approx(np.mean([any(inside(s, real, i) for i in range(30)) for s in syn]))
    assert found.recall == pytest.approx(np.mean([any(inside(r, syn, j) for j in range(25)) for r in real]))
    assert found.density == pytest.approx(np.sum([inside(s, real, i) for s in syn for i in range(30)]) / (k * 25))
    assert found.coverage == pytest.approx(np.mean([any(inside(s, real, i) for s in syn) for i in range(30)]))
    with pytest.raises(InputError, match="does not exist"):
        neighbour_radii2(real[:3], k)


def test_prdc_tells_narrow_from_wrong() -> None:
    real = gaussian(200, 0)
    radii2 = neighbour_radii2(real)
    narrow, wrong = prdc(real, 0.2 * gaussian(100, 1), radii2), prdc(real, gaussian(100, 1, 9.0), radii2)
    assert narrow.precision > 0.95 and narrow.recall < 0.3 and wrong.precision == 0.0


def test_a_classifier_tells_apart_what_differs_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    assert c2st_auc(gaussian(600, 0), gaussian(300, 1), rng) == pytest.approx(0.5, abs=0.06)
    # AUC of two unit normals at a distance of 2 is Phi(2 / sqrt 2) = 0.921.
    assert c2st_auc(gaussian(600, 0), gaussian(600, 1, 2.0), rng) == pytest.approx(0.921, abs=0.02)


def test_texts_are_counted_as_defined() -> None:
    texts = ["a b a b", "A, b!", "c"]
    assert distinct_ngrams(texts, 1) == pytest.approx(3 / 7)
    assert distinct_ngrams(texts, 2) == pytest.approx(2 / 4)  # ab, ba, ab, ab
    assert distinct_ngrams(texts, 5) is None
    assert exact_duplicates(["A b.", "a  B", "c"]) == pytest.approx(1 / 3)
    X = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert near_duplicates(X, 0.95) == 0.5


def test_held_out_distances_are_the_cores() -> None:
    X, labels = gaussian(60, 0), np.repeat([0, 1], [20, 40])
    held_out = HeldOut(X, labels, 2, KERNEL)
    syn, weights = gaussian(30, 1, 0.5), np.random.default_rng(2).dirichlet(np.ones(30))
    weights[:3] = 0.0
    weights /= weights.sum()
    each = np.where(labels == 0, 0.5 / 20, 0.5 / 40)
    expected = mmd2_to_population(syn, X, KERNEL, syn_weights=weights, real_weights=each, real_strata=labels)
    assert held_out.mmd2(syn, weights, held_out.mean_kernels(syn)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("counts", [(2, 1), (0, 3), (4, 3), (6, 1), (9, 3)])
def test_a_mean_over_draws_is_the_mean_of_all_draws(counts: tuple[int, int]) -> None:
    held_out = HeldOut(gaussian(30, 0), np.repeat([0, 1], 15), 2, KERNEL)
    pool, labels = gaussian(7, 1, 0.5), np.repeat([0, 1], [4, 3])
    mean_kernels = held_out.mean_kernels(pool)
    draws = []
    for first in itertools.combinations(range(4), counts[0] % 4):
        for second in itertools.combinations(range(4, 7), counts[1] % 3):
            copies = np.repeat([counts[0] // 4, counts[1] // 3], [4, 3]).astype(np.float64)
            copies[[*first, *second]] += 1
            draws.append(held_out.mmd2(pool, copies / copies.sum(), mean_kernels))
    expected = held_out.mean_mmd2(pool, labels, np.array(counts), mean_kernels)
    assert expected == pytest.approx(np.mean(draws), abs=1e-12)


def test_the_floor_is_what_real_rows_score() -> None:
    labels = np.repeat([0, 1], 500)
    shifted = np.where(labels == 0, 0.0, 2.0)[:, None]
    held_out = HeldOut(gaussian(1000, 0) + shifted, labels, 2, KERNEL)
    scores = []
    for seed in range(60):
        real = gaussian(40, 100 + seed) + np.repeat([0.0, 2.0], 20)[:, None]
        scores.append(held_out.mmd2(real, np.full(40, 1 / 40), held_out.mean_kernels(real)))
    assert np.mean(scores) == pytest.approx(held_out.floor(40), rel=0.1)
