"""Guards and doubles for all tests: no network but loopback, no user cache, a tiny encoder, a scripted endpoint."""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.chat_server import ChatServer
from support.postgres import REASON, must_run, new_database, programs, running_server

from synalign_agent import wiring
from synalign_agent.config import SessionConfig

# A checkpoint that needs another type than plain JSON's must fail here, not in a later release of LangGraph.
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
os.environ["LANGSMITH_TRACING"] = "false"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Refuse every connection that leaves the machine, and keep the embedding cache away from the user's."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in _LOOPBACK:
            raise AssertionError(f"a test tried to reach {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setenv("SYNALIGN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


class HashEncoder:
    """Embeds texts by hashed words and word pairs: near texts are near, and nothing is loaded."""

    model_id = "hash-64"

    def encode(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Any:
        rows = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in enumerate(texts):
            words = text.lower().split()
            for token in [*words, *map(" ".join, itertools.pairwise(words)), "\0"]:
                digest = hashlib.sha256(token.encode()).digest()
                rows[row, digest[0] % 64] += 1 if digest[1] % 2 else -1
            rows[row, 0] += 1e-3
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def hash_encoder(monkeypatch: pytest.MonkeyPatch) -> HashEncoder:
    """Replace the sentence encoder of every session by a hash."""
    encoder = HashEncoder()
    monkeypatch.setattr(wiring, "make_encoder", lambda *_: encoder)
    # The report's second map takes seconds a session, and has tests of its own.
    monkeypatch.setattr("synalign_agent.report.map_points.neighbourhoods", lambda *_: None)
    return encoder


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server that is started for these tests and ended after them."""
    if programs() is None:
        if must_run():
            pytest.fail(REASON)
        pytest.skip(REASON)
    with running_server() as url:
        yield url


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str | None:
    """Where the test's sessions are kept: None for their folders, or the URL of a database of its own."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return None
    return new_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A scripted endpoint that answers every schema with fresh text."""
    with ChatServer() as server:
        yield server


@pytest.fixture
def make_config(tmp_path: Path, chat_server: ChatServer, database: str | None) -> Callable[..., SessionConfig]:
    """Return a function that builds a small configuration against the scripted endpoint; keywords are dotted fields."""

    def make(**overrides: Any) -> SessionConfig:
        base = SessionConfig.parse(
            {
                "data": {"path": "example:customer_messages"},
                "task": "customer messages",
                "n_samples": 24,
                "runs_dir": str(tmp_path / "runs"),
                "llm": {"base_url": chat_server.base_url, "model": "scripted", "concurrency": 8},
                "generate": {"samples_per_call": 4, "calls_per_cluster": 1},
                "attributes": {"dimensions": {"topic": "subject", "tone": "mood"}},
                # The scripted texts are about anything: only the label gate would mind.
                "gates": {"label_check": {"method": "none"}},
                "limits": {"max_rounds": 4},
                "storage": {"url": database},
            }
        )
        return base.with_overrides({name.replace("__", "."): value for name, value in overrides.items()})

    return make
