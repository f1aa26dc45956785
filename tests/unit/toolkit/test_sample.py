from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synalign_agent import align, explore
from synalign_agent.core.coverage import radius_coverage
from synalign_agent.data.real import RealData
from synalign_agent.records import RealRow
from synalign_agent.toolkit import align as align_module
from synalign_agent.toolkit import explore as explore_module
from synalign_agent.toolkit.sample import sample

Records = list[dict[str, str]]


@pytest.fixture
def data() -> RealData:
    """90 rows of `a`, of which 30 are held out, and 10 of `b`."""
    rows = [RealRow(str(n), f"text {n}", "ab"[n >= 90], "holdout" if n < 30 else "reference") for n in range(100)]
    return RealData(rows, np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32))


def test_a_sample_keeps_labels_that_are_small_and_draws_from_large_ones(data: RealData) -> None:
    found = sample(data, ~data.held_out, 20, np.random.default_rng(0))
    assert np.bincount(found.rows.label).tolist() == [20, 10]
    assert (np.diff(found.places) > 0).all() and not data.held_out[found.places].any()
    assert (data.X[found.places] == found.rows.X).all() and (found.rows.label == data.codes[found.places]).all()
    other = sample(data, ~data.held_out, 20, np.random.default_rng(1))
    assert found.places.tolist() != other.places.tolist()


def test_a_sample_of_all_is_all_and_scores_like_the_data(data: RealData) -> None:
    found = sample(data, data.scores, 100, np.random.default_rng(0)).rows
    expected = data.scoring()
    assert (found.X == expected.X).all() and (found.label == expected.label).all()


def test_many_real_rows_are_fitted_by_a_sample_whose_cost_is_told(
    real: Records, pool: Records, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"n_samples": 40, "label_column": "label", "encoder": encoder}
    exact = align(real, pool, **options).report
    assert exact["n_fitted"] == 160 and exact["sampling_excess"] == 0.0
    monkeypatch.setattr(align_module, "MAX_REAL_ROWS", 50)
    report = align(real, pool, **options).report
    assert report["n_fitted"] == 100
    # Two labels of half the mass, 50 of 80 rows each, and 1 - E k from the floor of a label, (1 - E k) / 20 rows.
    spread = np.mean([20 * label["mmd2"]["floor"] for label in report["per_label"].values()])
    assert report["sampling_excess"] == pytest.approx(0.5 * (1 / 50 - 1 / 80) * spread, rel=0.15)
    assert report["mmd2"]["aligned"] < report["mmd2"]["raw"]
    known = {row["text"] for row in real}
    assert report["gap_map"] and all(text in known for gap in report["gap_map"] for text in gap["examples"])


def test_coverage_by_chance_is_estimated_on_a_sample(
    real: Records, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"strategy": "random", "encoder": encoder, "lengthscale_factor": 0.3}
    exact = explore(real, 10, **options).report["coverage"]
    monkeypatch.setattr(explore_module, "_MOST_CHANCE_ROWS", 150)
    estimated = explore(real, 10, **options).report["coverage"]
    assert estimated["explored"] == exact["explored"] and 0.1 < exact["random"] < 0.9
    assert estimated["random"] == pytest.approx(exact["random"], abs=0.1)


def test_coverage_by_chance_is_that_of_the_rows_drawn(real: Records, encoder: Any) -> None:
    X = encoder.encode([row["text"] for row in real])
    seed, allowed, radius = 4, np.arange(100), 0.4
    rng = np.random.default_rng([seed, 2])
    expected = np.mean([radius_coverage(X, rng.choice(allowed, 10, replace=False), radius) for _ in range(5)])
    assert explore_module._coverage_by_chance(X, allowed, 10, radius, seed) == pytest.approx(expected, abs=1e-12)
