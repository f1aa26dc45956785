"""Do classifiers learn more from aligned synthetic rows than from raw ones, or from the real rows alone?

Dataset: k real rows of each label and m synthetic rows. Run: training sets that differ in how the synthetic rows were chosen
(`training_sets.LABELS`), among them controls: the real rows repeated, weights dealt to other rows, the rows least like the
reference. Alignment is fitted to all reference rows, or to the k rows alone, which is what somebody with k rows can do. Scores on
real test rows: macro-F1, accuracy, calibration. A seed draws the k rows and whatever a method draws, the same for all sets.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evals.classifiers import logistic
from evals.classifiers.finetune import Job, Plan, Recipe, carry_out, finished
from evals.classifiers.quality import METRICS
from evals.datasets import SHORT_POOL_ROWS, Benchmark, load_benchmarks, sample_rows
from evals.downstream_view import figure, tables, targets
from evals.embeddings import cache_folder, default_encoder, embed
from evals.results import Condition, EvalResult, Value, start, timed
from evals.training_sets import (
    NEED_REFERENCE,
    RAW,
    REAL,
    REPEATED,
    Aligned,
    Source,
    TrainingSet,
    align,
    alignment_of,
    draw_real,
    training_set,
)
from synalign_agent.core.arrays import Array
from synalign_agent.embedding.encoder import packaged_encoder_dir
from synalign_agent.errors import InputError
from synalign_agent.toolkit.progress import Progress

__all__ = ["Settings", "figure", "run", "tables", "targets"]

NAME = "downstream"
ALL = "all"
LOGISTIC, FINE_TUNED = "logistic", "finetuned"
REFERENCES = ("all", "k")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is varied, and how much of everything is used."""

    datasets: tuple[str, ...] = ("agnews", "sst2")
    real_per_label: tuple[str, ...] = ("0", "5", "25", "100", ALL)
    n_synthetic: tuple[int, ...] = (500, 2000, 8000)
    n_seeds: int = 10
    max_ref: int | None = None
    max_test: int | None = None
    max_pool: int | None = None
    finetune: str = "run"
    """`run`, `none`, or `plan`: write the plans where `plan_folder` says, for another machine, and take what has come back."""
    plan_folder: str = ""
    """Holds DATASET.plan.json and DATASET.output.json; by default a folder of the evals' cache."""
    device: str = "cpu"
    tuned_real_per_label: tuple[str, ...] = ("5", "25", "100")
    tuned_n_synthetic: tuple[int, ...] = (500, 2000)
    tuned_arms: tuple[str, ...] = (REAL, REPEATED, RAW, "aligned", "loss_weights")
    tuned_references: tuple[str, ...] = REFERENCES
    tuned_test_rows: int | None = None
    n_tuned_seeds: int = 5
    n_steps: int = 600
    max_tokens: int = 64
    n_trained_layers: int = 6
    """From the top; 6 are all of the packaged MiniLM, without its token embeddings."""

    @classmethod
    def preset(cls, name: str) -> Settings:
        """Return the settings called quick (a minute), short (eight) or full (hours; fine-tuning wants a GPU)."""
        if name == "quick":
            return cls(
                datasets=("sst2",), real_per_label=("5", "25"), n_synthetic=(200,), n_seeds=2, max_ref=800, max_test=800,
                max_pool=1500, tuned_real_per_label=("5",), tuned_n_synthetic=(200,), tuned_arms=(REAL, RAW, "aligned"),
                tuned_references=("all",), tuned_test_rows=100, n_tuned_seeds=1, n_steps=4, max_tokens=32, n_trained_layers=1,
            )  # fmt: skip
        if name == "short":
            return cls(
                real_per_label=("0", "5", "25"), n_synthetic=(2000,), n_seeds=5, max_pool=SHORT_POOL_ROWS,
                tuned_real_per_label=("5",), tuned_n_synthetic=(500,),
                tuned_arms=(REAL, RAW, "aligned"), tuned_references=("all",), tuned_test_rows=500, n_tuned_seeds=3, n_steps=40,
                max_tokens=32, n_trained_layers=2,
            )  # fmt: skip
        return cls()


class _Task(NamedTuple):
    """A training set to make."""

    k: str
    m: int
    arm: str
    reference: str
    """What alignment is fitted to; empty where nothing is."""
    seed: int

    def condition(self, dataset: str, classifier: str) -> Condition:
        found: dict[str, Value] = {
            "dataset": dataset,
            "classifier": classifier,
            "arm": self.arm,
            "k": self.k,
            "m": self.m,
        }
        return found | {"reference": self.reference} if self.reference else found


def run(settings: Settings, progress: Progress, data_dir: Path | None = None) -> EvalResult:
    """Run the eval.

    Args:
        settings: what to vary.
        progress: told (description, done, total).
        data_dir: see `datasets.load_benchmark`.

    Raises:
        InputError: the data are missing or too few.
    """
    if settings.finetune not in ("run", "plan", "none"):
        raise InputError(f"finetune: {settings.finetune!r} is not one of run, plan, none")
    started = time.perf_counter()
    benchmarks = load_benchmarks(
        settings.datasets, data_dir, ref=settings.max_ref, test=settings.max_test, pool=settings.max_pool
    )
    # Where the plans lie changes nothing, and is nobody's business.
    public = replace(settings, plan_folder="")
    result = start(NAME, public, {b.name: b.digest for b in benchmarks}, range(settings.n_seeds))
    result.details = {"encoder": default_encoder().model_id}
    for benchmark in benchmarks:
        name = benchmark.name
        X_ref = embed(benchmark.ref, f"{name} ref", progress)
        X_test = embed(benchmark.test, f"{name} test", progress)
        sets = TrainingSets(Source(benchmark, X_ref, embed(benchmark.pool, f"{name} pool", progress)))
        tasks = list(_tasks(settings.real_per_label, settings.n_synthetic, settings.n_seeds))
        for done, task in enumerate(tasks):
            progress(f"{name}: logistic regression", done, len(tasks))
            _score_logistic(result, sets, task, X_test)
        progress(f"{name}: logistic regression", len(tasks), len(tasks))
        if settings.finetune != "none":
            _score_finetuned(result, sets, settings, progress)
    return timed(result, started)


