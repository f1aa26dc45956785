from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synalign_agent.core.alignment import Rows
from synalign_agent.core.arrays import FloatArray, unit_rows
from synalign_agent.core.gap_map import Gap, gap_map, region_count
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.errors import InputError

KERNEL = RBFMixture((0.5, 1.0))
AXES = np.eye(5)


def around(axis: int, n: int, rng: np.random.Generator) -> FloatArray:
    return np.asarray(unit_rows(AXES[axis] + 0.1 * rng.normal(size=(n, 5))), dtype=np.float64)


def rows(*parts: FloatArray, label: int = 0) -> Rows:
    X = np.concatenate(parts)
    return Rows(X, np.full(len(X), label))


def both(one: Rows, two: Rows) -> Rows:
    return Rows(np.concatenate([one.X, two.X]), np.concatenate([one.label, two.label]))


class World:
    """Real rows in three bunches of 50, 30 and 20 %; the selection has 80, 20 and none, the pool a few of the last."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.reference = rows(around(0, 50, rng), around(1, 30, rng), around(2, 20, rng))
        self.scoring = rows(around(0, 100, rng), around(1, 60, rng), around(2, 40, rng))
        self.pool = rows(around(0, 100, rng), around(1, 90, rng), around(2, 10, rng))
        self.copies = np.zeros(200, dtype=int)
        self.copies[:80] = 1
        self.copies[100:120] = 1
        self.centres = [0, 50, 80]

    def gaps(self, **changes: Any) -> list[Gap]:
        given: dict[str, Any] = {**vars(self), "prior": np.ones(1), **changes}
        parts = [given.pop(name) for name in ("reference", "scoring", "pool", "copies", "centres")]
        return gap_map(*parts, KERNEL, **given)


def naive_witness(x: FloatArray, others: FloatArray, selected: FloatArray, share: float) -> float:
    real = [float(KERNEL(x[None], other[None])[0, 0]) for other in others]
    synthetic = [float(KERNEL(x[None], other[None])[0, 0]) for other in selected]
    return float(np.mean(real)) - share * sum(synthetic)


def test_the_bunch_that_was_not_selected_is_found_with_its_shares() -> None:
    world = World()
    first, *rest = world.gaps()
    assert (first.label, first.size, first.mass) == (0, 40, pytest.approx(0.2))
    assert (first.synthetic_mass, first.pool_mass) == (0.0, pytest.approx(0.05))
    assert first.examples[0] == 80 and set(first.examples) <= set(range(80, 100))
    assert all(gap.examples[0] != 0 for gap in rest)  # the bunch with too many is no gap


def test_witness_is_that_of_a_double_loop_without_the_row_itself() -> None:
    world = World()
    X, selected = world.scoring.X, world.pool.X[world.copies > 0]
    expected = np.mean([naive_witness(X[row], np.delete(X, row, axis=0), selected, 1 / 100) for row in range(160, 200)])
    assert world.gaps()[0].witness == pytest.approx(float(expected), abs=1e-12)


def test_z_is_that_of_two_binomial_shares() -> None:
    pooled = (0.2 * 200 + 0.0 * 100) / 300
    expected = 0.2 / np.sqrt(pooled * (1 - pooled) * (1 / 200 + 1 / 100))
    assert World().gaps()[0].z == pytest.approx(float(expected))


def test_copies_count_as_often_as_they_are_there() -> None:
    world = World()
    doubled = np.concatenate([world.pool.X, world.pool.X[world.copies > 0]])
    repeated = world.gaps(
        pool=Rows(doubled, np.zeros(len(doubled), dtype=int)), copies=np.concatenate([world.copies, np.ones(100, dtype=int)])
    )  # fmt: skip
    twice = world.gaps(copies=2 * world.copies)
    assert [gap.examples for gap in twice] == [gap.examples for gap in repeated]
    for one, two in zip(twice, repeated, strict=True):
        assert (one.mass, one.synthetic_mass, one.z) == pytest.approx((two.mass, two.synthetic_mass, two.z))
        assert one.witness == pytest.approx(two.witness, abs=1e-12)


def test_real_rows_of_one_population_leave_few_gaps() -> None:
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(20):
        X = np.asarray(unit_rows(rng.normal(size=(900, 5))), dtype=np.float64)
        reference, scoring, pool = (rows(X[at : at + 300]) for at in (0, 300, 600))
        centres = rng.choice(300, 20, replace=False)
        found += len(
            gap_map(reference, scoring, pool, np.ones(300, dtype=int), centres, KERNEL, prior=np.ones(1), max_gaps=20)
        )
    assert found <= 0.05 * 20 * 20  # one-sided at 2 standard errors: 2.3 %


def test_a_label_without_synthetic_rows_is_missing_everywhere() -> None:
    world = World()
    rng = np.random.default_rng(2)
    reference = both(world.reference, rows(around(3, 20, rng), label=1))
    scoring = both(world.scoring, rows(around(3, 40, rng), label=1))
    found = world.gaps(reference=reference, scoring=scoring, centres=[*world.centres, 100], prior=np.array([0.7, 0.3]))
    missing = [gap for gap in found if gap.label == 1]
    assert [(gap.size, gap.mass, gap.synthetic_mass) for gap in missing] == [(40, pytest.approx(0.3), 0.0)]
    assert set(missing[0].examples) <= set(range(100, 120))
    other = next(gap for gap in found if gap.label == 0 and gap.synthetic_mass == 0)
    assert other.mass == pytest.approx(0.7 * 0.2)  # masses are of all real rows


def test_same_texts_under_another_label_do_not_fill_a_gap() -> None:
    world = World()
    reference = both(world.reference, Rows(world.reference.X, np.ones(100, dtype=int)))
    scoring = both(world.scoring, Rows(world.scoring.X, np.ones(200, dtype=int)))
    found = world.gaps(
        reference=reference, scoring=scoring, centres=[*world.centres, 100, 150, 180], prior=np.array([0.5, 0.5])
    )
    assert sum(gap.mass for gap in found if gap.label == 1) == pytest.approx(0.5)


def test_an_empty_selection_and_an_empty_pool_miss_everything() -> None:
    world = World()
    for changes in (
        {"copies": np.zeros(200, dtype=int)},
        {"pool": Rows(np.empty((0, 5)), np.empty(0, dtype=int)), "copies": np.zeros(0, dtype=int)},
    ):
        found = world.gaps(**changes)
        assert sum(gap.mass for gap in found) == pytest.approx(1.0)


def test_limits_are_kept_and_order_is_by_missing_mass_times_witness() -> None:
    world = World()
    empty = np.zeros(200, dtype=int)
    found = world.gaps(copies=empty, n_examples=1)
    worth = [(gap.mass - gap.synthetic_mass) * gap.witness for gap in found]
    assert worth == sorted(worth, reverse=True) and len(found) == 3
    assert [gap.examples for gap in found] == [(0,), (50,), (80,)]
    assert world.gaps(copies=empty, max_gaps=2, n_examples=1) == found[:2]
    assert world.gaps(copies=empty, min_z=1e9) == []


def test_single_precision_gives_the_same_gaps() -> None:
    world = World()
    parts = {name: getattr(world, name) for name in ("reference", "scoring", "pool")}
    single = {name: Rows(part.X.astype(np.float32), part.label) for name, part in parts.items()}
    for one, two in zip(world.gaps(), world.gaps(**single), strict=True):
        assert (one.examples, one.size) == (two.examples, two.size)
        assert one.witness == pytest.approx(two.witness, abs=1e-6)


def test_a_single_scoring_row_is_no_gap() -> None:
    world = World()
    assert world.gaps(scoring=rows(world.scoring.X[:1])) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"copies": np.ones(3, dtype=int)}, "copies"),
        ({"copies": -np.ones(200, dtype=int)}, "copies"),
        ({"centres": [100]}, "centres"),
        ({"centres": []}, "no centre"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        World().gaps(**changes)


@pytest.mark.parametrize(("n", "expected"), [(0, 1), (9, 1), (20, 2), (319, 31), (10**6, 32)])
def test_regions_hold_about_ten_rows(n: int, expected: int) -> None:
    assert region_count(n) == expected
