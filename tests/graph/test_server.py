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

import pytest

from synalign_agent.config import SessionConfig

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
