"""What clients are told of errors."""

from __future__ import annotations

import logging
import re

import pytest
from langgraph.errors import GraphInterrupt

from synalign_agent.config.serving import ServingConfig
from synalign_agent.errors import BudgetExhausted, ConfigError, SessionError, SynAlignError
from synalign_agent.serving.public_errors import public_errors, without_paths

SERVING = ServingConfig(data_dir="/srv/our data", runs_dir="/srv/runs")


@pytest.mark.parametrize(
    ("message", "public"),
    [
        ("/srv/our data/a.jsonl: row 3: no field `text`", "a.jsonl: row 3: no field `text`"),
        ("/srv/runs/0f-1/session.sqlite: is missing", "0f-1/session.sqlite: is missing"),
        ("cannot open '/usr/lib/x/model.gguf'", "cannot open 'model.gguf'"),
        ("see ~/.cache/x/y.bin, please", "see y.bin, please"),
        (
            "http://127.0.0.1:80/v1/chat: refused; 3/4 labels, and/or",
            "http://127.0.0.1:80/v1/chat: refused; 3/4 labels, and/or",
        ),
    ],
)
def test_paths_become_names_that_clients_know(message: str, public: str) -> None:
    assert without_paths(message, SERVING) == public


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("/srv/runs/x: bad"), ConfigError),
        (SessionError("/srv/runs/x: bad"), SessionError),
        (BudgetExhausted("max_usd", "/srv/runs/x: bad"), SynAlignError),
    ],
)
def test_our_errors_keep_their_kind(error: SynAlignError, kind: type[SynAlignError]) -> None:
    with pytest.raises(SynAlignError) as caught, public_errors(SERVING):
        raise error
    assert type(caught.value) is kind
    assert str(caught.value) == "x: bad"
    assert caught.value.__suppress_context__


def test_other_errors_are_logged_and_told_by_reference(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(SynAlignError) as caught, public_errors(SERVING):
        raise KeyError("the password is hunter2")
    told = str(caught.value)
    assert "hunter2" not in told and "KeyError" not in told
    [reference] = re.findall(r"reference ([0-9a-f]{8})", told)
    assert reference in caplog.text and "hunter2" in caplog.text


def test_interrupts_pass() -> None:
    with pytest.raises(GraphInterrupt), public_errors(SERVING):
        raise GraphInterrupt(())
