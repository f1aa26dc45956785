"""Whole sessions of the product, one for each arm of the loop eval, and their distance to rows that no session has seen."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from evals.datasets import Benchmark, Rows, sample_rows
from evals.scorers.held_out import HeldOut
from synalign_agent import Session, SessionConfig, wiring
from synalign_agent.embedding.base import Encoder
from synalign_agent.errors import InputError

TASKS = {"agnews": "news items: a headline and its first sentence", "sst2": "sentences from movie reviews"}
"""Dataset -> what the prompts call its texts."""
NEVER = -1.0
"""A target that no distance reaches, so that every arm spends its budget."""
_REPLIES = "replies.sqlite"
_GATES: dict[str, Any] = {}
"""The product's own."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What is switched on."""

    demonstrations: str
    """`explore.strategy` of the session."""
    attributes: bool
    alignment: bool
    """By kernel weights; off: the texts delivered are drawn at random from the pool."""

    @classmethod
    def parse(cls, name: str) -> Arm:
        """Read `DEMONSTRATIONS[+attributes][+alignment]`.

        Raises:
            InputError: another part is in the name.
        """
        demonstrations, *parts = name.split("+")
        if not set(parts) <= {"attributes", "alignment"}:
            raise InputError(
                f"arm {name!r} should read DEMONSTRATIONS[+attributes][+alignment], as in gp_gap+alignment"
            )
        return cls(demonstrations, "attributes" in parts, "alignment" in parts)

    def __str__(self) -> str:
        parts = {"attributes": self.attributes, "alignment": self.alignment}
        return "+".join([self.demonstrations, *(name for name, is_on in parts.items() if is_on)])


@dataclass(frozen=True, slots=True)
class Effort:
    """What every arm gets alike."""

    max_calls: int
    n_samples: int
    n_ref: int
    """Real rows of a session, over all labels; it holds a fifth of them out itself."""
    clusters_per_label: int
    """In a round."""
    calls_per_cluster: int
    samples_per_call: int


class Point(NamedTuple):
    """What a session would deliver after a round."""

    n_calls: int
    """Finished calls so far, replies from the shared cache included."""
    mmd2: float | None
    """Of the rows chosen, to the test rows; None if there are none."""
    n_pool: int
    n_selected: int


@dataclass(frozen=True, slots=True)
class Model:
    """Who writes."""

    name: str | None
    """GGUF path, or the model's name at `base_url`; None for the packaged SmolLM2."""
    base_url: str | None
    """Of an OpenAI-compatible endpoint; None runs a GGUF file inside this process."""
    concurrency: int | None
    threads: int | None = None
    """Of a GGUF file's model; None for all cores."""

    @property
    def public_name(self) -> str:
        """The name without the folders of this machine."""
        return "SmolLM2-135M-Instruct" if self.name is None else Path(self.name).name


SIZES: dict[str, dict[str, Any]] = {
    "quick": {
        "datasets": ("sst2",), "max_calls": 26, "n_samples": 12, "n_ref": 200, "clusters_per_label": 1, "n_seeds": 1,
    },
    "short": {
        "datasets": ("sst2",), "max_calls": 41, "n_samples": 30, "n_ref": 400, "clusters_per_label": 1, "n_seeds": 2,
    },
    "full": {},
}  # fmt: skip
"""By preset, fields of `SessionSettings` that are not the default: evals with the same ones share their sessions."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Which sessions an eval runs, and who writes."""

    datasets: tuple[str, ...] = ("sst2", "agnews")
    max_calls: int = 240
    """Of an arm."""
    n_samples: int = 100
    """Rows that a session delivers: few of its pool, so that there is something to choose."""
    n_ref: int = 800
    """Real rows of a session, over all labels."""
    max_ref: int | None = None
    """Rows that a session's are drawn from, and that the scale of the kernel is measured on."""
    clusters_per_label: int = 2
    """In a round."""
    calls_per_cluster: int = 3
    samples_per_call: int = 3
    n_seeds: int = 5
    model: str | None = None
    """GGUF file, or the model's name at `base_url`; None is the packaged SmolLM2."""
    base_url: str | None = None
    concurrency: int | None = None
    """Calls at a time (None: by the model's profile)."""
    threads: int | None = None
    """Of a GGUF file's model (None: all cores; 1 where others use them too, because llama.cpp's threads wait for each other)."""

    @property
    def effort(self) -> Effort:
        """Return what every arm gets."""
        return Effort(
            self.max_calls, self.n_samples, self.n_ref, self.clusters_per_label, self.calls_per_cluster, self.samples_per_call
        )  # fmt: skip

    @property
    def writer(self) -> Model:
        """Return who writes."""
        return Model(self.model, self.base_url, self.concurrency, self.threads)

    def public(self) -> Self:
        """Return the settings as they are kept: who wrote, but neither this machine's folders nor its hosts."""
        return replace(self, model=self.writer.public_name, base_url=None, concurrency=None, threads=None)


