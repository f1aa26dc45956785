"""The labels' contrast is shrunk as far as chance explains it, and towards the pool's."""

from __future__ import annotations

import numpy as np
import pytest

from synalign_agent.core.align import fit_weights
from synalign_agent.core.contrast import Contrast, shrink_contrast
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.errors import InputError

KERNEL = RBFMixture((1.0,))
HALVES = np.array([0.5, 0.5])


def draw(n: int, at: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Two labels of n rows each, `at` on the first axis."""
    return np.concatenate([rng.normal(size=(n, 4)) * 0.4 + [place, 0, 0, 0] for place in at])


def labels_of(n: int) -> np.ndarray:
    return np.repeat([0, 1], n)


def kept(n: int, moved: float, seed: int) -> float:
    rng = np.random.default_rng(seed)
    pool, ref = draw(300, (0.0, 0.0), rng), draw(n, (moved, -moved), rng)
    return shrink_contrast(pool, labels_of(300), ref, labels_of(n), KERNEL, prior=HALVES, rng=rng).kept


def test_labels_that_differ_by_chance_alone_are_hardly_believed() -> None:
    assert np.mean([kept(5, 0.0, seed) for seed in range(40)]) < 0.3


def test_more_rows_and_larger_differences_are_believed_more() -> None:
    few, many, far = (
        np.mean([kept(n, moved, seed) for seed in range(8)]) for n, moved in ((5, 0.3), (100, 0.3), (5, 1.0))
    )
    assert few < many and few < far
    assert many > 0.9


def test_the_share_is_the_best_in_mean_square() -> None:
    """Over many references, no constant share, chosen by knowing the truth, brings the means much nearer to the true ones."""
    rng = np.random.default_rng(0)
    pool, truth = draw(300, (0.0, 0.0), rng), draw(3000, (0.3, -0.3), rng)
    probe = draw(50, (0.0, 0.0), rng)
    errors: dict[float, list[float]] = {share: [] for share in (0.0, 0.25, 0.5, 0.75, 1.0)}
    ours: list[float] = []

    def means(X: np.ndarray, n: int) -> np.ndarray:
        return np.stack([KERNEL(probe, X[labels_of(n) == label]).mean(axis=1) for label in (0, 1)])

    def contrast(values: np.ndarray) -> np.ndarray:
        return values - values.mean(axis=0)

    goal, base = contrast(means(truth, 3000)), contrast(means(pool, 300))
    for _ in range(60):
        ref = draw(8, (0.3, -0.3), rng)
        found = shrink_contrast(pool, labels_of(300), ref, labels_of(8), KERNEL, prior=HALVES, rng=rng)
        measured = contrast(means(ref, 8))
        for share, values in errors.items():
            values.append(float(np.square(base + share * (measured - base) - goal).sum()))
        ours.append(float(np.square(base + found.kept * (measured - base) - goal).sum()))
    best = min(np.mean(values) for values in errors.values())
    assert np.mean(ours) < 1.25 * best
    assert np.mean(ours) < 0.9 * min(np.mean(errors[0.0]), np.mean(errors[1.0]))


def test_the_changes_are_the_definition() -> None:
    rng = np.random.default_rng(3)
    pool, ref = draw(40, (0.0, 0.2), rng), draw(6, (0.5, -0.2), rng)
    prior = np.array([0.7, 0.3])
    found = shrink_contrast(pool, labels_of(40), ref, labels_of(6), KERNEL, prior=prior, rng=rng)
    differences = np.stack(
        [
            KERNEL(pool, ref[labels_of(6) == label]).mean(axis=1)
            - KERNEL(pool, pool[labels_of(40) == label]).mean(axis=1)
            for label in (0, 1)
        ]
    )
    for label in (0, 1):
        contrast = differences[label] - prior @ differences
        expected = (found.kept - 1.0) * contrast[labels_of(40) == label]
        np.testing.assert_allclose(found.shifts[label], expected, atol=1e-12)


def test_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    pool, ref, order = draw(40, (0.0, 0.2), rng), draw(6, (0.5, -0.2), rng), rng.permutation(80)
    first, second = (
        shrink_contrast(rows, labels, ref, labels_of(6), KERNEL, prior=HALVES, rng=np.random.default_rng(0))
        for rows, labels in ((pool, labels_of(40)), (pool[order], labels_of(40)[order]))
    )
    assert first.kept == pytest.approx(second.kept, rel=1e-9)
    for label in (0, 1):
        np.testing.assert_allclose(np.sort(first.shifts[label]), np.sort(second.shifts[label]), atol=1e-12)


def test_sides_of_many_rows_are_thinned_to_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    pool, ref = draw(400, (0.0, 0.0), rng), draw(200, (0.15, -0.15), rng)

    def found() -> Contrast:
        return shrink_contrast(pool, labels_of(400), ref, labels_of(200), KERNEL, prior=HALVES, rng=rng)

    whole = found()
    monkeypatch.setattr("synalign_agent.core.contrast._MOST_ROWS", 200)
    assert np.mean([found().kept for _ in range(10)]) == pytest.approx(whole.kept, abs=0.05)


@pytest.mark.parametrize("missing", ["pool", "reference", "prior"])
def test_one_label_has_no_contrast(missing: str) -> None:
    rng = np.random.default_rng(6)
    pool, ref = draw(20, (0.0, 0.0), rng), draw(5, (1.0, -1.0), rng)
    pool_labels = np.zeros(40, dtype=np.int64) if missing == "pool" else labels_of(20)
    ref_labels = np.zeros(10, dtype=np.int64) if missing == "reference" else labels_of(5)
    prior = np.array([1.0, 0.0]) if missing == "prior" else HALVES
    assert shrink_contrast(pool, pool_labels, ref, ref_labels, KERNEL, prior=prior, rng=rng) == (1.0, {})


def test_a_single_row_a_label_is_believed_no_more_than_its_distance_allows() -> None:
    rng = np.random.default_rng(7)
    pool, ref = draw(50, (0.0, 0.0), rng), draw(1, (0.0, 0.0), rng)
    found = shrink_contrast(pool, labels_of(50), ref, labels_of(1), KERNEL, prior=HALVES, rng=rng)
    assert found.kept < 0.5


def test_a_shifted_target_moves_the_weights() -> None:
    rng = np.random.default_rng(8)
    pool, ref = rng.normal(size=(30, 3)), rng.normal(size=(10, 3))
    plain, zero = (fit_weights(pool, ref, KERNEL, cap=1.0, target_shift=shift) for shift in (None, np.zeros(30)))
    np.testing.assert_array_equal(plain.w, zero.w)
    shift = np.where(np.arange(30) == 4, 0.5, 0.0)
    moved = fit_weights(pool, ref, KERNEL, cap=1.0, target_shift=shift)
    assert moved.w[4] > plain.w[4] + 0.1
    np.testing.assert_allclose(moved.k_sr, plain.k_sr + shift)
    with pytest.raises(InputError, match="target_shift must be 30 finite numbers"):
        fit_weights(pool, ref, KERNEL, cap=1.0, target_shift=np.zeros(29))
