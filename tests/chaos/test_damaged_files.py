"""Files of a session that are cut, overwritten or gone: vectors are made again, the database is never replaced silently."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import HashEncoder
from support.chat_server import ChatServer

from synalign_agent import wiring
from synalign_agent.config import SessionConfig
from synalign_agent.errors import SessionError
from synalign_agent.session import Session

pytestmark = pytest.mark.usefixtures("hash_encoder")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ChatServer, Path, dict[str, Any]]]:
    """Return an endpoint, a session stopped by its limit after 2 of 3 rounds, and what it comes to with all 3."""
    with pytest.MonkeyPatch.context() as patch, ChatServer() as server:
        patch.setenv("SYNALIGN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(wiring, "make_encoder", lambda *_: HashEncoder())
        config = SessionConfig.parse(
            {
                "data": {"path": "example:customer_messages"},
                "n_samples": 24,
                "runs_dir": str(tmp_path_factory.mktemp("runs")),
                "llm": {"base_url": server.base_url, "model": "scripted", "concurrency": 8},
                "generate": {"samples_per_call": 4, "calls_per_cluster": 1},
                "attributes": {"dimensions": {"topic": "subject", "tone": "mood"}},
                "gates": {"label_check": {"method": "none"}},
                "limits": {"max_rounds": 2, "patience_rounds": 99},
                "target": {"mmd2": -1.0},
            }
        )
        with Session.create(config, thread_id="t") as session:
            session.run()
        whole = Path(shutil.copytree(session.folder, session.folder.parent / "whole"))
        yield server, session.folder, go_on(whole)


def go_on(folder: Path) -> dict[str, Any]:
    """Resume with one more round, and return what came of it."""
    text = (folder / "config.yaml").read_text(encoding="utf-8").replace("max_rounds: 2", "max_rounds: 3")
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    with Session.open(folder.name, runs_dir=folder.parent, accept_changes=True) as session:
        result = session.run()
    pool = pd.read_parquet(folder / "export" / "pool.parquet")
    shown = {name: result[name] for name in ("n_rounds", "n_selected", "rejections", "n_pool")}
    mmd2 = {
        name: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
        for name, value in result["mmd2"].items()
    }
    return {**shown, "texts": pool["text"].tolist(), "mmd2": mmd2 if folder.name == "whole" else result["mmd2"]}


def delete_all(folder: Path) -> None:
    shutil.rmtree(folder)


def delete(pattern: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        found = list(folder.glob(pattern))
        assert found
        for path in found:
            path.unlink()

    return apply


def cut(pattern: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        found = list(folder.glob(pattern))
        assert found
        for path in found:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return apply


def flip(pattern: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        found = list(folder.glob(pattern))
        assert found
        for path in found:
            content = bytearray(path.read_bytes())
            content[len(content) * 3 // 4] ^= 0xFF
            path.write_bytes(content)

    return apply


DAMAGES = {
    "gone": delete_all,
    "pool.json gone": delete("pool.json"),
    "vectors gone": delete("*.npy"),
    "vectors cut": cut("*.npy"),
    "vectors flipped": flip("*.npy"),
    "descriptions cut": cut("*.json"),
    "descriptions flipped": flip("*.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_vectors_are_made_again(stopped: tuple[ChatServer, Path, dict[str, Any]], tmp_path: Path, damage: str) -> None:
    _, original, expected = stopped
    folder = Path(shutil.copytree(original, tmp_path / "runs" / "t"))
    DAMAGES[damage](folder / "vectors")
    assert go_on(folder) == expected


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_database_is_refused_with_advice_and_left_alone(
    stopped: tuple[ChatServer, Path, dict[str, Any]], tmp_path: Path, share: float
) -> None:
    server, original, _ = stopped
    folder = Path(shutil.copytree(original, tmp_path / "runs" / "t"))
    database = folder / "session.sqlite"
    with database.open("r+b") as file:
        file.truncate(round(share * database.stat().st_size))
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    n_requests = len(server.requests)
    with pytest.raises(SessionError) as refused, Session.open("t", runs_dir=folder.parent) as session:
        session.run()
    assert "session.sqlite" in str(refused.value) or "never started" in str(refused.value)
    assert any(word in str(refused.value).lower() for word in ("restore", "copy"))
    assert len(server.requests) == n_requests
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
