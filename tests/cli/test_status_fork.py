"""`synalign status` with its ledger, the list of all sessions, and `synalign fork`."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import filelock
import pytest
from conftest import HashEncoder
from support.chat_server import ChatServer, Reply
from support.postgres import wherever_kept

from synalign_agent import wiring
from synalign_agent.cli.fork import _parse
from synalign_agent.config import SessionConfig
from synalign_agent.errors import InputError
from synalign_agent.report.sessions import list_sessions
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]
Cli = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("hash_encoder")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ChatServer, Path]]:
    """Make a session of 2 rounds with prices, whose third call failed once; return its endpoint and its folder."""
    failing_once = ChatServer(lambda body, number: Reply(status=500) if number == 2 else None)
    with pytest.MonkeyPatch.context() as patch, failing_once as server:
        patch.setenv("SYNALIGN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(wiring, "make_encoder", lambda *_: HashEncoder())
        prices = {"prompt_usd_per_million_tokens": 1.0, "completion_usd_per_million_tokens": 2.0}
        config = SessionConfig.parse(
            {
                "data": {"path": "example:customer_messages"},
                "n_samples": 24,
                "runs_dir": str(tmp_path_factory.mktemp("runs")),
                "llm": {"base_url": server.base_url, "model": "scripted", "concurrency": 8, "prices": prices},
                "generate": {"samples_per_call": 4, "calls_per_cluster": 1},
                "attributes": {"dimensions": {"topic": "subject", "tone": "mood"}},
                "gates": {"label_check": {"method": "none"}},
                "limits": {"max_rounds": 2},
                "target": {"mmd2": -1.0},
            }
        )
        with Session.create(config, thread_id="t") as session:
            session.run()
        yield server, session.folder


@pytest.fixture
def chat_server(original: tuple[ChatServer, Path]) -> ChatServer:
    return original[0]


@pytest.fixture
def session_folder(original: tuple[ChatServer, Path], tmp_path: Path) -> Path:
    """Return a copy of the original session."""
    return Path(shutil.copytree(original[1], tmp_path / "runs" / "t"))


def test_status_shows_the_ledger(cli: Cli, session_folder: Path, tmp_path: Path) -> None:
    code, out, _ = cli("status", "t", "--json")
    result = json.loads(out)
    ledger = result["ledger"]
    with closing(sqlite3.connect(session_folder / "session.sqlite")) as connection:
        rows = connection.execute(
            "SELECT node, round, prompt_tokens + completion_tokens, cost_usd FROM calls"
        ).fetchall()
        n_samples = connection.execute("SELECT COUNT(*) FROM samples").fetchone()[0]
    assert code == 0
    assert ledger["calls"]["done"] == result["calls"]["done"] == len(rows) - 1
    assert (ledger["calls"]["failed"], ledger["calls"]["failed_by_class"]) == (1, {"server_error": 1})
    assert ledger["calls"]["repeated"] == ledger["calls"]["in_flight_lost"] == ledger["calls"]["in_flight"] == 0
    assert ledger["cost_usd"] == pytest.approx(sum(row[3] for row in rows)) == pytest.approx(result["cost_usd"])
    assert ledger["cost_usd"] > 0
    for node, part in ledger["by_node"].items():
        assert part["tokens"]["prompt"] + part["tokens"]["completion"] == sum(row[2] for row in rows if row[0] == node)
    assert ledger["by_node"].keys() == {"summarize_attributes", "generate"}
    assert ledger["by_prompt"].keys() == {"summarize_attributes", "generate_samples"}
    assert ledger["per_accepted_sample"]["cost_usd"] == pytest.approx(ledger["cost_usd"] / n_samples)
    second = ledger["by_round"][1]
    assert second["cost_usd"] == pytest.approx(sum(row[3] for row in rows if row[1] == 2))
    rounds = json.loads((session_folder / "report.json").read_text())["rounds"]
    gained = rounds[0]["mmd2"]["aligned"] - rounds[1]["mmd2"]["aligned"]
    assert second["mmd2_gained"] == pytest.approx(gained)
    assert second["cost_usd_per_mmd2"] == (pytest.approx(second["cost_usd"] / gained) if gained > 0 else None)
    assert json.loads((session_folder / "report.json").read_text())["ledger"] == ledger

    code, out, _ = cli("status", "t")
    assert code == 0
    for text in ("By prompt", "By node", "By round", "generate_samples", "For each accepted sample", "server_error 1"):
        assert text in out, text
    page = (session_folder / "report.html").read_text(encoding="utf-8")
    for text in ("Cost by node", "Cost by round", "Cost per accepted row", "server_error"):
        assert text in page, text


def test_tables_in_a_pipe_cut_no_name(cli: Cli, session_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "customer_messages-with-a-long-name-20260101-120000"
    shutil.copytree(session_folder, session_folder.parent / name)
    monkeypatch.delenv("COLUMNS")  # as in a pipe: nothing says how wide it is
    assert any(f" {name} " in line for line in cli("status")[1].splitlines())
    _, out, _ = cli("status", "t")
    assert " summarize_attributes " in out and " completion tokens " in out
    monkeypatch.setenv("COLUMNS", "70")
    assert max(map(len, cli("status")[1].splitlines())) == 70


def test_status_without_a_name_lists_all_sessions(cli: Cli, session_folder: Path, tmp_path: Path) -> None:
    runs = session_folder.parent
    assert cli("fork", "t", "--from-round", "2", "--set", "target.mmd2=0.5", "--thread-id", "forked")[0] == 0
    shutil.copytree(session_folder, runs / "killed")
    with closing(sqlite3.connect(runs / "killed" / "session.sqlite")) as connection, connection:
        connection.execute("UPDATE meta SET value = 'running' WHERE key = 'status'")
    shutil.copytree(runs / "killed", runs / "at-work")
    (runs / "damaged").mkdir()
    (runs / "damaged" / "session.sqlite").write_bytes(b"not a database" * 100)
    (runs / "notes").mkdir()
    (runs / "remote").mkdir()
    (runs / "remote" / "config.yaml").write_text("storage: {url: 'postgresql://u@127.0.0.1:1/d'}", encoding="utf-8")
    with filelock.FileLock(runs / "at-work" / ".lock"):
        code, out, _ = cli("status", "--json")
        rows = {row["thread_id"]: row for row in json.loads(out)["sessions"]}
        assert {name: row["status"] for name, row in rows.items()} == {
            "at-work": "running", "damaged": "unreadable", "forked": "new", "killed": "interrupted", "remote": "unreadable",
            "t": "finished",
        }  # fmt: skip
    assert code == 0
    summary = json.loads(cli("status", "t", "--json")[1])
    listed = rows["t"]
    assert listed["calls"] == {"done": summary["calls"]["done"], "failed": 1}
    assert listed["cost_usd"] == pytest.approx(summary["cost_usd"])
    for name in ("n_rounds", "n_pool", "n_requested", "n_selected", "stop_reason"):
        assert listed[name] == summary[name], name
    assert listed["mmd2"] == {name: summary["mmd2"][name] for name in ("aligned", "target")}
    assert (rows["forked"]["forked_from"], rows["forked"]["n_rounds"]) == ("t", 1)
    assert rows["damaged"]["n_pool"] is None and "damaged" in rows["damaged"]["error"]

    code, out, err = cli("status", "--runs-dir", str(runs))
    assert code == 0
    assert all(name in out for name in rows)
    assert "damaged" in err
    code, out, err = cli("status", "--runs-dir", str(tmp_path / "nothing"))
    assert (code, out) == (0, "")
    assert "synalign run" in err


def test_a_list_writes_to_no_session(session_folder: Path) -> None:
    database = session_folder / "session.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 1")  # of an earlier release
    before = database.read_bytes()
    (row,) = list_sessions(session_folder.parent)
    assert row["status"] == "finished"
    assert database.read_bytes() == before


@wherever_kept
def test_a_session_is_listed_exported_and_shown_wherever_it_is_kept(cli: Cli, make_config: MakeConfig) -> None:
    config = make_config(limits__max_rounds=1)
    with Session.create(config, thread_id="t") as session:
        session.run()
        shown = json.loads(cli("status", "t", "--json")[1])
        session.store.set_meta("status", "running")
        with ExitStack() as stack:
            wiring.lock_session(session.folder, stack, session.store)
            assert [row["status"] for row in list_sessions(session.folder.parent)] == ["running"]
    (row,) = list_sessions(Path(config.runs_dir))
    assert (row["status"], row["error"]) == ("interrupted", None)
    for name in ("n_rounds", "n_pool", "n_requested", "n_selected", "stop_reason"):
        assert row[name] == shown[name], name
    assert row["calls"] == {"done": shown["calls"]["done"], "failed": 0}
    shutil.rmtree(session.folder / "export")
    code, out, _ = cli("export", "t", "--json")
    assert code in (0, 3) and Path(json.loads(out)["paths"]["dataset"]).exists()


def test_a_list_without_prices_knows_no_cost(make_config: MakeConfig) -> None:
    config = make_config(limits__max_rounds=1)
    with Session.create(config, thread_id="free") as session:
        session.run()
    (row,) = list_sessions(Path(config.runs_dir))
    assert row["cost_usd"] is None
    assert row["calls"]["done"] > 0


def test_a_list_loads_nothing_heavy(session_folder: Path) -> None:
    probe = (
        f"import sys; sys.argv = ['synalign', 'status', '--runs-dir', {str(session_folder.parent)!r}, '--json']\n"
        "import synalign_agent.cli.app as app\n"
        "try: app.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'langgraph', 'langchain_core', 'faiss', 'pandas', 'numpy', 'openai', 'plotly'}\n"
        "sys.stderr.write(','.join(sorted(heavy & sys.modules.keys())))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout)["sessions"][0]["thread_id"] == "t"
    assert done.stderr == ""


def test_fork_from_the_command_line(cli: Cli, session_folder: Path, chat_server: ChatServer) -> None:
    n_requests = len(chat_server.requests)
    code, out, err = cli(
        "fork",
        "t",
        "--from-round",
        "2",
        "--set",
        "target.mmd2=1e-3",
        "--set",
        "limits.max_calls=null",
        "--thread-id",
        "new",
    )
    assert (code, out) == (0, "")
    assert "new: shares rounds 1 to 1 of t" in err
    assert "target.mmd2: -1.0 -> 0.001" in err
    assert "synalign resume new --runs-dir runs" in err
    assert len(chat_server.requests) == n_requests
    code, out, err = cli("status", "new")
    assert "forked from t at round 2; target.mmd2: -1.0 -> 0.001" in err
    code, out, _ = cli("resume", "new", "--json")
    assert (code, json.loads(out)["n_rounds"]) == (0, 2)
    assert len(chat_server.requests) == n_requests
    code, out, _ = cli("fork", "new", "--json")
    assert (code, json.loads(out)["thread_id"]) == (0, "new-fork1")
    assert [fork["parent"] for fork in json.loads(out)["lineage"]] == ["t", "new"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nobody"], "no such session"),
        (["t", "--from-round", "9"], "from round 1 to 3, not 9"),
        (["t", "--set", "seed=3"], "depend on data, seed and encoder"),
        (["t", "--set", "seed"], "field=value"),
        (["t", "--set", "target.mmd2=[1"], "not YAML"),
        (["t", "--set", "target.nothing=1"], "unknown field"),
        (["t", "--thread-id", "t"], "exists already"),
    ],
)
@pytest.mark.usefixtures("session_folder")
def test_bad_forks_are_exit_2_with_a_sentence(cli: Cli, arguments: list[str], says: str) -> None:
    code, out, err = cli("fork", *arguments)
    assert (code, out) == (2, "")
    assert says in err.replace("\n", " ")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("a.b=1", ("a.b", 1)), ("a=1e-3", ("a", 0.001)), ("a=null", ("a", None)), ("a=x=y", ("a", "x=y")),
        ("a={b: [1, c]}", ("a", {"b": [1, "c"]})), ("a=true", ("a", True)), ("a=", ("a", None)),
    ],
)  # fmt: skip
def test_values_are_yaml(setting: str, expected: tuple[str, Any]) -> None:
    assert _parse(setting) == expected
    with pytest.raises(InputError):
        _parse("=1")
