"""`--log-format json`: stderr is JSON lines with their place in the run, without texts and keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import canaries
from support.chat_server import ChatServer

from synalign_agent.config import SessionConfig

CLI = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("hash_encoder")


def test_lines_have_their_place_and_no_texts(
    cli: CLI,
    make_config: Callable[..., SessionConfig],
    chat_server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", canaries.KEY)
    monkeypatch.setattr(chat_server, "script", canaries.script)
    config = make_config(
        data__path=str(canaries.write_rows(tmp_path / "real.jsonl")), n_samples=8, limits__max_rounds=2,
        target__mmd2=-1.0, observability__mlflow__tracking_uri="http://127.0.0.1:9",
    )  # fmt: skip
    Path("c.yaml").write_text(config.to_yaml())
    code, out, err = cli("run", "c.yaml", "--thread-id", "t", "--log-format", "json", "--json")
    assert code == 0 and json.loads(out)["status"] == "finished"
    lines = [json.loads(line) for line in err.splitlines()]
    assert {line["thread_id"] for line in lines} == {"t"}
    assert all({"timestamp", "level", "logger", "message", "round", "node"} <= line.keys() for line in lines)
    placed = {(line["node"], line["round"]) for line in lines if line["message"].endswith("done")}
    assert {("explore", 1), ("generate", 1), ("screen", 2), ("align", 2), ("finish", 2)} <= placed
    [first] = [line for line in lines if line["message"] == "round 1 done"]
    assert first["tokens"] > 0 and first["mmd2"] > 0 and first["cost_usd"] is None
    assert any(line["level"] == "WARNING" and "observer mlflow failed" in line["message"] for line in lines)
    assert not [word for word in canaries.CANARIES if word in err]

    monkeypatch.setattr(chat_server, "script", canaries.refusing)
    Path("runs/t/config.yaml").write_text(config.with_overrides({"limits.max_rounds": 3}).to_yaml())
    code, _, err = cli("resume", "t", "--runs-dir", "runs", "--accept-changes", "--log-format", "json")
    assert code == 5
    last = json.loads(err.splitlines()[-1])
    assert (last["level"], last["error_type"], last["exit_code"]) == ("ERROR", "EndpointError", 5)
    assert "--log-format json" in last["message"]
    assert any("synalign resume t" in json.loads(line)["message"] for line in err.splitlines())
    assert not [word for word in canaries.CANARIES if word in err]
