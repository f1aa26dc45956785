"""kill -9 in the middle of generation, then resume elsewhere: the command line, real processes, the real encoder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.chat_server import ChatServer
from support.postgres import wherever_kept

from synalign_agent.config import SessionConfig


@pytest.mark.slow
@wherever_kept
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_resumes_in_another_folder_without_repeating_a_finished_call(
    make_config: Callable[..., SessionConfig], tmp_path: Path, signal_number: signal.Signals
) -> None:
    with ChatServer(latency_seconds=0.15) as server:
        config = make_config(llm__base_url=server.base_url, llm__concurrency=4, limits__max_rounds=3)
        path = tmp_path / "c.yaml"
        path.write_text(config.to_yaml(), encoding="utf-8")
        command = [sys.executable, "-m", "synalign_agent"]
        running = subprocess.Popen(
            [*command, "run", str(path), "--thread-id", "t", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        server.wait_for(14, timeout_seconds=200)
        time.sleep(0.07)  # between two waves of replies
        os.kill(running.pid, signal_number)
        running.communicate(timeout=100)
        assert running.returncode == (-signal.SIGKILL if signal_number == signal.SIGKILL else 130)
        answered_at_kill = len(server.answered)

        status = json.loads(_output([*command, "status", "t", "--runs-dir", config.runs_dir, "--json"]))
        assert status["status"] == "interrupted"
        there = tmp_path / "another machine"
        shutil.copytree(Path(config.runs_dir) / "t", there / "t")
        shutil.rmtree(config.runs_dir)
        resumed = json.loads(_output([*command, "resume", "t", "--runs-dir", str(there), "--json"]))
    assert not Path(config.runs_dir).exists() and Path(resumed["paths"]["dataset"]).is_relative_to(there)
    assert (resumed["status"], resumed["n_selected"]) == ("finished", 24)
    assert resumed["calls"]["repeated"] == 0
    assert 10 <= answered_at_kill < resumed["calls"]["done"]
    # What the server answered twice are exactly calls whose reply was on its way when the process died.
    assert server.repeated() <= resumed["calls"]["in_flight_lost"] <= 4
    if signal_number == signal.SIGTERM:
        assert resumed["calls"]["in_flight_lost"] == 0


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=250).stdout
