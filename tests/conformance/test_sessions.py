"""Whole sessions, in files and in PostgreSQL, plain and encrypted: interrupted, moved, damaged, and searched for secrets."""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from support.chat_server import ChatServer, Reply

from synalign_agent import graph as graph_module
from synalign_agent import wiring
from synalign_agent.config import SessionConfig
from synalign_agent.errors import SessionError, SynAlignError
from synalign_agent.records import content_id
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]
KEY_VARIABLE, API_VARIABLE = "SYNALIGN_TEST_KEY", "SYNALIGN_TEST_API_KEY"
CANARY = "sk-canary-5d2f9e71c3"
PASSWORD = "pw-canary-81ab64"


@pytest.fixture
def thread_id(tmp_path: Path) -> str:
    return f"t-{content_id(str(tmp_path))}"  # the server of the tests keeps the sessions of all of them


@pytest.fixture(params=["sqlite", "encrypted", "postgres", "postgres-encrypted"])
def config(request: pytest.FixtureRequest, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> SessionConfig:
    overrides: dict[str, Any] = {"limits__max_rounds": 3, "target__mmd2": -1.0, "llm__api_key_env": API_VARIABLE}
    monkeypatch.setenv(API_VARIABLE, CANARY)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    if "postgres" in request.param:
        overrides["storage__url"] = request.getfixturevalue("postgres_url")
    if "encrypted" in request.param:
        monkeypatch.setenv(KEY_VARIABLE, base64.b64encode(os.urandom(32)).decode())
        overrides["storage__encryption_key_env"] = KEY_VARIABLE
    return make_config(**overrides)


def run(config: SessionConfig, thread_id: str) -> dict[str, Any]:
    with Session.create(config, thread_id=thread_id) as session:
        return session.run()


def pool_of(result: dict[str, Any]) -> list[str]:
    return sorted(pd.read_parquet(result["paths"]["pool"])["text"])


def same(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert (one["mmd2"], one["n_selected"], one["rejections"]) == (two["mmd2"], two["n_selected"], two["rejections"])
    assert pool_of(one) == pool_of(two)


def crash_in(monkeypatch: pytest.MonkeyPatch, config: SessionConfig, thread_id: str, node: str, nth: int) -> None:
    """Run a session until a node has done its work for the nth time, and end it before that is checkpointed."""
    original, seen = getattr(graph_module, node), {"n": 0}

    def dying(state: Any, deps: Any) -> Any:
        original(state, deps)
        seen["n"] += 1
        if seen["n"] == nth:
            raise RuntimeError("power cut")
        return original(state, deps)

    with monkeypatch.context() as patch:
        patch.setattr(graph_module, node, dying)
        with Session.create(config, thread_id=thread_id) as session, pytest.raises(RuntimeError, match="power cut"):
            session.run()


@pytest.mark.usefixtures("hash_encoder")
def test_a_session_ends_the_same_wherever_it_is_kept_and_after_a_crash(
    config: SessionConfig, chat_server: ChatServer, thread_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = config.with_overrides({"storage": {}})
    undisturbed = run(plain, "undisturbed")
    n_requests = len(chat_server.requests)
    crash_in(monkeypatch, config, thread_id, "align", 2)
    with Session.open(thread_id, runs_dir=config.runs_dir) as session:
        assert session.status() == "failed"
        resumed = session.run()
        assert session.resumed and session.status() == "finished"
    same(resumed, undisturbed)
    assert resumed["calls"]["repeated"] == 0 and len(chat_server.requests) == 2 * n_requests
    with Session.view(thread_id, runs_dir=config.runs_dir) as session:
        assert session.summary()["mmd2"] == undisturbed["mmd2"]


@pytest.mark.usefixtures("hash_encoder")
def test_secrets_are_nowhere(
    config: SessionConfig, thread_id: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    sent, parse = [], BaseHTTPRequestHandler.parse_request

    def recording(self: BaseHTTPRequestHandler) -> bool:
        understood = parse(self)
        sent.append(self.headers.get("Authorization"))
        return understood

    monkeypatch.setattr(BaseHTTPRequestHandler, "parse_request", recording)
    result = run(config, thread_id)
    assert set(sent) == {f"Bearer {CANARY}"}  # it was used, and yet:
    folder = Path(config.runs_dir) / thread_id
    secrets = [CANARY, PASSWORD, os.environ.get(KEY_VARIABLE, CANARY)]
    written = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert {"config.yaml", "dataset.parquet", "report.html", "report.json"} <= {file.name for file in written}
    everything = b"".join(written.values()) + json.dumps(result).encode()
    with Session.view(thread_id, runs_dir=config.runs_dir) as session:
        store = session.store
        facts = [store.meta(key) for key in ("config", "prompts", "encryption", "warnings", "owner")]
        replies = [str(call.content) for call in store.calls(node="generate") if call.state == "done"]
        everything += repr([store.calls(), store.samples(), store.rounds(), facts]).encode()
    everything += caplog.text.encode() + "".join(capfd.readouterr()).encode()
    for secret in secrets:
        assert secret.encode() not in everything
    if config.storage.url is None:
        # Replies as the model wrote them; what the session made of them, the pool say, is readable.
        database = b"".join(written[file] for file in written if file.name.startswith("session.sqlite"))
        readable = [reply for reply in replies if reply.encode()[:30] in database]
        assert len(replies) >= 10 and bool(readable) != bool(config.storage.encryption_key_env)


@pytest.mark.usefixtures("hash_encoder")
def test_another_machine_takes_over_a_session_that_is_kept_on_a_server(
    postgres_url: str, make_config: MakeConfig, chat_server: ChatServer, thread_id: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = make_config(limits__max_rounds=3, target__mmd2=-1.0, storage__url=postgres_url)
    undisturbed = run(config.with_overrides({"storage.url": None, "storage": {}}), "undisturbed")
    n_requests = len(chat_server.requests)
    crash_in(monkeypatch, config, thread_id, "align", 2)
    elsewhere = config.with_overrides({"runs_dir": str(tmp_path / "elsewhere")})
    with Session.create(elsewhere, thread_id=thread_id) as session:
        assert session.resumed and not (session.folder / "vectors").exists()
        result = session.run()
    same(result, undisturbed)
    assert result["calls"]["repeated"] == 0 and len(chat_server.requests) == 2 * n_requests
    assert (
        sorted(file.name for file in (tmp_path / "elsewhere" / thread_id).iterdir() if file.suffix == ".sqlite") == []
    )


@pytest.mark.usefixtures("hash_encoder")
def test_a_session_that_runs_on_one_machine_is_not_run_on_another(
    postgres_url: str, make_config: MakeConfig, thread_id: str, tmp_path: Path
) -> None:
    config = make_config(storage__url=postgres_url)
    elsewhere = config.with_overrides({"runs_dir": str(tmp_path / "elsewhere")})
    with Session.create(config, thread_id=thread_id) as here, Session.create(elsewhere, thread_id=thread_id) as there:
        with ExitStack() as stack:
            wiring.lock_session(here.folder, stack, here.store)
            with pytest.raises(SessionError, match=f"is being run by process {os.getpid()} on .*; wait for it"):
                there.run()
            assert wiring.is_locked(there.folder, there.store)
        assert not wiring.is_locked(there.folder, there.store)
        assert there.run()["n_selected"] == 24


@pytest.mark.usefixtures("hash_encoder")
def test_a_session_in_files_can_be_copied_elsewhere_and_resumed(
    make_config: MakeConfig, chat_server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(limits__max_rounds=3, target__mmd2=-1.0)
    undisturbed = run(config, "undisturbed")
    n_requests = len(chat_server.requests)
    crash_in(monkeypatch, config, "t", "align", 2)
    shutil.copytree(Path(config.runs_dir) / "t", tmp_path / "copied" / "t")
    shutil.rmtree(Path(config.runs_dir) / "t")
    with Session.open("t", runs_dir=tmp_path / "copied") as session:
        same(session.run(), undisturbed)
    assert len(chat_server.requests) == 2 * n_requests and not (Path(config.runs_dir) / "t").exists()


def spoil(files: list[Path], how: str) -> None:
    for file in files:
        content = file.read_bytes()
        if how == "deleted":
            file.unlink()
        elif how == "cut":
            file.write_bytes(content[: len(content) // 2])
        else:
            file.write_bytes(bytes(byte ^ 0x55 for byte in content))


@pytest.mark.usefixtures("hash_encoder")
@pytest.mark.parametrize("how", ["deleted", "cut", "corrupt"])
def test_vectors_are_rebuilt(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    config = make_config(limits__max_rounds=3, target__mmd2=-1.0)
    undisturbed = run(config, "undisturbed")
    crash_in(monkeypatch, config, "t", "align", 2)
    vectors = [file for file in (Path(config.runs_dir) / "t" / "vectors").rglob("*") if file.is_file()]
    assert len(vectors) >= 4
    spoil(vectors, how)
    same(run(config, "t"), undisturbed)


@pytest.mark.usefixtures("hash_encoder")
@pytest.mark.parametrize("crash", [("explore", 2), ("align", 2), None])
def test_a_session_without_its_checkpoints_is_replayed_from_the_journal(
    make_config: MakeConfig, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, crash: tuple[str, int] | None
) -> None:
    config = make_config(limits__max_rounds=3, target__mmd2=-1.0)
    undisturbed = run(config, "undisturbed")
    n_requests = len(chat_server.requests)
    if crash is None:
        run(config, "t")
    else:
        crash_in(monkeypatch, config, "t", *crash)
    for file in (Path(config.runs_dir) / "t").glob("checkpoints.sqlite*"):
        file.unlink()
    result = run(config, "t")
    same(result, undisturbed)
    assert result["calls"]["repeated"] == 0 and len(chat_server.requests) == 2 * n_requests


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB, or a skipped test where nobody may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24M", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.usefixtures("hash_encoder")
def test_a_run_on_a_disk_that_fills_up_stops_with_advice_and_goes_on_when_there_is_space(
    make_config: MakeConfig, chat_server: ChatServer, small_disk: Path
) -> None:
    config = make_config(limits__max_rounds=3, target__mmd2=-1.0)
    undisturbed = run(config, "undisturbed")
    n_requests = len(chat_server.requests)
    crowded = config.with_overrides({"runs_dir": str(small_disk)})
    ballast = small_disk / "ballast"
    stops = 0
    # Ever less space: each run ends at another write, in the journal, the checkpoints, the vectors or the export.
    for free_kb in range(0, 1400, 100):
        ballast.write_bytes(b"")
        try:
            with Session.create(crowded, thread_id="t") as session:
                # From here on the disk has `free_kb` left.
                available = os.statvfs(small_disk)
                ballast.write_bytes(bytes(max(available.f_bavail * available.f_frsize - free_kb * 1024, 0)))
                session.run()
        except SessionError as error:
            assert "free disk space" in str(error), error
            stops += 1
        finally:
            ballast.write_bytes(b"")
    assert stops >= 3
    result = run(crowded, "t")
    same(result, undisturbed)
    assert result["calls"]["repeated"] == 0
    assert len(chat_server.requests) - 2 * n_requests <= result["calls"]["in_flight_lost"]


@pytest.mark.usefixtures("hash_encoder")
@pytest.mark.parametrize("nth", range(1, 22, 2))
def test_a_process_that_dies_before_a_checkpoint_goes_on_from_the_one_before(
    make_config: MakeConfig, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    # LangGraph has then kept what the tasks returned, but not the checkpoint that follows from it.
    config = make_config(limits__max_rounds=3, target__mmd2=-1.0)
    undisturbed = run(config, "undisturbed")
    n_requests = len(chat_server.requests)
    put, seen = AsyncSqliteSaver.aput, {"n": 0}

    async def dying(self: Any, *given: Any) -> Any:
        seen["n"] += 1
        if seen["n"] == nth:
            raise RuntimeError("power cut")
        return await put(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(AsyncSqliteSaver, "aput", dying)
        with Session.create(config, thread_id="t") as session, pytest.raises(RuntimeError, match="power cut"):
            session.run()
    result = run(config, "t")
    same(result, undisturbed)
    assert result["status"] == "finished" and result["calls"]["repeated"] == 0
    assert n_requests <= len(chat_server.requests) - n_requests <= n_requests + result["calls"]["in_flight_lost"]


@pytest.mark.usefixtures("hash_encoder")
@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_an_endpoint_that_repeats_the_key_does_not_get_it_into_the_session(
    make_config: MakeConfig,
    thread_id: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    monkeypatch.setenv(API_VARIABLE, CANARY)
    caplog.set_level(logging.INFO)
    with ChatServer(
        script=lambda body, number: Reply(f"Incorrect API key provided: {CANARY}.", status=status)
    ) as server:
        config = make_config(llm__base_url=server.base_url, llm__api_key_env=API_VARIABLE, llm__max_attempts=1)
        with Session.create(config, thread_id=thread_id) as session:
            with pytest.raises(SynAlignError) as caught:
                session.run()
            journal = repr(session.store.calls())
    assert "Incorrect API key" in journal
    assert CANARY not in str(caught.value) + journal + caplog.text
    assert not [file for file in session.folder.rglob("*") if file.is_file() and CANARY.encode() in file.read_bytes()]
