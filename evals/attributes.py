"""Do texts carry the attributes that they were written from, and do their attributes drift away from those of real texts?

Dataset: a session of the loop eval (`evals.loop`), whose texts were written from attributes. Run: the same model reads single
texts, real and synthetic, with the product's own attribute prompt, knowing neither the attributes nor the label. Scores, for each
dimension: the share of texts whose reading is nearest to the value that they were written from, among the values of their label;
and the distance between the shares of real and synthetic readings in groups of alike readings. Both beside what shuffling gives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from evals.attributes_view import figure, tables, targets
from evals.datasets import load_benchmarks
from evals.embeddings import cache_folder, default_encoder
from evals.loop_arms import SIZES, Arm, SessionSettings, run_session
from evals.results import Condition, EvalResult, start, timed
from synalign_agent import Session, wiring
from synalign_agent.config import LimitsConfig, SessionConfig
from synalign_agent.core.arrays import Array, IntArray
from synalign_agent.embedding.base import Encoder
from synalign_agent.errors import InputError
from synalign_agent.llm.base import CallRequest
from synalign_agent.llm.budget import Budget
from synalign_agent.llm.client import JournaledModel
from synalign_agent.llm.providers import open_endpoint
from synalign_agent.llm.structured import ReplyProblem, parse_reply
from synalign_agent.nodes.summarize_attributes import STANDARD_DIMENSIONS, frozen_dimensions
from synalign_agent.prompting.catalog import PromptCatalog
from synalign_agent.records import CallTotals, content_id
from synalign_agent.schemas import MAX_ATTRIBUTE_CHARACTERS, AttributeValues, attributes_schema
from synalign_agent.stores.memory import MemorySessionStore
from synalign_agent.toolkit.progress import Progress

__all__ = ["Settings", "figure", "run", "tables", "targets"]

NAME = "attributes"
_MAX_TOKENS = 400
_SHUFFLES = 200
_READING = "second_reading"


@dataclass(frozen=True, slots=True)
class Settings(SessionSettings):
    """Which session is read, and how much of it."""

    arm: str = "ivr_gap+attributes+alignment"
    n_read: int = 120
    """Texts read, synthetic and as many real ones."""
    n_groups: int = 6
    """Groups of alike readings whose shares are compared."""

    @classmethod
    def preset(cls, name: str) -> Settings:
        """Return the settings called quick, short or full; each reads what the loop eval of that name wrote."""
        if name == "quick":
            return cls(n_read=12, n_groups=3, **SIZES[name])
        if name == "short":
            return cls(n_read=16, n_groups=4, **SIZES[name])
        return cls(**SIZES[name])


@dataclass(frozen=True, slots=True)
class Texts:
    """What is read of a session."""

    dimensions: dict[str, str]
    real: list[str]
    """Held-out rows of the session, or reference rows where there are too few."""
    synthetic: list[str]
    labels: list[str]
    """Of the synthetic texts, as the session asked for them."""
    stated: list[dict[str, str]]
    """What each synthetic text was written from."""
    is_chosen: NDArray[np.bool_]
    """Whether the aligner chose it."""


def run(settings: Settings, progress: Progress, data_dir: Path | None = None) -> EvalResult:
    """Run the eval, or what is left of it.

    Args:
        settings: which session is read.
        progress: told (description, done, total).
        data_dir: see `datasets.load_benchmark`.

    Raises:
        InputError: the data are missing, or the arm writes without attributes.
        EndpointError: the model cannot be reached; run the eval again when it can.
    """
    started = time.perf_counter()
    arm = Arm.parse(settings.arm)
    if not arm.attributes:
        raise InputError(f"arm: {arm} writes without attributes; name one with +attributes")
    benchmarks = load_benchmarks(settings.datasets, data_dir, ref=settings.max_ref, with_pool=False)
    result = start(NAME, settings.public(), {b.name: b.digest for b in benchmarks}, range(settings.n_seeds))
    encoder = default_encoder()
    total = len(benchmarks) * settings.n_seeds
    for place, (benchmark, seed) in enumerate((b, seed) for b in benchmarks for seed in range(settings.n_seeds)):
        progress(f"{benchmark.name}: writing", place, total)
        folder = run_session(arm, benchmark, settings.effort, settings.writer, seed, cache_folder() / "loop")
        texts, config = _texts(folder, settings.n_read, seed)
        progress(f"{benchmark.name}: reading", place, total)
        readings = asyncio.run(read(config, texts.dimensions, [*texts.synthetic, *texts.real]))
        _score(result, benchmark.name, seed, texts, readings, encoder, settings.n_groups)
    progress("Attributes: done", total, total)
    return timed(result, started)


async def read(config: SessionConfig, dimensions: dict[str, str], texts: Sequence[str]) -> list[dict[str, str] | None]:
    """Have the model describe every text by itself; None where its reply cannot be used.

    Args:
        config: of the session: its model, seed and shared replies, so that a reading is paid for once.
        dimensions: name -> meaning.
        texts: (n,) what is read.
    """
    prompt = PromptCatalog.load(config.prompts_dir)["summarize_attributes"]
    with open_endpoint(config.llm) as endpoint:
        model = JournaledModel(
            endpoint, config.llm, MemorySessionStore(), Budget(LimitsConfig(), CallTotals()), seed=config.seed
        )

        async def one(text: str) -> dict[str, str] | None:
            request = CallRequest(
                node=_READING, prompt=prompt,
                values={"dimensions": dimensions, "demonstrations": [text]},
                schema=attributes_schema(list(dimensions), MAX_ATTRIBUTE_CHARACTERS if config.llm.schema_limits else None),
                max_tokens=_MAX_TOKENS, round=0, cluster_id=content_id(text), is_reading=True,
            )  # fmt: skip
            call = await model.call(request)
            if call.state != "done":
                return None
            parsed = parse_reply(call.content, call.finish_reason, call.refusal, AttributeValues, lenient=model.lenient)
            return None if isinstance(parsed, ReplyProblem) else parsed.root

        try:
            return list(await asyncio.gather(*(one(text) for text in texts)))
        finally:
            await model.aclose()


def recovered(readings: Array, values: Array, truth: IntArray) -> float:
    """Return the share of readings (n, d) whose nearest value (v, d) is the true one, (n,) indices; all of norm 1."""
    return float((np.argmax(readings @ values.T, axis=1) == truth).mean())


def drift(groups: IntArray, is_real: NDArray[np.bool_], n_groups: int) -> float:
    """Return the total variation distance, in [0, 1], of the group shares of real and other readings; (n,) both."""
    shares = [np.bincount(groups[side], minlength=n_groups) / max(int(side.sum()), 1) for side in (is_real, ~is_real)]
    return float(0.5 * np.abs(shares[0] - shares[1]).sum())


def _texts(folder: Path, n: int, seed: int) -> tuple[Texts, SessionConfig]:
    rng = np.random.default_rng([seed, 0])
    with Session.view(folder.name, runs_dir=folder.parent) as session:
        store = session.store
        config = wiring.resolve(session.config)
        samples = [sample for sample in store.samples() if store.attributes_of(sample.cluster_id)]
        rounds = store.rounds()
        chosen = (
            {choice.sample_id for choice in store.choices(rounds[-1]["round"]) if choice.copies} if rounds else set()
        )
        picked = [samples[place] for place in rng.permutation(len(samples))[:n].tolist()]
        held_out = [row.text for row in store.real_rows("holdout")] or [row.text for row in store.real_rows()]
        real = [held_out[place] for place in rng.permutation(len(held_out))[: len(picked)].tolist()]
        texts = Texts(
            dimensions=frozen_dimensions(config, store) or STANDARD_DIMENSIONS,
            real=real,
            synthetic=[sample.text for sample in picked],
            labels=[sample.label for sample in picked],
            stated=[store.attributes_of(sample.cluster_id) for sample in picked],
            is_chosen=np.array([sample.id in chosen for sample in picked], dtype=np.bool_),
        )
        return texts, config


def _score(
    result: EvalResult, dataset: str, seed: int, texts: Texts, readings: Sequence[dict[str, str] | None], encoder: Encoder,
    n_groups: int,
) -> None:  # fmt: skip
    result.add({"dataset": dataset}, "readable", seed, sum(r is not None for r in readings) / max(len(readings), 1))
    n = len(texts.synthetic)
    for dimension in texts.dimensions:
        condition = {"dataset": dataset, "dimension": dimension}
        found = [(place, (reading or {}).get(dimension, "").strip()) for place, reading in enumerate(readings)]
        found = [(place, value) for place, value in found if value]
        places = np.array([place for place, _ in found], dtype=np.intp)
        X = encoder.encode([value for _, value in found]) if found else np.empty((0, 1), dtype=np.float32)
        rng = np.random.default_rng([seed, 1])
        _score_recovery(result, condition, seed, texts, dimension, places[places < n], X[places < n], encoder, rng)
        is_real = places >= n
        if min(int(is_real.sum()), int((~is_real).sum())) < n_groups:
            result.add(condition, "drift", seed, None, "too few texts could be read")
            continue
        # Groups of real readings, so that what is compared is where the real ones are.
        fitted = KMeans(n_groups, n_init=4, random_state=seed).fit(X[is_real])
        groups = fitted.predict(X).astype(np.intp)
        _score_drift(result, condition, "drift", seed, groups, is_real, n_groups, rng)
        chosen = is_real | np.isin(places, np.flatnonzero(texts.is_chosen))
        if (chosen & ~is_real).any():
            _score_drift(result, condition, "drift_aligned", seed, groups[chosen], is_real[chosen], n_groups, rng)
        else:
            result.add(condition, "drift_aligned", seed, None, "no text that was read is in the result")


def _score_drift(
    result: EvalResult, condition: Condition, metric: str, seed: int, groups: IntArray, is_real: NDArray[np.bool_],
    n_groups: int, rng: np.random.Generator,
) -> None:  # fmt: skip
    """Add the drift and what shuffling gives at the same numbers of texts: shares of few texts differ by chance alone."""
    result.add(condition, metric, seed, drift(groups, is_real, n_groups))
    shuffled = [drift(groups, rng.permutation(is_real), n_groups) for _ in range(_SHUFFLES)]
    result.add(condition, f"{metric}_by_chance", seed, float(np.mean(shuffled)))


def _score_recovery(
    result: EvalResult, condition: Condition, seed: int, texts: Texts, dimension: str, places: IntArray, X: Array,
    encoder: Encoder, rng: np.random.Generator,
) -> None:  # fmt: skip
    """Score each label by itself: another label's values would give the right one away."""
    hits, chances, weights = [], [], []
    for label in sorted(set(texts.labels)):
        inside = [
            at for at, place in enumerate(places) if texts.labels[place] == label and texts.stated[place].get(dimension)
        ]
        stated = [texts.stated[places[at]][dimension] for at in inside]
        values = sorted(set(stated))
        if len(values) < 2:
            continue
        V = encoder.encode(values)
        truth = np.array([values.index(value) for value in stated], dtype=np.intp)
        hits.append(recovered(X[inside], V, truth))
        chances.append(float(np.mean([recovered(X[inside], V, rng.permutation(truth)) for _ in range(_SHUFFLES)])))
        weights.append(len(inside))
    if not weights:
        result.add(
            condition, "recovered", seed, None, "no label has texts from two different values that could be read"
        )
        return
    result.add(condition, "recovered", seed, float(np.average(hits, weights=weights)))
    result.add(condition, "recovered_by_chance", seed, float(np.average(chances, weights=weights)))
