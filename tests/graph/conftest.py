from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import HashEncoder
from support.chat_server import ChatServer
from support.forks import Original, small_config
from support.postgres import new_database

from synalign_agent import wiring
from synalign_agent.config import SessionConfig
from synalign_agent.session import Session


@pytest.fixture(scope="session")
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Original]:
    """Make a finished session of 4 rounds once; return its endpoint and folder, what was answered to it, and its database."""
    remote = getattr(request, "param", "sqlite") == "postgres"
    url = new_database(request.getfixturevalue("postgres_url")) if remote else None
    with ChatServer() as server:
        config = small_config(server, tmp_path_factory.mktemp("runs"), url)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SYNALIGN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
            patch.setattr(wiring, "make_encoder", lambda *_: HashEncoder())
            with Session.create(config, thread_id="parent") as session:
                session.run()
        yield server, session.folder, list(server.answered), url


@pytest.fixture
def parent(original: Original, tmp_path: Path) -> Path:
    """Return a copy of the original session, in a copy of its database."""
    _, folder, _, url = original
    copy = Path(shutil.copytree(folder, tmp_path / "runs" / "parent"))
    if url is not None:
        text = (copy / "config.yaml").read_text(encoding="utf-8")
        (copy / "config.yaml").write_text(text.replace(url, new_database(url, url)), encoding="utf-8")
    return copy


@pytest.fixture
def waiting(make_config: Callable[..., SessionConfig]) -> Iterator[Session]:
    """A session whose first round waits for a review of its samples."""
    with Session.create(make_config(review__samples="first_round", limits__max_rounds=2), thread_id="t") as session:
        assert session.run()["status"] == "waiting_for_review"
        yield session