class TrainingSets:
    """Makes training sets, and keeps the alignments that several of them share."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._aligned: dict[tuple[str, str, int, int], Aligned] = {}

    def make(self, task: _Task) -> TrainingSet:
        """Return the training set of a task, the same every time."""
        k = None if task.k == ALL else int(task.k)
        real = draw_real(self.source, k, np.random.default_rng([task.seed, 0]))
        aligned = None
        if task.reference:
            # Of few rows, another reference for every k. One of all rows differs in its draw alone.
            variant = alignment_of(task.arm)
            key = (variant, task.k if task.reference == "k" else ALL, task.m, task.seed)
            if key not in self._aligned:
                rows = real if task.reference == "k" else draw_real(self.source, None, np.random.default_rng(0))
                self._aligned[key] = align(self.source, rows, task.m, variant, np.random.default_rng([task.seed, 1]))
            aligned = self._aligned[key]
        return training_set(task.arm, self.source, real, task.m, np.random.default_rng([task.seed, 2]), aligned)


def _tasks(real_per_label: tuple[str, ...], n_synthetic: tuple[int, ...], n_seeds: int) -> Iterator[_Task]:
    for seed in range(n_seeds):
        for k in real_per_label:
            if k != "0":
                yield _Task(k, 0, REAL, "", seed)
            for m in n_synthetic:
                if k not in ("0", ALL):
                    yield _Task(k, m, REPEATED, "", seed)
                yield _Task(k, m, RAW, "", seed)
                for reference in REFERENCES if k not in ("0", ALL) else ("all",):
                    for arm in NEED_REFERENCE:
                        yield _Task(k, m, arm, reference, seed)


def _score_logistic(result: EvalResult, sets: TrainingSets, task: _Task, X_test: Array) -> None:
    source, made = sets.source, sets.make(task)
    ref, pool, test = source.benchmark.ref, source.benchmark.pool, source.benchmark.test
    probabilities = logistic.predict(
        np.concatenate([source.X_ref[made.real], source.X_pool[made.synthetic]]),
        np.concatenate([ref.labels[made.real], pool.labels[made.synthetic]]),
        made.weights, X_test, source.n_labels,
    )  # fmt: skip
    for name, score in METRICS.items():
        result.add(task.condition(source.benchmark.name, LOGISTIC), name, task.seed, score(probabilities, test.labels))


def _score_finetuned(result: EvalResult, sets: TrainingSets, settings: Settings, progress: Progress) -> None:
    benchmark = sets.source.benchmark
    tasks = [
        task
        for task in _tasks(settings.tuned_real_per_label, settings.tuned_n_synthetic, settings.n_tuned_seeds)
        if task.arm in settings.tuned_arms and task.reference in ("", *settings.tuned_references)
    ]
    plan = make_plan(sets, tasks, settings)
    folder = Path(settings.plan_folder) if settings.plan_folder else cache_folder() / "finetune"
    plan_path, output = folder / f"{benchmark.folder_name}.plan.json", folder / f"{benchmark.folder_name}.output.json"
    plan.save(plan_path)
    if settings.finetune == "run":
        found = carry_out(
            plan, output, str(packaged_encoder_dir()), settings.device,
            lambda done, total: progress(f"{benchmark.name}: fine-tuning", done, total),
        )  # fmt: skip
    else:
        found = finished(plan, output)
    for task, job in zip(tasks, plan.jobs, strict=True):
        condition = task.condition(benchmark.name, FINE_TUNED)
        for name in METRICS:
            value = found[job.id][name] if job.id in found else None
            result.add(condition, name, task.seed, value, None if value is not None else "planned, but not trained yet")


def make_plan(sets: TrainingSets, tasks: list[_Task], settings: Settings) -> Plan:
    """Return what has to be trained, with the texts that it needs and no others."""
    benchmark: Benchmark = sets.source.benchmark
    texts: dict[str, int] = {}
    jobs = []
    for task in tasks:
        made = sets.make(task)
        real, synthetic = benchmark.ref.take(made.real), benchmark.pool.take(made.synthetic)
        rows = [texts.setdefault(text, len(texts)) for text in (*real.texts, *synthetic.texts)]
        labels = [*real.labels.tolist(), *synthetic.labels.tolist()]
        id = " ".join(map(str, (task.arm, task.reference or "-", f"k={task.k}", f"m={task.m}", f"seed={task.seed}")))
        jobs.append(Job(id, rows, labels, [round(weight, 6) for weight in made.weights.tolist()], task.seed))
    test = benchmark.test.take(sample_rows(benchmark.test, settings.tuned_test_rows, seed=0))
    recipe = Recipe(settings.n_steps, max_tokens=settings.max_tokens, n_trained_layers=settings.n_trained_layers)
    return Plan(len(benchmark.label_names), list(texts), test.texts, test.labels.tolist(), recipe, jobs)
