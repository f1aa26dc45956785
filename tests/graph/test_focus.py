"""The command that the report gives for a gap: a fork whose one more round is written from those rows and their neighbours."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
from support.chat_server import json_reply

from synalign_agent.cli.fork import _parse
from synalign_agent.errors import ConfigError
from synalign_agent.session import Session


def _fork_options(command):
    words = shlex.split(command.splitlines()[0])
    assert words[:2] == ["synalign", "fork"]
    return dict(_parse(words[at + 1]) for at, word in enumerate(words) if word == "--set")


def _about_one_thing(body, number):
    """Answer with texts that share most of their words, so that most kinds of real rows stay without any."""
    schema = body["response_format"]["json_schema"]["schema"]
    if "texts" not in schema["properties"]:
        return None
    return json_reply(
        {
            "texts": [
                f"where is my parcel {number} it should be here on day {number * 4 + k} {'!' * k}" for k in range(4)
            ]
        }
    )


def test_a_fork_with_a_focus_writes_from_those_rows(hash_encoder, make_config, chat_server):
    chat_server.script = _about_one_thing
    with Session.create(
        make_config(
            limits__max_rounds=1, n_samples=60, align__oversampling=1.0, round_samples=80, gates__duplicate_cosine=1.0
        ),
        thread_id="a",
    ) as session:
        session.run()
        gaps = json.loads((session.folder / "report.json").read_text())["gap_map"]
        assert gaps
        gap = gaps[0]
        overrides = _fork_options(gap["command"])
        assert overrides == {"explore.focus": [row["id"] for row in gap["examples"]], "limits.max_rounds": 2}
        with session.fork(overrides=overrides, thread_id="a-gap1") as fork:
            assert fork.run()["n_rounds"] == 2
            clusters = fork.store.clusters(2)
            assert {cluster.label for cluster in clusters} == {gap["label"]}
            shown = [id for cluster in clusters for id in cluster.member_ids]
            rows = {row.id: row for row in fork.store.real_rows("reference")}
            X = {id: hash_encoder.encode([rows[id].text])[0] for id in rows}
            focus = np.array([X[row["id"]] for row in gap["examples"]])
            own = [id for id, row in rows.items() if row.label == gap["label"]]
            nearest = sorted(own, key=lambda id: -float((focus @ X[id]).max()))[: len(set(shown))]
            assert set(overrides["explore.focus"]) <= set(shown)
            assert len(set(shown) & set(nearest)) >= 0.9 * len(set(shown))


def test_a_focus_on_held_out_or_unknown_rows_is_refused(hash_encoder, make_config):
    with (
        Session.create(make_config(explore__focus=["no-such-row"]), thread_id="b") as session,
        pytest.raises(ConfigError, match=r"explore\.focus: no-such-row: not the id of a real row"),
    ):
        session.run()
