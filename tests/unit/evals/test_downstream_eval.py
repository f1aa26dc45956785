"""Training sets are what their names say; the downstream eval goes from files to table and picture on a tiny benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("evals.downstream", reason="the evals are not part of the source distribution")
from evals import downstream, training_sets
from evals.classifiers.finetune import Plan
from evals.datasets import load_benchmark
from evals.methods.base import product_kernel
from evals.output import markdown
from evals.results import EvalResult, matching
from evals.training_sets import ALIGNED, LABELS, Source, align, draw_real, training_set
from synalign_agent.core.mmd import mmd2_biased
from synalign_agent.errors import InputError

SETTINGS = downstream.Settings(
    datasets=("tiny",), real_per_label=("0", "3", "all"), n_synthetic=(20,), n_seeds=2, finetune="plan",
    tuned_real_per_label=("3",), tuned_n_synthetic=(20,), tuned_references=("all",), n_tuned_seeds=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def source(shared_data_dir: Path, word_encoder: Any) -> Source:
    benchmark = load_benchmark("tiny", shared_data_dir)
    return Source(benchmark, *(word_encoder.encode(part.texts) for part in (benchmark.ref, benchmark.pool)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


@pytest.fixture(scope="module")
def result(shared_data_dir: Path, word_encoder: Any, folder: Path) -> EvalResult:
    with pytest.MonkeyPatch.context() as patched:
        for module in ("embeddings", "downstream"):
            patched.setattr(f"evals.{module}.default_encoder", lambda: word_encoder)
        patched.setattr("evals.downstream.cache_folder", lambda: folder)
        return downstream.run(SETTINGS, lambda what, done, total: None, shared_data_dir)


def made(arm: str, source: Source, variant: str = ALIGNED) -> training_sets.TrainingSet:
    real = draw_real(source, 3, np.random.default_rng(0))
    everything = draw_real(source, None, np.random.default_rng(0))
    aligned = align(source, everything, 20, variant, np.random.default_rng(1))
    return training_set(arm, source, real, 0 if arm == "real" else 20, np.random.default_rng(2), aligned)


@pytest.mark.parametrize("arm", LABELS)
def test_a_set_has_the_rows_it_is_named_for(arm: str, source: Source) -> None:
    found = made(arm, source)
    pool = source.benchmark.pool
    assert len(found.weights) == len(found.real) + len(found.synthetic)
    assert found.weights.sum() == pytest.approx(6 if arm == "real" else 26)
    if arm in ("real", "repeated"):
        assert len(found.synthetic) == 0 and set(found.real) == set(draw_real(source, 3, np.random.default_rng(0)))
    elif arm != "loss_weights":
        assert np.bincount(pool.labels[found.synthetic]).tolist() == [10, 10]
        assert len(set(found.synthetic.tolist())) == 20


def test_aligned_rows_are_nearer_to_the_reference_than_random_ones_and_anti_aligned_ones_farther(
    source: Source,
) -> None:
    kernel = product_kernel(source.X_ref)
    distance = {
        arm: mmd2_biased(source.X_pool[made(arm, source).synthetic], source.X_ref, kernel)
        for arm in ("aligned", "raw", "shuffled", "anti_aligned")
    }
    assert distance["aligned"] < 0.8 * min(distance["raw"], distance["shuffled"])
    assert distance["anti_aligned"] > distance["raw"]


def test_rows_under_the_wrong_label_are_left_out_unless_labels_are_taken_as_they_are(source: Source) -> None:
    wrong = source._replace(X_pool=source.X_pool.copy(), X_ref=source.X_ref.copy())
    swapped = np.flatnonzero(source.benchmark.pool.labels == 0)[:40]
    wrong.X_pool[swapped] = source.X_pool[np.flatnonzero(source.benchmark.pool.labels == 1)[:40]]
    # Some reference rows are mislabelled alike, so that weights of least MMD want such rows.
    of_each = [np.flatnonzero(source.benchmark.ref.labels == label) for label in (0, 1)]
    n = len(of_each[0]) // 8
    wrong.X_ref[of_each[0][:n]] = source.X_ref[of_each[1][:n]]
    assert not set(made("aligned", wrong).synthetic) & set(swapped.tolist())
    assert set(made("unchecked", wrong, variant="unchecked").synthetic) & set(swapped.tolist())


def test_every_condition_has_a_value_for_every_seed_or_a_reason(result: EvalResult) -> None:
    scored = matching(result.measurements, "macro_f1", {"classifier": "logistic"})
    # k = 0: random and 6 that are aligned to all; 3: real, repeated, random and 6 aligned to either; all: real, random, 6.
    assert len(scored) == 2 * ((1 + 6) + (3 + 12) + (2 + 6))
    assert all(entry.value is not None for entry in scored)
    planned = matching(result.measurements, "macro_f1", {"classifier": "finetuned"})
    assert {entry.reason for entry in planned} == {"planned, but not trained yet"}
    assert {entry.condition["arm"] for entry in planned} == set(SETTINGS.tuned_arms)


def test_the_plan_trains_on_what_logistic_regression_is_trained_on(result: EvalResult, folder: Path) -> None:
    plan = Plan.load(folder / "finetune" / "tiny.plan.json")
    assert {job.id.split()[0] for job in plan.jobs} == set(SETTINGS.tuned_arms)
    assert all(len(job.rows) == len(job.labels) == len(job.weights) for job in plan.jobs)
    assert len(plan.texts) == len(set(plan.texts))


def test_results_of_a_plan_that_was_carried_out_elsewhere_are_taken(
    result: EvalResult, folder: Path, shared_data_dir: Path, word_encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan.load(folder / "finetune" / "tiny.plan.json")
    from evals.classifiers import finetune

    scores = {"macro_f1": 0.5, "accuracy": 0.5, "ece": 0.1, "seconds": 1.0}
    entries = {job.id: {"job": finetune._digest(finetune.asdict(job)), **scores} for job in plan.jobs}
    output = folder / "finetune" / "tiny.output.json"
    output.write_text(json.dumps({"plan": plan.digest, "device": "elsewhere", "jobs": entries}), encoding="utf-8")
    for module in ("embeddings", "downstream"):
        monkeypatch.setattr(f"evals.{module}.default_encoder", lambda: word_encoder)
    monkeypatch.setattr("evals.downstream.cache_folder", lambda: folder)
    again = downstream.run(SETTINGS, lambda what, done, total: None, shared_data_dir)
    assert {entry.value for entry in matching(again.measurements, "macro_f1", {"classifier": "finetuned"})} == {0.5}
    logistic = [matching(found.measurements, "accuracy", {"classifier": "logistic"}) for found in (result, again)]
    assert logistic[0] == logistic[1]


def test_tables_targets_and_figure(result: EvalResult) -> None:
    text = markdown(downstream, result)
    assert "what 20 aligned rows add to macro-F1" in text and "real rows, repeated" in text
    assert all(is_met is None for _, is_met, _ in downstream.targets(result))  # 5 and 25 rows were not measured.
    drawn = downstream.figure(result)
    assert [axes.get_title() for axes in drawn.axes] == [
        "tiny, logistic regression, 20 synthetic rows",
        "tiny, fine-tuned MiniLM, 20 synthetic rows",
    ]


def test_an_unknown_way_to_fine_tune_is_refused(shared_data_dir: Path) -> None:
    settings = downstream.Settings(finetune="later")
    with pytest.raises(InputError, match="finetune: 'later' is not one of run, plan, none"):
        downstream.run(settings, lambda what, done, total: None, shared_data_dir)


@pytest.mark.parametrize("preset", ["quick", "short", "full"])
def test_presets_exist(preset: str) -> None:
    assert downstream.Settings.preset(preset).n_seeds >= (5 if preset != "quick" else 1)
