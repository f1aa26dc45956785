"""Scores agree with scikit-learn's; fine-tuning learns, goes on after a kill, and does not take results of another plan."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

pytest.importorskip("evals.classifiers", reason="the evals are not part of the source distribution")
from evals.classifiers import finetune, logistic
from evals.classifiers.finetune import Job, Plan, Recipe, carry_out, finished
from evals.classifiers.quality import accuracy, expected_calibration_error, macro_f1

TEXTS = ["red red apple", "red cherry", "blue sea", "blue blue sky"] * 4
LABELS = [0, 0, 1, 1] * 4
RECIPE = Recipe(n_steps=12, batch_size=8, learning_rate=3e-3, max_tokens=8)


def plan_of(*jobs: Job, recipe: Recipe = RECIPE) -> Plan:
    return Plan(2, TEXTS, ["red sky apple", "blue blue sea"], [0, 1], recipe, list(jobs))


def job(id: str, *, flipped: bool = False, seed: int = 0, weights: list[float] | None = None) -> Job:
    labels = [1 - label for label in LABELS] if flipped else LABELS
    return Job(id, list(range(len(TEXTS))), labels, weights or [1.0] * len(TEXTS), seed)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of two layers of 16 dimensions that knows a few words."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "apple", "cherry", "sea", "sky"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


def test_macro_f1_and_accuracy_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), size=200), rng.integers(3, size=200)
    given = probabilities.argmax(axis=1)
    expected = f1_score(labels, given, labels=range(4), average="macro", zero_division=0.0)
    assert macro_f1(probabilities, labels) == pytest.approx(expected)
    assert accuracy(probabilities, labels) == pytest.approx((given == labels).mean())


def test_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    sure = np.tile([0.9, 0.1], (10, 1))
    assert expected_calibration_error(sure, np.zeros(10, dtype=np.int64)) == pytest.approx(0.1)
    assert expected_calibration_error(sure, np.array([0] * 9 + [1])) == pytest.approx(0.0)
    # Gaps of both signs in different bins do not cancel.
    both = np.array([[0.9, 0.1]] * 5 + [[0.6, 0.4]] * 5)
    assert expected_calibration_error(both, np.array([1] * 5 + [0] * 5)) == pytest.approx(0.5 * 0.9 + 0.5 * 0.4)


def test_logistic_regression_takes_weights_and_labels_that_are_missing() -> None:
    X, labels = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([0, 2, 2])
    first, third = (
        logistic.predict(X, labels, np.array(weights), X[:1], 3) for weights in ([9.0, 1.0, 1.0], [1.0, 9.0, 1.0])
    )
    assert first.argmax() == 0 and third.argmax() == 2
    assert first[0, 1] == 0.0 and first.sum() == pytest.approx(1.0)


def test_fine_tuning_learns_labels_and_weights(model: str, tmp_path: Path) -> None:
    only_red = [1.0 if label == 0 else 0.0 for label in LABELS]
    jobs = (job("straight"), job("flipped", flipped=True), job("weighted", weights=only_red))
    found = carry_out(plan_of(*jobs), tmp_path / "out.json", model, "cpu")
    assert found["straight"]["accuracy"] == 1.0
    assert found["flipped"]["accuracy"] == 0.0
    assert found["weighted"]["accuracy"] == 0.5  # Everything is red: nothing else weighs.


def test_frozen_layers_stay_and_jobs_start_from_the_same_weights(model: str) -> None:
    plan = plan_of(recipe=replace(RECIPE, n_trained_layers=1))
    trainer = finetune.Trainer(plan, model, "cpu")
    before = {name: value.clone() for name, value in trainer._encoder.state_dict().items()}
    first = trainer.train(job("a"))
    after = trainer._encoder.state_dict()
    moved = {name for name, value in before.items() if not bool((value == after[name]).all())}
    assert moved and all(".layer.1." in name for name in moved)
    np.testing.assert_array_equal(first, trainer.train(job("a")))


def test_a_second_run_trains_what_is_missing_or_changed(model: str, tmp_path: Path) -> None:
    output, told = tmp_path / "out.json", []
    first = carry_out(plan_of(job("a"), job("b")), output, model, "cpu")
    plan = plan_of(job("a"), job("b", seed=1), job("c"))
    assert set(finished(plan, output)) == {"a"}
    second = carry_out(plan, output, model, "cpu", lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert second["a"] == first["a"]
    assert finished(plan_of(job("a"), recipe=replace(RECIPE, n_steps=2)), output) == {}


def test_batches_show_every_row_once_an_epoch() -> None:
    recipe = replace(RECIPE, n_steps=5, batch_size=4)
    places = [place for batch in finetune._batches(10, recipe, np.random.default_rng(0)) for place in batch]
    assert sorted(places[:10]) == sorted(places[10:]) == list(range(10))


def test_the_rate_rises_and_falls_to_nearly_nothing() -> None:
    rates = [finetune._rate(step, 20) for step in range(20)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[-1] == pytest.approx(1 / 18)
    assert rates[2:] == sorted(rates[2:], reverse=True)


@pytest.mark.slow
def test_it_runs_without_the_product(model: str, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan_of(job("a")).save(plan)
    assert Plan.load(plan) == plan_of(job("a"))
    script = (
        "import runpy, sys; sys.modules['synalign_agent'] = None; sys.argv = ['finetune', *sys.argv[1:]]; "
        "runpy.run_module('evals.classifiers.finetune', run_name='__main__')"
    )
    arguments = ["--plan", str(plan), "--output", str(tmp_path / "out.json"), "--model", model, "--device", "cpu"]
    root = Path(finetune.__file__).parents[2]
    done: Any = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["jobs"]["a"]["accuracy"] == 1.0
