"""`langgraph dev` serves the graph without keys, and a run through the SDK finishes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from synalign_agent import wiring
from synalign_agent.config import SessionConfig
from synalign_agent.session import Session

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def langgraph_url(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "SYNALIGN_RUNS_DIR": str(tmp_path / "served"),
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        "LANGSMITH_TRACING": "false",
        "DO_NOT_TRACK": "1",
    }
    # A copy: the server leaves its own files beside its configuration.
    shutil.copy(ROOT / "langgraph.json", tmp_path)
    shutil.copytree(ROOT / "graphs", tmp_path / "graphs")
    log = (tmp_path / "server.log").open("w")
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("langgraph")), "dev", "--no-browser", "--no-reload", "--port", str(port)],
        cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, (tmp_path / "server.log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()


def test_a_run_through_the_sdk_finishes(
    langgraph_url: str, make_config: Callable[..., SessionConfig], tmp_path: Path
) -> None:
    from langgraph_sdk import get_sync_client

    with get_sync_client(url=langgraph_url) as client:
        assert {assistant["graph_id"] for assistant in client.assistants.search()} == {"synthesis"}
        thread = client.threads.create()
        values = client.runs.wait(
            thread["thread_id"],
            "synthesis",
            input={},
            context={"config": make_config(limits__max_rounds=1).model_dump(mode="json")},
        )
    assert isinstance(values, dict)
    assert values["stop_reason"] == "max_rounds", values
    assert values["history"][0]["n_pool"] > 0
    assert (tmp_path / "served" / thread["thread_id"] / "export" / "dataset.parquet").is_file()


def test_a_review_is_answered_through_the_sdk(
    langgraph_url: str, make_config: Callable[..., SessionConfig], tmp_path: Path
) -> None:
    import pandas as pd
    from langgraph_sdk import get_sync_client

    edited = "I would have liked somebody to ring me about the piano before it went back to your depot."
    config = make_config(
        limits__max_rounds=1,
        review__samples="first_round",
        review__attributes="first_round",
        round_samples=8,
        n_samples=4,
    )
    context = {"config": config.model_dump(mode="json")}
    with get_sync_client(url=langgraph_url) as client:
        thread_id = client.threads.create()["thread_id"]

        def waiting() -> tuple[str, list[dict[str, Any]]]:
            [interrupt] = client.threads.get_state(thread_id)["interrupts"]
            assert interrupt["value"]["review_configs"][0]["allowed_decisions"] == ["approve", "edit", "reject"]
            return interrupt["id"], [request["args"] for request in interrupt["value"]["action_requests"]]

        def answer(*decisions: dict[str, Any]) -> Any:
            id, _ = waiting()
            command = {"resume": {id: {"decisions": list(decisions)}}}
            return client.runs.wait(thread_id, "synthesis", command=command, context=context, raise_error=False)

        client.runs.wait(thread_id, "synthesis", input={}, context=context)
        _, clusters = waiting()
        assert all(cluster["demonstrations"] and cluster["attributes"] for cluster in clusters)
        # The session is nobody's while it waits: it can be looked at, or answered by the command line.
        folder = tmp_path / "served" / thread_id
        with Session.view(thread_id, runs_dir=folder.parent) as session:
            assert session.status() == "waiting_for_review"
            assert not wiring.is_locked(folder, session.store)

        answer({"type": "reject"})  # without a reason
        answer(*[{"type": "edit", "edited_action": {"args": {"attributes": {"mood": "calm"}}}} for _ in clusters])
        _, samples = waiting()
        others = [sample["text"] for sample in samples[2:]]
        assert all(sample["attributes"] == {"mood": "calm"} and sample["nearest_real"] for sample in samples)
        values = answer(
            {"type": "edit", "edited_action": {"name": "review_sample", "args": {"text": edited}}},
            {"type": "reject", "message": "reads like an advert"},
            *[{"type": "approve"} for _ in others],
        )
    assert values["stop_reason"] == "max_rounds", values
    pool = pd.read_parquet(folder / "export" / "pool.parquet")
    assert set(pool["text"]) == {edited, *others}
    with Session.view(thread_id, runs_dir=folder.parent) as session:
        assert session.status() == "finished"
        assert [found.detail for found in session.store.rejections() if found.reason == "review_rejected"] == [
            "reads like an advert"
        ]
