from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from synalign_agent.errors import ConfigError
from synalign_agent.llm.response_cache import ResponseCache
from synalign_agent.records import CallRecord


def planned(key: str) -> CallRecord:
    return CallRecord(
        key=key, attempt=2, state="intended", node="generate", round=1, cluster_id="c", draw=0, prompt="p", prompt_version="1",
        prompt_sha256="0", model="m", seed=1, bound_tokens=50, bound_usd=0.5,
    )  # fmt: skip


def done(key: str, content: str) -> CallRecord:
    return replace(planned(key), state="done", content=content, finish_reason="stop", prompt_tokens=3, cost_usd=0.1)


def test_a_hit_is_a_finished_call_that_costs_nothing(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "r.sqlite")
    cache.put([done("a", "first"), done("b", "b")])
    cache.put([done("a", "second")])
    [found] = cache.get([planned("a"), planned("c")])
    assert (found.content, found.state, found.cached, found.attempt) == ("first", "done", True, 2)
    assert (found.cost_usd, found.prompt_tokens, found.bound_tokens, found.bound_usd) == (0, 0, 0, 0)
    cache.close()


def test_two_sessions_use_one_file_at_the_same_time(tmp_path: Path) -> None:
    one, other = ResponseCache(tmp_path / "r.sqlite"), ResponseCache(tmp_path / "r.sqlite")
    one.put([done(str(i), str(i)) for i in range(1200)])
    assert len(other.get([planned(str(i)) for i in range(1300)])) == 1200
    one.close()
    other.close()


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.sqlite").write_bytes(b"not a database, but long enough to look like one" * 50)
    with pytest.raises(ConfigError, match=r"llm\.response_cache"):
        ResponseCache(tmp_path / "r.sqlite")


def test_a_cache_that_breaks_later_costs_its_replies_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ResponseCache(tmp_path / "r.sqlite")
    with sqlite3.connect(tmp_path / "r.sqlite") as connection:
        connection.execute("DROP TABLE replies")
    connection.close()
    cache.put([done("a", "x")])
    assert cache.get([planned("a")]) == []
    assert "cannot be written" in caplog.text and "cannot be read" in caplog.text
    cache.close()