def n_rounds(arm: Arm, effort: Effort, n_labels: int, *, proposes: bool) -> int:
    """Return the rounds that an arm's calls pay for; rounds may differ by a cluster, and what goes beyond is not scored.

    Args:
        arm: what is switched on.
        effort: the budget and the sizes.
        n_labels: each label has clusters of its own.
        proposes: whether the model is asked for the attribute dimensions, once a session.
    """
    per_cluster = effort.calls_per_cluster + arm.attributes
    calls = effort.max_calls - (arm.attributes and proposes)
    return max(1, math.floor(calls / (n_labels * effort.clusters_per_label * per_cluster)))


def run_session(arm: Arm, benchmark: Benchmark, effort: Effort, model: Model, seed: int, folder: Path) -> Path:
    """Run an arm to the end of its budget, or go on where an earlier run of the eval was stopped.

    Args:
        arm: what is switched on.
        benchmark: whose `ref` rows the session gets, as many of each label as there are.
        effort: the budget and the sizes.
        model: who writes.
        seed: of the session and its rows.
        folder: holds the sessions, their rows and the replies that they share.

    Returns:
        The session's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = benchmark.ref.take(sample_rows(benchmark.ref, effort.n_ref, seed))
    path = _write(
        rows, benchmark, folder / f"{benchmark.folder_name}-{effort.n_ref}-of-{len(benchmark.ref)}-{seed}.jsonl"
    )
    config = SessionConfig.parse(_config(arm, benchmark, effort, model, seed, path, folder))
    proposes = wiring.resolve(config).attributes.propose is not False
    rounds = n_rounds(arm, effort, len(benchmark.label_names), proposes=proposes)
    config = config.with_overrides({"limits.max_rounds": rounds})
    thread_id = f"{benchmark.folder_name}-{arm}-{seed}-{config.fingerprint()}".replace("+", ".")
    with Session.create(config, thread_id=thread_id) as session:
        session.run()
        return session.folder


def curve(session: Path, benchmark: Benchmark, held_out: HeldOut, encoder: Encoder, max_calls: int) -> list[Point]:
    """Return what a session would have delivered after each round within the budget, in order.

    Without alignment that is a random draw, of which the expected distance is returned.
    """
    points: list[Point] = []
    with Session.view(session.name, runs_dir=session.parent) as viewed:
        vectors = wiring.load_data(session, viewed.store, encoder, lambda stage: None).pool_vectors
        place = {id: at for at, id in enumerate(vectors.ids)}
        for metrics in viewed.store.rounds():
            n_calls = int(metrics["calls"]["done"]) + int(metrics["calls"]["failed"])
            if n_calls > max_calls:
                break
            pool = viewed.store.samples(before_round=metrics["round"] + 1)
            chosen = {choice.sample_id: choice.copies for choice in viewed.store.choices(metrics["round"])}
            copies = np.array([chosen.get(sample.id, 0) for sample in pool], dtype=np.int64)
            mmd2 = None
            if copies.sum():
                X = vectors.matrix[[place[sample.id] for sample in pool]]
                mean_kernels = held_out.mean_kernels(X)
                if viewed.config.align.objective == "none":
                    labels = np.array([benchmark.label_names.index(sample.label) for sample in pool], dtype=np.intp)
                    counts = np.bincount(labels, weights=copies, minlength=len(benchmark.label_names)).astype(np.intp)
                    mmd2 = held_out.mean_mmd2(X, labels, counts, mean_kernels)
                else:
                    mmd2 = held_out.mmd2(X, copies / copies.sum(), mean_kernels)
            points.append(Point(n_calls, mmd2, int(metrics["n_pool"]), int(metrics["n_selected"])))
    return points


def _config(
    arm: Arm, benchmark: Benchmark, effort: Effort, model: Model, seed: int, path: Path, folder: Path
) -> dict[str, Any]:
    n_labels = len(benchmark.label_names)
    # Half a cluster a label less: every label's share of a round is rounded up to whole clusters.
    texts = round((effort.clusters_per_label - 0.5) * n_labels * effort.calls_per_cluster * effort.samples_per_call)
    return {
        "data": {"path": str(path)},
        "task": TASKS.get(benchmark.name, "short texts"),
        "n_samples": effort.n_samples,
        "seed": seed,
        "runs_dir": str(folder),
        "round_samples": texts,
        "llm": {
            "provider": "embedded" if model.base_url is None else "openai",
            "base_url": model.base_url,
            "model": model.name,
            "concurrency": model.concurrency,
            "threads": model.threads,
            "response_cache": str(folder / _REPLIES),
        },
        "explore": {"strategy": arm.demonstrations},
        "attributes": {"enabled": arm.attributes},
        "generate": {"samples_per_call": effort.samples_per_call, "calls_per_cluster": effort.calls_per_cluster},
        "gates": _GATES,
        # The test rows count the same for every label.
        "align": {"objective": "kernel" if arm.alignment else "none", "label_prior": "uniform"},
        "target": {"mmd2": NEVER},
        # Not `max_calls`, which replies from the shared cache do not count towards.
        "limits": {"patience_rounds": 10_000},
    }


def _write(rows: Rows, benchmark: Benchmark, path: Path) -> Path:
    lines = (
        json.dumps({"text": text, "label": benchmark.label_names[label]}, ensure_ascii=False)
        for text, label in zip(rows.texts, rows.labels.tolist(), strict=True)
    )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
