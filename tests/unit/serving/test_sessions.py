"""Sessions of a server, without a server."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synalign_agent import wiring
from synalign_agent.config.serving import ServingConfig
from synalign_agent.serving import sessions
from synalign_agent.serving.sessions import ServedSessions
from synalign_agent.state import Context


def test_a_run_that_is_cancelled_while_its_session_opens_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    served, begun, go_on = ServedSessions(), threading.Event(), threading.Event()
    ended: list[str] = []

    async def aclose() -> None:
        ended.append("model")

    def open_session(thread_id: str, context: Context) -> None:
        begun.set()
        go_on.wait(30)
        deps: Any = SimpleNamespace(model=SimpleNamespace(aclose=aclose))
        served._open[thread_id] = sessions._Opened(deps, ended.append)

    async def node() -> None:
        async with served.around("thread"):
            await served.provide("thread", Context())

    async def cancelled() -> None:
        run = asyncio.create_task(node())
        await asyncio.to_thread(begun.wait, 30)
        run.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await run

    monkeypatch.setattr(sessions, "serving_config", ServingConfig)
    monkeypatch.setattr(served, "_open_session", open_session)
    asyncio.run(cancelled())
    assert ended == ["model", "interrupted"]


def test_a_session_whose_first_opening_failed_begins_anew(tmp_path: Path) -> None:
    folder = tmp_path / "thread"
    folder.mkdir()
    wiring.open_store(folder).close()
    assert wiring.session_exists(folder)
    serving = ServingConfig(runs_dir=str(tmp_path))
    assert sessions._config(folder, Context(), serving) == sessions._config(tmp_path / "other", Context(), serving)
