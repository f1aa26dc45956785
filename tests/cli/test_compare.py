"""`synalign compare`: sessions beside each other, and what can be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from synalign_agent.config import SessionConfig
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]
Cli = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("hash_encoder")


@pytest.fixture
def runs_dir(make_config: MakeConfig) -> str:
    """Make a session, a fork of it with another round, and one with another seed."""
    config = make_config(limits__max_rounds=1, n_samples=12)
    with Session.create(config, thread_id="first") as session:
        session.run()
        with session.fork(overrides={"limits.max_rounds": 2, "generate.samples_per_call": 5}, thread_id="more") as fork:
            fork.run()
    with Session.create(config.model_copy(update={"seed": 5}), thread_id="other-seed") as session:
        session.run()
    return config.runs_dir


def test_compares_numbers_settings_and_writes_a_page(cli: Cli, runs_dir: str) -> None:
    code, out, err = cli(
        "compare", "first", "more", "other-seed", "--runs-dir", runs_dir, "--json", "--html", "page.html"
    )
    assert (code, err) == (0, "")
    found = json.loads(out)
    first, more, _ = found["sessions"]
    assert [session["thread_id"] for session in found["sessions"]] == ["first", "more", "other-seed"]
    assert (first["n_rounds"], more["n_rounds"]) == (1, 2)
    assert first["mmd2"]["floor"] > 0 and set(first["per_label"]) == set(more["per_label"])
    same, other = found["differences"]
    assert same["not_comparable"] == []
    assert same["mmd2"] == pytest.approx(more["mmd2"]["aligned"] - first["mmd2"]["aligned"])
    assert same["noise"] > 0 and same["beyond_noise"] is (abs(same["mmd2"]) > same["noise"])
    assert other["not_comparable"] == ["real rows, or their split", "kernel"]
    assert other["mmd2"] is other["noise"] is other["beyond_noise"] is None
    settings = {row["field"]: row["values"] for row in found["settings"]}
    assert settings == {"generate.samples_per_call": [4, 5, 4], "limits.max_rounds": [1, 2, 1], "seed": [0, 0, 5]}
    page = Path("page.html").read_text(encoding="utf-8")
    assert "Sessions compared" in page and "cannot be compared with those of first" in page

    code, out, err = cli("compare", "first", "more", "other-seed", "--runs-dir", runs_dir)
    assert code == 0
    for words in ("MMD² aligned", "MMD² floor", "noise of that", "generate.samples_per_call"):
        assert words in out
    assert "other-seed cannot be compared with those of first: they differ in real rows, or their split, kernel" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("first",), "compare needs two sessions or more"),
        (("first", "first"), "compare needs two sessions or more"),
        (("first", "second"), "no such session"),
    ],
)
def test_says_what_is_wrong(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = cli("compare", *arguments, "--runs-dir", "runs")
    assert code != 0 and words in err
