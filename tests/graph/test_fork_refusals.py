"""Forks that cannot be: refused with a sentence, and nothing is left of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.chat_server import ChatServer
from support.forks import small_config, wherever_parents_are_kept

from synalign_agent.config import SessionConfig
from synalign_agent.errors import ConfigError, InputError, SessionError
from synalign_agent.fork import fork_session
from synalign_agent.session import Session

pytestmark = pytest.mark.usefixtures("hash_encoder")


@pytest.mark.parametrize("from_round", [0, -1, 6])
def test_rounds_that_do_not_exist_are_refused(parent: Path, from_round: int) -> None:
    with pytest.raises(InputError, match=r"finished 4 rounds: a fork can start from round 1 to 5, not"):
        fork_session(parent, from_round=from_round, thread_id="fork")
    assert sorted(path.name for path in parent.parent.iterdir()) == ["parent"]


@pytest.mark.parametrize(
    ("overrides", "error", "says"),
    [
        ({"seed": 7}, SessionError, "depend on data, seed and encoder"),
        ({"data.holdout_fraction": 0.4}, SessionError, "depend on data, seed and encoder"),
        ({"encoder.model": "other/model"}, SessionError, "depend on data, seed and encoder"),
        ({"align.lengthscale_multipliers": [3.0]}, SessionError, "measured with the kernel"),
        ({"target.mmd": 1}, ConfigError, "unknown field"),
        ({"target": 1}, ConfigError, "target"),
        ({"target.mmd2": "small"}, ConfigError, r"--set: target\.mmd2"),
        ({"storage.encryption_key_env": "KEY"}, ConfigError, "as its parent is"),
        ({"runs_dir": "elsewhere"}, ConfigError, "lies beside its parent"),
    ],
)
def test_overrides_that_cannot_be_are_refused(parent: Path, overrides: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        fork_session(parent, from_round=3, overrides=overrides, thread_id="fork")
    assert sorted(path.name for path in parent.parent.iterdir()) == ["parent"]


@wherever_parents_are_kept
def test_names(parent: Path) -> None:
    assert [fork_session(parent).name, fork_session(parent).name] == ["parent-fork1", "parent-fork2"]
    with pytest.raises(SessionError, match="exists already"):
        fork_session(parent, thread_id="parent")
    with pytest.raises(InputError, match="thread id"):
        fork_session(parent, thread_id="../up")
    with pytest.raises(SessionError, match="no such session"):
        fork_session(parent.parent / "nobody", thread_id="x")
    assert sorted(path.name for path in parent.parent.iterdir()) == ["parent", "parent-fork1", "parent-fork2"]


def test_a_damaged_session_is_not_forked(parent: Path) -> None:
    shutil.copytree(parent, parent.parent / "cut")
    with (parent.parent / "cut" / "session.sqlite").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(SessionError):
        fork_session(parent.parent / "cut", thread_id="x")
    assert sorted(path.name for path in parent.parent.iterdir()) == ["cut", "parent"]


@pytest.mark.parametrize("original", ["postgres"], indirect=True)
def test_in_a_database_a_fork_is_whole_or_not_there(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = SessionConfig.load(parent / "config.yaml", resolve_paths=False).storage.url
    assert url is not None

    def schemas() -> list[str]:
        with psycopg.connect(url) as connection:
            found = connection.execute(
                "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'synalign%' ORDER BY 1"
            )
            return [name for (name,) in found.fetchall()]

    with pytest.raises(ConfigError, match="unknown field"):
        fork_session(parent, overrides={"nothing": 1}, thread_id="fork")
    assert schemas() == ["synalign_parent"]
    # Somebody on another machine has the name.
    with Session.create(small_config(ChatServer(), parent.parent.parent / "other", url), thread_id="fork"):
        pass
    with pytest.raises(SessionError, match="synalign_fork: exists already; choose another --thread-id"):
        fork_session(parent, thread_id="fork")
    assert schemas() == ["synalign_fork", "synalign_parent"]
    assert [path.name for path in parent.parent.iterdir()] == ["parent"]
    # The last step fails.
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("power cut")))
    with pytest.raises(SessionError, match="power cut"):
        fork_session(parent, thread_id="late")
    assert schemas() == ["synalign_fork", "synalign_parent"]
    shutil.copytree(parent, parent.parent / "nobody")
    with pytest.raises(SessionError, match="synalign_nobody: there is none"):
        fork_session(parent.parent / "nobody", thread_id="late")
