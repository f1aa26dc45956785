"""`langgraph dev` on 127.0.0.1 for tests, with two clients' keys, a data folder and a scripted endpoint."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraph_sdk import get_sync_client
from support.chat_server import ChatServer

from synalign_agent.data.reader import example_path
from synalign_agent.session import Session

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"ada": "ada-0123456789abcdef", "bob": "bob-0123456789abcdef"}


@dataclass(frozen=True)
class Server:
    url: str
    chat: ChatServer
    folder: Path

    def client(self, name: str = "ada", **headers: str) -> Any:
        return get_sync_client(url=self.url, headers={"Authorization": f"Bearer {KEYS[name]}", **headers})

    def session(self, thread_id: str) -> Session:
        return Session.view(thread_id, runs_dir=self.folder / "served")

    def context(self, **sections: Any) -> dict[str, Any]:
        """Return what a client sends: a session of seconds, on the endpoint that the operator offers."""
        config: dict[str, Any] = {
            "data": {"path": "real.jsonl"},
            "task": "customer messages",
            "n_samples": 4,
            "round_samples": 8,
            "llm": {"base_url": self.chat.base_url, "model": "scripted"},
            "generate": {"samples_per_call": 4, "calls_per_cluster": 1},
            "attributes": {"dimensions": {"topic": "subject", "tone": "mood"}},
            "gates": {"label_check": {"method": "none"}},
            "limits": {"max_rounds": 1},
            "target": {"mmd2": 1e-9},  # out of reach, so that rounds end the run
        }
        return {"config": config | sections}


@contextmanager
def langgraph_server(folder: Path) -> Iterator[Server]:
    """Serve the checkout's graphs from `folder` until the block ends."""
    # A copy: the server leaves its own files beside its configuration.
    shutil.copy(ROOT / "langgraph.json", folder)
    shutil.copytree(ROOT / "graphs", folder / "graphs", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").mkdir()
    rows = example_path("customer_messages").read_text().splitlines(keepends=True)[::4]  # embedded in a second
    for name in ("data/real.jsonl", "outside.jsonl"):
        (folder / name).write_text("".join(rows))
    (folder / "data" / "link.jsonl").symlink_to(folder / "outside.jsonl")
    with socket.socket() as probe, ChatServer() as chat:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        serving = {
            "runs_dir": "served",
            "data_dir": "data",
            "endpoints": [{"base_url": chat.base_url, "models": ["scripted"]}],
            "session": {"limits": {"max_rounds": 3}},
            "max_reply_rows": 50,
        }
        (folder / "serving.yaml").write_text(json.dumps(serving))
        environment = {
            **os.environ,
            "SYNALIGN_SERVING_CONFIG": str(folder / "serving.yaml"),
            "SYNALIGN_SERVER_KEYS": ",".join(f"{name}:{key}" for name, key in KEYS.items()),
            "SYNALIGN_CACHE_DIR": str(folder / "cache"),
            "OPENAI_API_KEY": "a secret of the server",
            "HF_HUB_OFFLINE": "1",
            "LANGGRAPH_CLI_NO_ANALYTICS": "1",
            "LANGSMITH_TRACING": "false",
            "DO_NOT_TRACK": "1",
        }
        options = ["--no-browser", "--no-reload", "--port", str(port), "--n-jobs-per-worker", "8"]
        command = [sys.executable, "-m", "langgraph_cli", "dev", *options]
        with (folder / "server.log").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
            try:
                for _ in range(2000):
                    with socket.socket() as probe:
                        if probe.connect_ex(("127.0.0.1", port)) == 0:
                            break
                    assert process.poll() is None, (folder / "server.log").read_text()
                    time.sleep(0.1)
                yield Server(f"http://127.0.0.1:{port}", chat, folder)
            finally:
                process.terminate()
                process.wait(timeout=30)
