"""`--json`: stdout holds one object, whatever goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.chat_server import ChatServer, Reply

from synalign_agent.config import SessionConfig
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]
Cli = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("hash_encoder")


@pytest.fixture
def config_file(make_config: MakeConfig, tmp_path: Path) -> str:
    path = tmp_path / "synalign.yaml"
    path.write_text(make_config().to_yaml(), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "missing.yaml"], "synalign init"),
        (["run", "synalign.yaml", "--text-column", "body", "--log-format", "json"], "no field `body`"),
        (["run", "synalign.yaml", "--n-samples", "many"], "--n-samples"),
        (["run", "synalign.yaml", "--frobnicate"], "--frobnicate"),
        (["resume"], "Missing argument"),
        *([[name, "nobody"], "no such session"] for name in ("resume", "status", "review", "export", "report", "fork")),
        (["compare", "one"], "two sessions"),
        (["config", "check", "missing.yaml"], "synalign init"),
        (["align", "missing.jsonl", "synthetic.jsonl", "-n", "3", "--output", "out"], "missing.jsonl: no such file"),
        (["explore", "missing.jsonl", "-n", "3"], "missing.jsonl: no such file"),
        (["eval", "frobnicate"], "frobnicate"),
    ],
)
@pytest.mark.usefixtures("config_file")
def test_bad_usage_is_one_object_and_a_sentence(cli: Cli, arguments: list[str], says: str) -> None:
    code, out, err = cli(*arguments, "--json")
    answer = json.loads(out)
    assert (code, answer.keys(), answer["exit_code"]) == (2, {"error", "exit_code"}, 2)
    assert says in answer["error"] and says in err


def test_an_endpoint_that_does_not_answer_a_check(cli: Cli, make_config: MakeConfig) -> None:
    Path("c.yaml").write_text(make_config(llm__base_url="http://127.0.0.1:9/v1").to_yaml(), encoding="utf-8")
    code, out, err = cli("config", "check", "c.yaml", "--json")
    answer = json.loads(out)
    assert (code, answer["exit_code"]) == (5, 5)
    assert "llm.base_url" in answer["error"] and "llm.base_url" in err


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_run_that_fails_is_its_summary_with_the_error(
    cli: Cli, config_file: str, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    monkeypatch.setattr(chat_server, "script", lambda body, number: Reply(status=401))
    code, out, err = cli("run", config_file, "--thread-id", "t", "--json", "--log-format", log_format)
    result = json.loads(out)
    assert (code, result["thread_id"], result["status"]) == (5, "t", "failed")
    assert "refused the API key (401)" in result["error"]
    assert "synalign resume t" in err


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_session_that_cannot_go_on_says_why(cli: Cli, make_config: MakeConfig, log_format: str) -> None:
    config = make_config(limits__max_rounds=1)
    with Session.create(config, thread_id="t") as session:
        session.store.set_meta("encoder", "another")
    code, out, err = cli("resume", "t", "--runs-dir", config.runs_dir, "--json", "--log-format", log_format)
    answer = json.loads(out)
    assert (code, answer["exit_code"]) == (2, 2)
    assert "made with the encoder another" in answer["error"] and "made with the encoder another" in err


def test_a_key_that_interrupts_is_one_object(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("synalign_agent.report.sessions.list_sessions", interrupted)
    code, out, _ = cli("status", "--json")
    assert (code, json.loads(out)) == (130, {"error": "interrupted", "exit_code": 130})
