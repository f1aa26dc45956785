"""Embedding while calls are in flight: it happens, in blocks, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.chat_server import ChatServer, Reply

from synalign_agent import graph, wiring
from synalign_agent.config import SessionConfig
from synalign_agent.embedding.ahead import EmbedAhead
from synalign_agent.embedding.cache import CachedEncoder
from synalign_agent.llm.base import CallRequest
from synalign_agent.llm.client import JournaledModel
from synalign_agent.nodes import round_calls, screen
from synalign_agent.nodes.generate import generate_tasks
from synalign_agent.records import CallRecord
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]


class CountingEncoder:
    """Vectors whose last bits depend on the batch, as those of a neural encoder do."""

    model_id = "batch-8"

    def __init__(self, server: ChatServer) -> None:
        self.batches: list[list[str]] = []
        self.in_flight: list[int] = []
        self._server = server

    def encode(self, texts: Sequence[str], progress: Any = None) -> Any:
        self.batches.append(list(texts))
        self.in_flight.append(self._server._in_flight)
        rows = np.stack(
            [np.random.default_rng(list(text.encode())).normal(size=8) for text in texts] or [np.ones(8)]
        ).astype(np.float32)
        rows = rows + np.float32(1e-6) * len(texts)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True))[: len(texts)]


@pytest.fixture
def encoder(chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CountingEncoder:
    counting = CountingEncoder(chat_server)
    files = iter(range(99))
    monkeypatch.setattr(wiring, "make_encoder", lambda *_: CachedEncoder(counting, tmp_path / f"{next(files)}.sqlite"))
    monkeypatch.setattr(round_calls, "_BLOCK_CALLS", 8)
    return counting


def config_of(make_config: MakeConfig) -> SessionConfig:
    return make_config(
        n_samples=60, round_samples=400, limits__max_rounds=1, attributes__enabled=False, target__mmd2=-1.0,
        generate__samples_per_call=2, generate__calls_per_cluster=2, llm__concurrency=4,
    )  # fmt: skip


def test_blocks_are_embedded_while_later_calls_are_in_flight(
    make_config: MakeConfig, chat_server: ChatServer, encoder: CountingEncoder
) -> None:
    chat_server.script = lambda body, number: Reply(delay_seconds=0.1)
    with Session.create(config_of(make_config), thread_id="t") as session:
        session.run()
    blocks = encoder.batches[1:]  # the first holds the real rows
    assert len(blocks) >= 4
    assert sum(n > 0 for n in encoder.in_flight[1:]) >= 2  # most, but on a busy machine a block may come late
    texts = [text for batch in blocks for text in batch]
    assert len(texts) == len(set(texts))  # what was embedded ahead is not embedded again


def test_the_result_is_the_same_without_it(
    make_config: MakeConfig, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(make_config)
    with Session.create(config, thread_id="ahead") as session:
        ahead = session.run()
        chosen = session.dataset()
    monkeypatch.setattr(EmbedAhead, "_is_ready", lambda self: False)
    with Session.create(config, thread_id="behind") as session:
        behind = session.run()
        expected = session.dataset()
    assert ahead["mmd2"] == behind["mmd2"] and ahead["rejections"] == behind["rejections"]
    assert chosen["text"].tolist() == expected["text"].tolist()
    assert chosen["weight"].tolist() == expected["weight"].tolist()


def test_a_round_is_screened_in_batches_with_the_same_result(
    make_config: MakeConfig, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = screen.check_texts
    monkeypatch.setattr(screen, "check_texts", lambda deps, texts: read.append(len(texts)) or original(deps, texts))
    outcomes = []
    for n_calls in (8, 10_000):
        monkeypatch.setattr(round_calls, "_BATCH_CALLS", n_calls)
        with Session.create(config_of(make_config), thread_id=f"by-{n_calls}") as session:
            summary = session.run()
            samples, rejections = session.store.samples(), session.store.rejections()
        outcomes.append((samples, {one.id: one for one in rejections}, summary["mmd2"]))
    assert outcomes[0] == outcomes[1]
    *batches, whole = read
    assert len(batches) > 4 and max(batches) <= 8 * 2 and sum(batches) == whole


def test_no_more_calls_begin_than_stand_ready(
    make_config: MakeConfig, chat_server: ChatServer, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat_server.script = lambda body, number: Reply(delay_seconds=0.01)
    begun, under_way = 0, []
    original = JournaledModel.call

    async def call(self: JournaledModel, request: CallRequest) -> CallRecord:
        nonlocal begun
        begun += 1
        under_way.append(begun)
        try:
            return await original(self, request)
        finally:
            begun -= 1

    monkeypatch.setattr(JournaledModel, "call", call)
    config = config_of(make_config)
    with Session.create(config, thread_id="t") as session:
        session.run()
    assert len(under_way) > 40 and max(under_way) == 2 * (config.llm.concurrency or 0)
    assert chat_server.max_in_flight == config.llm.concurrency


def test_a_round_is_at_most_64_tasks_and_every_call_is_in_one() -> None:
    clusters = [f"c{place}" for place in range(50)]
    for n_draws in (1, 2, 10, 200):
        tasks = generate_tasks(clusters, n_draws)
        assert len(tasks) <= 64
        calls = [tuple(call) for task in tasks for call in task["calls"]]
        assert calls == [(cluster, draw) for cluster in clusters for draw in range(n_draws)]
    assert [len(task["calls"]) for task in generate_tasks(clusters, 1)] == [1] * 50
    assert generate_tasks([], 3) == []


def test_tasks_in_checkpoints_of_earlier_versions_are_understood(
    make_config: MakeConfig, chat_server: ChatServer, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_by_one(cluster_ids: Sequence[str], n_draws: int) -> Any:
        return [{"cluster_id": cluster_id, "draw": draw} for cluster_id in cluster_ids for draw in range(n_draws)]

    monkeypatch.setattr(graph, "generate_tasks", one_by_one)
    with Session.create(config_of(make_config), thread_id="t") as session:
        assert session.run()["calls"]["done"] == len(chat_server.requests) > 8
