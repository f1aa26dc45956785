"""The command line: exit codes, what goes to stdout, and errors without tracebacks."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.chat_server import ChatServer, Reply

from synalign_agent.cli.output import escape
from synalign_agent.config import SessionConfig
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config_file(make_config: MakeConfig, tmp_path: Path) -> Path:
    path = tmp_path / "synalign.yaml"
    path.write_text(make_config().to_yaml(), encoding="utf-8")
    return path


CONTRACT = {
    "thread_id", "status", "stop_reason", "n_requested", "n_selected", "n_pool", "mmd2", "n_eq", "ess", "rejections", "calls",
    "tokens", "cost_usd", "seconds", "paths",
}  # fmt: skip


@pytest.mark.usefixtures("hash_encoder")
def test_run_prints_one_json_object_with_the_contract(cli: Cli, config_file: Path, tmp_path: Path) -> None:
    code, out, _ = cli("run", str(config_file), "--thread-id", "t", "--n-samples", "12", "--seed", "3", "--json")
    result = json.loads(out)
    assert code == 0
    assert result.keys() >= CONTRACT
    assert result["mmd2"].keys() >= {"raw", "aligned", "floor", "target", "reference"}
    assert result["calls"].keys() >= {"done", "failed", "repeated", "in_flight_lost"}
    assert (result["thread_id"], result["n_requested"], result["n_selected"]) == ("t", 12, 12)
    assert all(Path(path).is_file() for path in result["paths"].values())

    code, out, _ = cli("status", "t", "--runs-dir", str(tmp_path / "runs"), "--json")
    assert (code, json.loads(out)["mmd2"]) == (0, result["mmd2"])
    code, out, _ = cli("resume", "t", "--runs-dir", str(tmp_path / "runs"), "--json")
    assert (code, json.loads(out)["calls"]) == (0, result["calls"])
    code, out, _ = cli("export", "t", "--runs-dir", str(tmp_path / "runs"))
    assert code == 0 and "noise floor" in out


@pytest.mark.usefixtures("hash_encoder")
def test_a_limit_before_the_samples_asked_for_is_exit_3_with_the_command_that_goes_on(
    cli: Cli, make_config: MakeConfig, tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(make_config(limits__max_calls=6).to_yaml(), encoding="utf-8")
    code, out, err = cli("run", str(path), "--thread-id", "t")
    assert code == 3
    assert "the call limit is reached" in out
    assert "synalign resume t" in err


@pytest.mark.usefixtures("hash_encoder")
def test_an_endpoint_failure_is_exit_5_and_says_how_to_resume(
    cli: Cli, config_file: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(chat_server, "script", lambda body, number: Reply(status=401))
    code, _, err = cli("run", str(config_file), "--thread-id", "t")
    assert code == 5
    assert "synalign resume t" in err and "llm.api_key_env" in err
    code, _, err = cli("status", "t", "--runs-dir", str(tmp_path / "runs"))
    assert code == 0 and "Continue with: synalign resume t" in err


@pytest.mark.usefixtures("hash_encoder")
def test_status_says_which_error_ended_the_last_run(
    cli: Cli, config_file: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = ("--runs-dir", str(tmp_path / "runs"))

    def errors() -> tuple[str | None, str | None]:
        alone, listed = (json.loads(cli("status", *name, *runs, "--json")[1]) for name in (["t"], []))
        return alone["error"], listed["sessions"][0]["error"]

    with monkeypatch.context() as patch:
        patch.setattr(chat_server, "script", lambda body, number: Reply(status=401))
        said = json.loads(cli("run", str(config_file), "--thread-id", "t", "--json")[1])["error"]
    assert "refused the API key (401)" in said and errors() == (said, said)
    code, _, err = cli("status", "t", *runs)
    assert code == 0 and f"ended with: {said}" in err
    assert cli("status", *runs)[2] == ""  # a failed session can be read
    assert json.loads(cli("fork", "t", *runs, "--json")[1])["error"] is None
    shutil.rmtree(tmp_path / "runs" / "t-fork1")
    assert cli("resume", "t", *runs)[0] == 0
    assert errors() == (None, None)


@pytest.mark.usefixtures("hash_encoder")
def test_an_error_of_another_kind_is_kept_with_its_name(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by \udcff")

    monkeypatch.setattr("synalign_agent.wiring.open_deps", broken)
    with Session.create(make_config(), thread_id="t") as session:
        with pytest.raises(ZeroDivisionError):
            session.run()
        assert session.summary()["error"] == "ZeroDivisionError: by ?"


@pytest.mark.parametrize("command", ["export", "report"])
@pytest.mark.usefixtures("hash_encoder")
def test_without_a_finished_round_there_is_nothing_to_export(
    cli: Cli, make_config: MakeConfig, tmp_path: Path, command: str
) -> None:
    Session.create(make_config(), thread_id="t").close()
    code, out, err = cli(command, "t", "--runs-dir", str(tmp_path / "runs"))
    assert (code, out) == (2, "")
    assert "no finished round" in err and "synalign resume t" in err
    assert not (tmp_path / "runs" / "t" / "export").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "missing.yaml"], "synalign init"),
        (["run", "synalign.yaml", "--real", "missing.jsonl"], "missing.jsonl: no such file"),
        (["run", "synalign.yaml", "--text-column", "body"], "no field `body`"),
        (["run", "synalign.yaml", "--thread-id", "../up"], "thread id"),
        (["resume", "nobody"], "no such session"),
        (["status", "nobody"], "no such session"),
        (["frobnicate"], "No such command"),
    ],
)
@pytest.mark.usefixtures("hash_encoder", "config_file")
def test_bad_usage_is_exit_2_with_a_sentence(cli: Cli, arguments: list[str], says: str) -> None:
    code, out, err = cli(*arguments)
    assert code == 2
    assert says in err
    assert out == ""


def test_a_failed_start_leaves_no_folder_behind(cli: Cli, config_file: Path, tmp_path: Path) -> None:
    cli("run", str(config_file), "--thread-id", "t", "--text-column", "body")
    assert not (tmp_path / "runs" / "t").exists()


@pytest.mark.usefixtures("hash_encoder")
def test_a_missing_key_is_found_before_anything_is_made(
    cli: Cli, make_config: MakeConfig, config_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "hosted.yaml").write_text(
        make_config(llm__base_url="https://api.openai.com/v1").to_yaml(), encoding="utf-8"
    )
    (tmp_path / "file.yaml").write_text(
        make_config(llm__provider="embedded", llm__model="missing.gguf").to_yaml(), encoding="utf-8"
    )
    with monkeypatch.context() as patch:
        patch.setattr("synalign_agent.wiring.read_rows", read)
        for name, says in (("hosted.yaml", "OPENAI_API_KEY is not set"), ("file.yaml", "no such GGUF file")):
            code, _, err = cli("run", str(tmp_path / name), "--thread-id", "t")
            assert code == 2 and says in err
    assert not (tmp_path / "runs").exists()

    # With another command: a session that is there, whose key is gone.
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    Session.create(make_config(llm__base_url="https://api.openai.com/v1"), thread_id="t").close()
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setattr("synalign_agent.wiring.session_encoder", read)
    code, _, err = cli("resume", "t", "--runs-dir", str(tmp_path / "runs"))
    assert code == 2 and "OPENAI_API_KEY is not set" in err


@pytest.mark.usefixtures("hash_encoder")
def test_a_session_that_has_made_nothing_takes_another_configuration(
    cli: Cli, make_config: MakeConfig, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    Session.create(make_config(llm__base_url="https://api.openai.com/v1"), thread_id="t").close()
    code, _, err = cli("run", str(config_file), "--thread-id", "t", "--seed", "9")
    assert code == 2 and "seed: 0 -> 9" in err  # the split depends on it
    assert cli("run", str(config_file), "--thread-id", "t")[0] == 0
    code, _, err = cli("run", str(config_file), "--thread-id", "t", "--n-samples", "12")
    assert code == 2 and "n_samples: 24 -> 12" in err


def test_init_writes_a_file_that_checks(cli: Cli, chat_server: ChatServer, tmp_path: Path) -> None:
    code, _, err = cli("init")
    assert code == 0 and "synalign run" in err
    assert cli("init")[0] == 2  # never overwrites by itself
    assert cli("init", "--force")[0] == 0
    values = yaml.safe_load((tmp_path / "synalign.yaml").read_text(encoding="utf-8"))
    values["llm"] |= {"provider": "openai", "base_url": chat_server.base_url, "model": "scripted"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


@pytest.mark.usefixtures("hash_encoder")
def test_check_spends_no_call_and_names_what_is_wrong(
    cli: Cli, config_file: Path, make_config: MakeConfig, chat_server: ChatServer, tmp_path: Path
) -> None:
    code, out, _ = cli("config", "check", str(config_file), "--json")
    assert code == 0 and json.loads(out)["ok"] is True
    assert chat_server.requests == []
    path = tmp_path / "other.yaml"
    path.write_text(make_config(llm__base_url="http://127.0.0.1:9/v1").to_yaml(), encoding="utf-8")
    code, _, err = cli("config", "check", str(path))
    assert code == 5 and "llm.base_url" in err


def test_schema_is_json_schema(cli: Cli) -> None:
    code, out, _ = cli("config", "schema")
    assert code == 0
    assert json.loads(out)["properties"].keys() == SessionConfig.model_fields.keys()


def test_help_imports_nothing_heavy(cli: Cli) -> None:
    import subprocess

    probe = (
        "import sys; sys.argv = ['synalign', '--help']\n"
        "import synalign_agent.cli.app as app\n"
        "try: app.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'langgraph', 'faiss', 'sentence_transformers', 'pandas', 'numpy', 'openai', 'pydantic', 'plotly'}\n"
        "sys.stderr.write(','.join(sorted(heavy & sys.modules.keys())))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    assert done.stderr == ""


def test_texts_reach_the_terminal_as_texts() -> None:
    assert escape("[bold]50 %[/] off\n\tnow") == r"\[bold]50 %\[/] off" + "\n\tnow"
    assert escape("\x1b]0;title\x07 \x9b31m") == "\ufffd]0;title\ufffd \ufffd31m"
