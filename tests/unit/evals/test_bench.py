"""The benchmark measures what it says: competitors solve the same problem, ratios and fits are right, cut runs say so."""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("evals.bench", reason="the evals are not part of the source distribution")
with warnings.catch_warnings():
    # GPyTorch still compiles with torch.jit.script, which torch deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import gpytorch  # noqa: F401  # the competitors import it when they run

from evals import machine
from evals.bench import competitors_alignment, competitors_selection, measure, plan, plot, rows, table, targets
from evals.bench.spec import OURS, Spec

SELECTION = Spec("selection", n=200, n_picks=12, lengthscale=0.7)
ALIGNMENT = Spec("alignment", n=300, m=600, lengthscale=1.0)
NEVER = float("inf")


def sphere(n: int, d: int = 8, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(n, d))
    drawn[:, 0] += shift
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("method", ["refit", "gpytorch", "linear_operator", "full_pass"])
def test_variance_competitors_pick_what_we_pick(method: str) -> None:
    X = sphere(SELECTION.n)
    picks = [competitors_selection.METHODS[name].run(X, SELECTION, NEVER) for name in (OURS, method)]
    assert picks[0].tolist() == picks[1].tolist()


def test_farthest_point_maximises_the_distance_to_all_picks() -> None:
    X = sphere(60).astype(np.float64)
    picks = competitors_selection.farthest_point(X, replace(SELECTION, n=60, n_picks=8), NEVER).tolist()
    for t in range(1, len(picks)):
        nearest = np.linalg.norm(X[:, None] - X[picks[:t]][None], axis=2).min(axis=1)
        assert nearest[picks[t]] == pytest.approx(nearest.max(), rel=1e-12)


@pytest.mark.parametrize("cap_times_m", [None, 3.0])
def test_dense_fista_and_ours_agree(cap_times_m: float | None) -> None:
    spec = replace(ALIGNMENT, cap_times_m=cap_times_m)
    syn, real = sphere(spec.m, seed=1), sphere(spec.n, seed=2, shift=1.0)
    found = [competitors_alignment.METHODS[name].run(syn, real, spec, NEVER) for name in (OURS, "fista_1000")]
    scores = [measure.score_weights(syn, real, sphere(200, seed=3, shift=1.0), weights, spec) for weights in found]
    assert all(score["gap"] <= 1.2e-6 for score in scores)
    assert scores[0]["objective"] == pytest.approx(scores[1]["objective"], abs=1.2e-6)
    assert all(weights.w.max() <= spec.cap * (1 + 1e-9) for weights in found)


@pytest.mark.parametrize("method", ["adam", "projection", "herding", "uniform"])
def test_no_competitor_is_below_the_optimum(method: str) -> None:
    syn, real = sphere(ALIGNMENT.m, seed=1), sphere(ALIGNMENT.n, seed=2, shift=1.0)
    found = competitors_alignment.METHODS[method].run(syn, real, ALIGNMENT, NEVER)
    best = competitors_alignment.ours(syn, real, ALIGNMENT, NEVER)
    scores = [measure.score_weights(syn, real, None, weights, ALIGNMENT) for weights in (found, best)]
    assert scores[0]["objective"] >= scores[1]["objective"] - 1e-6
    assert scores[0]["gap"] >= scores[0]["objective"] - scores[1]["objective"] - 1e-9
    assert found.w.sum() == pytest.approx(1.0)


def test_a_deadline_cuts_and_says_so() -> None:
    X = sphere(SELECTION.n)
    assert len(competitors_selection.refit(X, SELECTION, time.perf_counter())) < SELECTION.n_picks
    assert len(competitors_selection.full_pass_cholesky(X, SELECTION, time.perf_counter())) < SELECTION.n_picks
    late = competitors_alignment.fista(sphere(600), X, ALIGNMENT, time.perf_counter(), n_iterations=1000)
    assert not late.is_finished or late.own_gap <= ALIGNMENT.tolerance


def test_one_measurement_is_complete() -> None:
    held_out = sphere(100, seed=3)
    result, w = measure.run_here(ALIGNMENT, sphere(ALIGNMENT.n), sphere(ALIGNMENT.m, seed=1), held_out)
    assert w.shape == (ALIGNMENT.m,) and result["is_finished"]
    assert {"seconds", "cpu_seconds", "others_cores", "peak_memory_mb", "gap", "ess", "mmd2_held_out"} <= result.keys()
    assert json.loads(json.dumps(result)) == result


def test_a_missing_library_is_a_reason_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'clarabel'", name="clarabel")

    method = replace(competitors_alignment.METHODS["clarabel"], run=absent)
    monkeypatch.setitem(competitors_alignment.METHODS, "clarabel", method)
    result, _ = measure.run_here(replace(ALIGNMENT, method="clarabel"), sphere(300), sphere(600), sphere(9))
    assert result["not_run"].startswith("clarabel is not installed")


