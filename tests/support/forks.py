"""A session of four rounds, to fork."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.chat_server import ChatServer

from synalign_agent.config import SessionConfig

wherever_parents_are_kept = pytest.mark.parametrize("original", ["sqlite", "postgres"], indirect=True)
"""Marks a test that is to pass wherever the session that is forked is kept."""
Original = tuple[ChatServer, Path, list[str], "str | None"]
"""Its endpoint and folder, what was answered to it, and its database."""


def small_config(server: ChatServer, runs_dir: Path, url: str | None) -> SessionConfig:
    return SessionConfig.parse(
        {
            "data": {"path": "example:customer_messages"},
            "n_samples": 24,
            "runs_dir": str(runs_dir),
            "llm": {
                "base_url": server.base_url,
                "model": "scripted",
                "concurrency": 8,
                "prices": {"prompt_usd_per_million_tokens": 1.0},
            },
            "generate": {"samples_per_call": 4, "calls_per_cluster": 1},
            "attributes": {"dimensions": {"topic": "subject", "tone": "mood"}},
            "gates": {"label_check": {"method": "none"}},
            "limits": {"max_rounds": 4, "patience_rounds": 99},
            "target": {"mmd2": -1.0},
            "storage": {"url": url},
        }
    )
