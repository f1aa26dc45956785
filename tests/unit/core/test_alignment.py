from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from synalign_agent.core.alignment import Alignment, Rows, align_pool
from synalign_agent.core.arrays import FloatArray, unit_rows
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.mmd import mean_kernel, mmd2_to_population
from synalign_agent.core.pool_choice import ChoiceOptions
from synalign_agent.errors import InputError

KERNEL = RBFMixture((0.4, 0.8))
D = 6


def around(centre: list[float], n: int, rng: np.random.Generator, spread: float = 0.3) -> FloatArray:
    """Return n unit rows around a direction (padded with zeros)."""
    mean = np.zeros(D)
    mean[: len(centre)] = centre
    return unit_rows(mean + spread * rng.normal(size=(n, D)))


def labelled(*parts: FloatArray) -> Rows:
    """Return the parts as labels 0, 1, ... ."""
    return Rows(np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts]))


def shuffled(rows: Rows, rng: np.random.Generator) -> Rows:
    order = rng.permutation(len(rows.X))
    return Rows(rows.X[order], rows.label[order])


class World:
    """Two labels; half of each label's pool is like the real rows, the other half is elsewhere."""

    def __init__(self, seed: int = 0, pool_sizes: tuple[int, int] = (60, 40)) -> None:
        rng = np.random.default_rng(seed)

        def real(n_first: int, n_second: int) -> Rows:
            return labelled(around([1.0, 0.0], n_first, rng), around([0.0, 1.0], n_second, rng))

        self.reference, self.scoring = real(60, 30), real(40, 20)
        self.population = Rows(
            np.concatenate([self.reference.X, self.scoring.X]),
            np.concatenate([self.reference.label, self.scoring.label]),
        )
        first, second = pool_sizes
        good = real(first // 2, second // 2)
        bad = labelled(around([0.5, 0, 1.0], first - first // 2, rng), around([0, 0.5, 1.0], second - second // 2, rng))
        self.good = np.arange(len(good.X) + len(bad.X)) < len(good.X)
        self.pool = Rows(np.concatenate([good.X, bad.X]), np.concatenate([good.label, bad.label]))
        self.prior = np.array([2 / 3, 1 / 3])

    def align(self, quotas: tuple[int, ...] = (20, 10), seed: int = 1, **changes: Any) -> Alignment:
        values: dict[str, Any] = {
            "pool": self.pool, "reference": self.reference, "scoring": self.scoring, "population": self.population,
            "kernel": KERNEL, "prior": self.prior, "quotas": np.array(quotas), "scoring_is_held_out": True,
            "rng": np.random.default_rng(seed), **changes,
        }  # fmt: skip
        named = {field.name for field in fields(ChoiceOptions)} & values.keys()
        values["options"] = ChoiceOptions(**{name: values.pop(name) for name in named})
        return align_pool(
            values.pop("pool"), values.pop("reference"), values.pop("scoring"), values.pop("population"),
            values.pop("kernel"), **values,
        )  # fmt: skip


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def per_label(copies: Any, pool: Rows, n: int = 2) -> list[int]:
    return [int(copies[pool.label == label].sum()) for label in range(n)]


def test_selected_counts_are_the_quotas_without_duplicates(world: World) -> None:
    found = world.align((20, 10))
    assert per_label(found.copies, world.pool) == [20, 10]
    assert set(found.copies.tolist()) == {0, 1}


def test_weights_are_a_distribution_with_the_labels_masses(world: World) -> None:
    found = world.align((20, 10))
    assert found.weights.sum() == pytest.approx(1.0) and found.weights.min() >= 0
    assert found.weights[world.pool.label == 0].sum() == pytest.approx(20 / 30)
    assert found.weights.max() <= 1 / 30 + 1e-12
    assert 30 - 1e-6 <= found.ess <= 100
    assert 0 <= found.duality_gap <= 1e-6


def test_the_selection_prefers_what_is_like_the_real_rows(world: World) -> None:
    found = world.align((20, 10))
    assert found.copies[world.good].sum() >= 25


def test_aligned_is_nearer_than_raw_on_a_mixture(world: World) -> None:
    found = world.align((20, 10))
    assert found.score is not None
    assert found.score.aligned < 0.5 * found.score.raw
    assert found.score.floor_mean < found.score.raw and found.score.floor_mean < found.score.floor_quantile
    for score in found.per_label.values():
        assert score.aligned < score.raw
    assert found.score.n_eq_raw is not None
    assert found.score.n_eq_aligned is None or found.score.n_eq_aligned > found.score.n_eq_raw


def test_a_short_label_gives_what_it_has(world: World) -> None:
    found = world.align((70, 10))
    assert per_label(found.copies, world.pool) == [60, 10]
    assert (found.copies[world.pool.label == 0] == 1).all()


def test_more_copies_fill_a_short_label(world: World) -> None:
    found = world.align((70, 10), max_copies=2)
    assert per_label(found.copies, world.pool) == [70, 10]
    assert found.copies.max() == 2


def test_a_label_missing_in_the_pool_counts_as_missing_mass() -> None:
    world = World()
    only_first = world.pool.of(0)
    found = world.align((20, 10), pool=only_first)
    assert per_label(found.copies, only_first) == [20, 0]
    assert found.score is not None and set(found.per_label) == {0}
    assert found.p_value is None
    both = world.align((20, 10)).score
    assert both is not None and found.score.aligned > both.aligned + 0.05
    # Everything real of the missing label is missing.
    assert (found.witness[world.reference.label == 1] > 0.1).all()


def test_a_label_with_a_quota_of_nothing_is_left_out(world: World) -> None:
    found = world.align((20, 0))
    assert per_label(found.copies, world.pool) == [20, 0] and set(found.per_label) == {0}


def test_an_empty_pool_has_no_score(world: World) -> None:
    found = world.align(pool=Rows(np.empty((0, D)), np.empty(0, dtype=np.int64)))
    assert found.score is None and found.per_label == {} and found.p_value is None
    assert len(found.weights) == len(found.copies) == 0 and found.ess == 0.0
    assert len(found.witness) == len(world.reference.X) and (found.witness > 0).all()


def draws(rows: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    return rows[rng.choice(len(rows), n, replace=False)]


@pytest.mark.parametrize("quotas", [(20, 10), (60, 10), (5, 1), (1, 1), (20, 40)])
def test_raw_is_the_mean_over_random_selections(world: World, quotas: tuple[int, int]) -> None:
    found = world.align(quotas)
    assert found.score is not None
    rng = np.random.default_rng(5)
    masses = world.prior[world.scoring.label] / np.bincount(world.scoring.label)[world.scoring.label]
    scores = [
        mmd2_to_population(
            np.concatenate([draws(world.pool.of(label).X, n, rng) for label, n in enumerate(quotas)]),
            world.scoring.X, KERNEL, real_weights=masses, real_strata=world.scoring.label,
        )
        for _ in range(400)
    ]  # fmt: skip
    error = float(np.std(scores) / np.sqrt(len(scores)))
    assert found.score.raw == pytest.approx(float(np.mean(scores)), abs=4 * error + 1e-9)


def test_raw_of_each_label_is_the_mean_over_random_selections(world: World) -> None:
    quotas = (20, 1)
    found = world.align(quotas)
    rng = np.random.default_rng(6)
    for label, n in enumerate(quotas):
        pool, scoring = world.pool.of(label).X, world.scoring.of(label).X
        scores = [mmd2_to_population(draws(pool, n, rng), scoring, KERNEL) for _ in range(400)]
        error = float(np.std(scores) / np.sqrt(len(scores)))
        assert found.per_label[label].raw == pytest.approx(float(np.mean(scores)), abs=4 * error)


def test_a_pool_like_the_real_rows_scores_the_floor() -> None:
    rng = np.random.default_rng(3)
    real, pool = around([1.0], 200, rng), around([1.0], 300, rng)
    world = World()
    found = world.align(
        (25,), pool=labelled(pool), reference=labelled(real[:100]), scoring=labelled(real[100:]),
        population=labelled(real), prior=np.ones(1),
    )  # fmt: skip
    assert found.score is not None
    # (1 - E k) / n: what n real rows score on average.
    expected = (1 - mean_kernel(real, KERNEL)) / 25
    assert found.score.floor_mean == pytest.approx(expected, rel=0.15)
    assert found.score.raw == pytest.approx(expected, rel=0.15)
    assert found.score.n_eq_raw == pytest.approx(25, rel=0.15)


def test_the_floor_of_two_labels_is_the_sum_over_labels(world: World) -> None:
    found = world.align((20, 10))
    assert found.score is not None
    expected = sum(
        world.prior[label] ** 2 * (1 - mean_kernel(world.population.of(label).X, KERNEL)) / n
        for label, n in enumerate((20, 10))
    )
    assert found.score.floor_mean == pytest.approx(expected, rel=0.15)


def test_a_p_value_needs_a_hold_out_and_distinct_rows(world: World) -> None:
    assert world.align(scoring_is_held_out=False).p_value is None
    assert world.align((70, 10), max_copies=2).p_value is None
    found = world.align((60, 40))
    assert found.p_value is not None and found.p_value < 0.01  # half of the whole pool is elsewhere


def test_a_good_selection_is_not_told_apart_from_real_rows(world: World) -> None:
    found = world.align((20, 10))
    assert found.p_value is not None and found.p_value > 0.05


def test_the_witness_is_positive_where_a_mode_is_missing() -> None:
    rng = np.random.default_rng(4)
    present, missing = around([1.0], 40, rng), around([0, 0, 1.0], 40, rng)
    real = labelled(np.concatenate([present, missing]))
    found = World().align(
        (30,), pool=labelled(around([1.0], 60, rng)), reference=real, scoring=real, population=real, prior=np.ones(1),
        scoring_is_held_out=False,
    )  # fmt: skip
    assert (found.witness[40:] > 0).all()
    assert found.witness[40:].mean() > 0.1 and found.witness[:40].mean() < 0


def test_the_same_random_numbers_give_the_same_answer(world: World) -> None:
    one, two = world.align(seed=9), world.align(seed=9)
    assert (one.copies == two.copies).all() and (one.weights == two.weights).all()
    assert (one.witness == two.witness).all()
    assert (one.score, one.per_label, one.p_value) == (two.score, two.per_label, two.p_value)


def test_the_order_of_the_real_rows_does_not_matter(world: World) -> None:
    rng = np.random.default_rng(8)
    one = world.align()
    two = world.align(reference=shuffled(world.reference, rng), scoring=shuffled(world.scoring, rng))
    assert one.weights == pytest.approx(two.weights, abs=1e-4)
    assert one.score is not None and two.score is not None
    assert one.score.raw == pytest.approx(two.score.raw, rel=1e-9)


def test_the_inputs_are_not_changed(world: World) -> None:
    before = [part.X.copy() for part in (world.pool, world.reference, world.scoring, world.population)]
    world.align()
    after = [part.X for part in (world.pool, world.reference, world.scoring, world.population)]
    assert all((old == new).all() for old, new in zip(before, after, strict=True))


def test_without_a_pool_the_witness_is_what_an_empty_selection_misses(world: World) -> None:
    empty = Rows(np.empty((0, D)), np.empty(0, dtype=np.int64))
    found = world.align(pool=empty)
    first = world.reference.of(0).X
    assert found.witness[world.reference.label == 0] == pytest.approx(KERNEL(first, first).mean(axis=1))


def test_what_tells_labels_apart_is_followed_as_far_as_it_is_believed(world: World) -> None:
    shrunk, followed = world.align(), world.align(contrast_shrinkage=False)
    assert shrunk.contrast_kept is not None and 0.0 < shrunk.contrast_kept < 1.0
    assert followed.contrast_kept is None
    assert not np.allclose(shrunk.weights, followed.weights)
    assert world.align(objective="herding").contrast_kept is None
    assert world.align((20, 0)).contrast_kept is None


def test_rows_of_another_label_are_left_out_while_enough_are_left(world: World) -> None:
    swapped = world.pool.label.copy()
    wrong = np.flatnonzero(world.good & (world.pool.label == 1))[:5]
    swapped[wrong] = 0
    pool = Rows(world.pool.X, swapped)
    found = world.align(pool=pool)
    assert found.doubtful[wrong].all() and not found.copies[wrong].any() and not found.weights[wrong].any()
    assert not world.align(pool=pool, max_label_odds=None).doubtful.any()
    everything = (int((swapped == 0).sum()), int((swapped == 1).sum()))
    assert per_label(world.align(everything, pool=pool).copies, pool) == list(everything)
    with pytest.raises(InputError, match="max_label_odds"):
        world.align(max_label_odds=0.5)
