"""Which generation settings bring an embedded model's raw output closest to real rows?

Dataset: demonstration clusters of the real rows (greedy GP, per label). Run: the same clusters for every setting, through the
product's own prompt. Scores, before any alignment: unbiased MMD2 per label to the real rows, the share of texts that pass the
label vote, near duplicates, and seconds per passing text. Each setting is repeated over seeds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
from openai import AsyncOpenAI

from synalign_agent.config import DataConfig, EncoderConfig, LengthGateConfig
from synalign_agent.core.explore import select_by_variance
from synalign_agent.core.kernels import RBFMixture, median_distance
from synalign_agent.core.mmd import mmd2_unbiased
from synalign_agent.data.reader import read_rows
from synalign_agent.embedding.base import Encoder
from synalign_agent.embedding.cache import CachedEncoder
from synalign_agent.embedding.encoder import SentenceEncoder
from synalign_agent.gates.label_check import check_vote
from synalign_agent.gates.length import length_limits
from synalign_agent.llm.embedded import embedded_server, resolve_gguf
from synalign_agent.llm.structured import ReplyProblem, parse_reply
from synalign_agent.prompting.catalog import PromptCatalog
from synalign_agent.prompting.render import render
from synalign_agent.schemas import GeneratedTexts, texts_schema
from synalign_agent.stores.vectors import nearest_available

CLUSTERS_PER_LABEL, CLUSTER_SIZE, DRAWS, SLOTS = 3, 6, 2, 4


class Setting(NamedTuple):
    """What is varied."""

    samples_per_call: int
    temperature: float
    repeat_penalty: float


SETTINGS = (
    Setting(3, 0.7, 1.0),
    Setting(3, 0.7, 1.1),
    Setting(3, 0.8, 1.1),
    Setting(1, 0.8, 1.1),
    Setting(3, 0.8, 1.2),
)


class Real(NamedTuple):
    """Real rows, embedded, and the clusters that every setting starts from."""

    texts: list[str]
    labels: list[str]
    X: np.ndarray
    clusters: list[tuple[str, list[str]]]


def load(data: str, encoder: Encoder) -> Real:
    """Embed the real rows and choose the clusters."""
    raw = read_rows(DataConfig(path=data))
    X = encoder.encode(raw.texts).astype(np.float64)
    clusters = []
    for label in sorted(set(raw.labels)):
        rows = np.flatnonzero([name == label for name in raw.labels])
        kernel = RBFMixture((0.7 * median_distance(X[rows], np.random.default_rng(0)),))
        for cluster in select_by_variance(
            X[rows], n_clusters=CLUSTERS_PER_LABEL, cluster_size=CLUSTER_SIZE, kernel=kernel,
            neighbours=nearest_available(X[rows]),
        ):  # fmt: skip
            clusters.append((label, [raw.texts[rows[member]] for member in cluster.members]))
    return Real(raw.texts, raw.labels, X, clusters)


async def write(client: AsyncOpenAI, real: Real, task: str, setting: Setting, seed: int) -> list[tuple[str, str]]:
    """Return (label, text) of every text in a valid reply."""
    prompt, n = PromptCatalog.load()["generate_samples"], setting.samples_per_call
    limits = length_limits(real.texts, LengthGateConfig())
    slots = asyncio.Semaphore(SLOTS)

    async def call(label: str, shown: Sequence[str], draw: int) -> list[tuple[str, str]]:
        groups = [list(shown[start : start + n]) for start in range(0, len(shown), n)]
        values = {
            "task": task, "label": label, "attributes": {}, "demonstrations": groups, "layout": "chat", "n": n, "guidance": [],
            "words": limits.usual_words,
        }  # fmt: skip
        schema = {"name": "texts", "schema": texts_schema(n, limits.max_characters)}
        async with slots:
            reply = await client.chat.completions.create(
                model="embedded",
                messages=[{"role": m.role, "content": m.content} for m in render(prompt, values)],
                temperature=setting.temperature,
                seed=seed * 1000 + draw,
                max_tokens=n * (limits.max_characters // 2 + 24),
                extra_body={
                    "min_p": 0.05,
                    "repeat_penalty": setting.repeat_penalty,
                    "response_format": {"type": "json_schema", "json_schema": schema},
                },
            )
        choice = reply.choices[0]
        parsed = parse_reply(choice.message.content, choice.finish_reason, None, GeneratedTexts)
        return [] if isinstance(parsed, ReplyProblem) else [(label, text) for text in parsed.texts if text.strip()]

    jobs = [call(label, shown, draw) for label, shown in real.clusters for draw in range(DRAWS)]
    return [row for rows in await asyncio.gather(*jobs) for row in rows]


def score(real: Real, rows: Sequence[tuple[str, str]], seconds: float, encoder: Encoder) -> dict[str, float]:
    """Score raw texts against the real rows."""
    X = encoder.encode([text for _, text in rows]).astype(np.float64)
    kernel_scale = median_distance(real.X, np.random.default_rng(0))
    kernel = RBFMixture(tuple(kernel_scale * multiplier for multiplier in (0.5, 1.0, 2.0)))
    counts = Counter(real.labels)
    nearest = np.argsort(-(X @ real.X.T), axis=1)[:, :10]
    passed = [
        check_vote(label, [real.labels[row] for row in near], counts, 0.2) is None
        for (label, _), near in zip(rows, nearest, strict=True)
    ]
    similar = X @ X.T - 2 * np.eye(len(X))
    by_label = []
    for label in counts:
        mine = [place for place, (name, _) in enumerate(rows) if name == label]
        theirs = [place for place, name in enumerate(real.labels) if name == label]
        if len(mine) > 1:
            by_label.append(mmd2_unbiased(X[mine], real.X[theirs], kernel))
    return {
        "mmd2": mean(by_label),
        "label_passed": mean(passed),
        "near_duplicates": float((similar.max(axis=1) > 0.95).mean()),
        "seconds_per_passed": seconds / max(1, sum(passed)),
    }


async def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run every setting over all seeds, taking turns, so that a slow minute of the machine hits all of them."""
    encoder = CachedEncoder(SentenceEncoder(EncoderConfig()))
    real = load(arguments.data, encoder)
    scores: dict[Setting, list[dict[str, float]]] = {setting: [] for setting in SETTINGS}
    with embedded_server(resolve_gguf(arguments.model), n_slots=SLOTS, n_threads=None) as (base_url, api_key):
        async with AsyncOpenAI(base_url=base_url, api_key=api_key, timeout=900, max_retries=0) as client:
            for seed in range(arguments.seeds):
                for setting in SETTINGS:
                    started = time.monotonic()
                    rows = await write(client, real, arguments.task, setting, seed)
                    scores[setting].append(score(real, rows, time.monotonic() - started, encoder))
    return [{"setting": setting._asdict(), "runs": runs} for setting, runs in scores.items()]


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="example:customer_messages")
    parser.add_argument("--task", default="short messages that customers send to an online shop")
    parser.add_argument("--model", default=None, help="GGUF file (default: the packaged SmolLM2)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments))
    print(f"{'texts/call':>10} {'temp.':>6} {'penalty':>8} | mean (standard deviation over {arguments.seeds} seeds)")
    for result in results:
        cells = []
        for name in result["runs"][0]:
            values = [run[name] for run in result["runs"]]
            spread = f"{stdev(values):.3f}" if len(values) > 1 else "not measured"
            cells.append(f"{name} {mean(values):.3f} ({spread})")
        n, temperature, penalty = result["setting"].values()
        print(f"{n:>10} {temperature:>6} {penalty:>8} | {'  '.join(cells)}")
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