def test_too_large_for_memory_is_not_tried(tmp_path: Path) -> None:
    spec = replace(ALIGNMENT, method="fista_300", m=10_000_000)
    assert "GB of memory" in measure.run_apart(spec, tmp_path, "")["not_run"]


def test_busy_seconds_include_this_process() -> None:
    if machine.busy_seconds() == 0.0:
        pytest.skip("this system does not say")
    before, until = machine.busy_seconds(), time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert machine.busy_seconds() - before >= 0.15


def test_rows_beyond_the_base_are_a_bootstrap(tmp_path: Path) -> None:
    base = sphere(50)
    np.save(tmp_path / "real.npy", base)
    rows.write_rows(tmp_path / "real-bootstrap.npy", base, 120, seed=0)
    assert np.array_equal(rows.read_rows(measure.rows_path(tmp_path, "real", 50), 50), base)
    more = rows.read_rows(measure.rows_path(tmp_path, "real", 120), 120)
    assert np.linalg.norm(more, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert measure.is_bootstrap(tmp_path, "real", 51) and not measure.is_bootstrap(tmp_path, "real", 50)


@pytest.mark.parametrize("chosen", [plan.FULL, plan.QUICK])
def test_every_problem_has_ours_first_and_every_key_once(chosen: plan.Plan) -> None:
    found = plan.specs(chosen, SELECTION, ALIGNMENT, 5.0)
    assert len({spec.key for spec in found}) == len(found)
    first = {}
    for spec in found:
        first.setdefault(spec.problem, spec.method)
    assert set(first.values()) == {OURS}


def test_targets_name_measurements_of_the_full_plan() -> None:
    keys = {spec.key for spec in plan.specs(plan.FULL, SELECTION, ALIGNMENT, 5.0)}
    for target in targets.TARGETS:
        assert f"{target.problem} {target.against or OURS}" in keys


def test_fit_recovers_the_exponent() -> None:
    specs = [replace(SELECTION, n=n) for n in (100, 1000, 5000)]
    results = {
        spec.key: {"is_finished": True, "seconds": 3e-6 * spec.n**1.5, "cpu_seconds": 1.0, "peak_memory_mb": 80.0}
        for spec in specs
    }
    results[specs[-1].key]["is_finished"] = False
    line = plot.fit_exponents(specs, results)[OURS]
    assert line["sizes"] == [100, 1000]
    assert line["seconds"]["exponent"] == pytest.approx(1.5)
    assert line["seconds"]["factor"] == pytest.approx(3e-6)
    assert line["cpu_seconds"]["exponent"] == pytest.approx(0.0, abs=1e-12)


def test_the_table_has_ratios_and_marks_what_was_cut() -> None:
    ours = replace(SELECTION, n=7000, n_picks=100)
    cost = {"cpu_seconds": 1.0, "others_cores": 0.0, "peak_memory_mb": 80.0, "mean_variance": 0.5, "max_variance": 0.6}
    results = {
        ours.key: cost | {"seconds": 0.5, "n_done": 100, "is_finished": True, "same_picks": 1.0},
        f"{ours.problem} refit": cost | {"seconds": 20.0, "n_done": 50, "is_finished": False, "same_picks": 1.0},
        f"{ours.problem} gpytorch": {"not_run": "over 120 s", "over_seconds": 120.0},
        f"{ours.problem} full_pass": {"not_run": "failed"},
    }
    report = {
        "machine": {
            "cores": 2, "processor": "P", "memory_gb": 8, "speeds": {"read_gb_per_s": 10.0, "gemm_gflop_per_s": 100.0}
        },
        "base_rows": {"real": 9000, "synthetic": 9000, "held_out": 900}, "data": "D", "dimensions": 8,
    }  # fmt: skip
    specs = [replace(ours, method=method) for method in (OURS, "refit", "gpytorch", "full_pass")]
    text = table.markdown(specs, results, report)
    assert "| 20 for 50 of 100 picks | ≥ 40 |" in text
    assert "| over 120 s | ≥ 240 |" in text
    assert "| ≥ 200 × faster than refit | ≥ 40 × | ≥ 1 × | no |" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| ") and "picks" not in line[:9]}
    assert len(widths) == 2, "the targets and the problem: every row is as wide as its header"


def test_growth_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    line = {"label": "ours", "sizes": [10, 100], "seconds": {"values": [1.0, 2.0], "exponent": 0.3, "factor": 0.5}}
    line["peak_memory_mb"] = line["seconds"]
    plot.draw({"rows n": {OURS: line}}, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 1000
