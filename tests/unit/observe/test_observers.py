"""What observers are told, over a session and its resume, and that none of them can end a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from synalign_agent.config import ObservabilityConfig, SessionConfig
from synalign_agent.errors import ConfigError
from synalign_agent.observe.events import AlignmentResult, Observer, RoundResult, SessionEnd, SessionStart
from synalign_agent.observe.observers import Observers, load_observer
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]
HERE = __name__
told: list[Any] = []


class Recorder(Observer):
    """Keeps what it is told, and how often it began, with the session."""

    def on_session_start(self, session: SessionStart) -> None:
        session.kept["starts"] = str(int(session.kept.get("starts", "0")) + 1)
        told.append((session, session.kept["starts"]))

    def on_alignment_end(self, result: AlignmentResult) -> None:
        told.append(result)

    def on_round_end(self, result: RoundResult) -> None:
        told.append(result)

    def on_session_end(self, session: SessionEnd) -> None:
        told.append(session)


class Broken:
    """Has one method of an observer, and fails in it."""

    def on_round_end(self, result: RoundResult) -> None:
        raise RuntimeError(f"no room for round {result.round}\nand more")


class BrokenFromTheStart:
    """Must not be called after its start has failed."""

    def on_session_start(self, session: SessionStart) -> None:
        raise OSError("no server")

    def on_round_end(self, result: RoundResult) -> None:
        told.append("called again")


def broken_factory() -> None:
    raise ValueError("cannot be made")


@pytest.fixture(autouse=True)
def _forget() -> None:
    told.clear()


@pytest.mark.usefixtures("hash_encoder")
def test_observers_are_told_of_every_round_and_of_the_resume(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synalign_agent.observation.load_observer", lambda path: Recorder())
    config = make_config(observability__callbacks=["mine:Recorder"], limits__max_rounds=1, target__mmd2=-1.0)
    with Session.create(config, thread_id="t") as session:
        result = session.run()
    (start, n_starts), aligned, ended, end = told
    assert (start.thread_id, start.n_rounds, n_starts) == ("t", 0, "1")
    assert start.data.n_reference + start.data.n_holdout == 308 and len(start.data.digest) == 16
    assert {prompt.name for prompt in start.prompts} >= {"generate_samples"} and start.config.n_samples == 24
    assert (aligned.round, ended.round, ended.stop_reason) == (1, 1, "max_rounds")
    assert aligned.mmd2 == ended.mmd2 and ended.mmd2.aligned == result["mmd2"]["aligned"]
    assert ended.cost_usd is None  # no prices: not measured, not 0
    assert ended.prompt_tokens == result["tokens"]["prompt"]
    assert (end.status, end.stop_reason, end.summary["n_selected"]) == ("finished", "max_rounds", result["n_selected"])

    told.clear()
    more = config.with_overrides({"limits.max_rounds": 2})
    with Session.create(more, thread_id="t", accept_changes=True) as session:
        session.run()
        fork = session.fork(from_round=2, thread_id="f")
    (start, n_starts), _, ended, _ = told
    assert (start.n_rounds, n_starts, ended.round) == (1, "2", 2)
    told.clear()
    with fork:
        fork.run()
    assert told[0][1] == "1"  # what was kept belongs to the session that it was forked from


@pytest.mark.usefixtures("hash_encoder")
def test_failing_observers_are_counted_by_name_and_the_run_goes_on(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = {"a:Broken": Broken(), "b:BrokenFromTheStart": BrokenFromTheStart()}
    monkeypatch.setattr("synalign_agent.observation.load_observer", made.__getitem__)
    config = make_config(observability__callbacks=list(made), limits__max_rounds=2, target__mmd2=-1.0)
    with caplog.at_level(logging.WARNING), Session.create(config, thread_id="t") as session:
        result = session.run()
    assert (result["status"], result["n_rounds"]) == ("finished", 2)
    assert result["warnings"] == [
        "observer b:BrokenFromTheStart failed 1 time, the run was not affected: on_session_start: OSError: no server",
        "observer a:Broken failed 2 times, the run was not affected: on_round_end: RuntimeError: no room for round 2",
    ]
    assert told == []
    assert sum("observer a:Broken failed in on_round_end" in line for line in caplog.messages) == 2


def test_observers_are_loaded_by_import_path() -> None:
    assert isinstance(load_observer("synalign_agent.observe.events:Observer"), Observer)
    for path in ("no_such_module:Name", "synalign_agent.observe.events:NoSuchName"):
        with pytest.raises(ConfigError, match=f"observability.callbacks: {path}.*PYTHONPATH"):
            load_observer(path)


@pytest.mark.parametrize("path", ["module", "module.Name", "a b:c", ":Name", "module:"])
def test_callbacks_must_read_like_import_paths(path: str) -> None:
    with pytest.raises(ValueError, match=r"package\.module:name"):
        ObservabilityConfig(callbacks=[path])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("otlp", {"endpoint": "https://ada:hunter2@a.example"}),
        ("otlp", {"endpoint": "localhost:6006"}),
        ("otlp", {"headers_env": "Authorization=Basic hunter2"}),
        ("mlflow", {"tracking_uri": "https://ada:hunter2@a.example"}),
    ],
)
def test_credentials_in_the_configuration_are_refused_and_not_shown(field: str, value: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        SessionConfig.parse({"data": {"path": "x.jsonl"}, "observability": {field: value}})
    assert "hunter2" not in str(caught.value)


@pytest.mark.usefixtures("hash_encoder")
def test_a_session_goes_on_without_a_question_when_only_its_observers_changed(make_config: MakeConfig) -> None:
    before = make_config()
    after = before.with_overrides(
        {"observability.callbacks": ["a:b"], "observability.otlp.endpoint": "http://localhost:1"}
    )
    assert before.changes(after) == [] and before.fingerprint() == after.fingerprint()


def test_nothing_is_done_for_nobody() -> None:
    observers = Observers()
    with observers.node("explore", None), observers.spans.span("work", "gate", {"n": 1}) as span:
        span.set({"m": 2})
    assert not observers.spans.recorded and observers.warnings() == []
    assert observers.spans.span("a", "gate") is observers.spans.span("b", "embedding")  # one object, made once
