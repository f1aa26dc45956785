"""Rows and files that come over the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synalign_agent.config.serving import ServingConfig
from synalign_agent.errors import ConfigError, InputError
from synalign_agent.serving.sources import as_json_lines, checked_file, checked_rows

LIMITS = {"max_rows": 3, "max_text_bytes": 20, "max_request_bytes": 60}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    (data / "inner").mkdir(parents=True)
    for name in ("data/rows.jsonl", "data/inner/rows.csv", "data/model.gguf", "secret.jsonl", "data-2.jsonl"):
        (tmp_path / name).write_text("{}\n")
    (data / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (data / "circle.jsonl").symlink_to(data / "circle.jsonl")
    (data / "away").symlink_to(tmp_path)
    return data


def test_files_of_the_folder_are_read(folder: Path) -> None:
    serving = ServingConfig(data_dir=str(folder))
    assert checked_file("rows.jsonl", "real", serving) == str(folder / "rows.jsonl")
    assert checked_file("inner/../inner/rows.csv", "real", serving) == str(folder / "inner" / "rows.csv")
    assert checked_file("example:customer_messages", "real", serving) == "example:customer_messages"


@pytest.mark.parametrize(
    "name",
    ["../secret.jsonl", "../data-2.jsonl", "link.jsonl", "circle.jsonl", "away/secret.jsonl", "/etc/passwd", "inner", ".", "",
     "missing.jsonl", "rows.jsonl\0", "x" * 5000, "~/.ssh/id_rsa", "hf:a/b:c"],
)  # fmt: skip
def test_nothing_else_is_and_all_refusals_sound_alike(folder: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        checked_file(name, "real", ServingConfig(data_dir=str(folder)))
    assert str(caught.value) == f"real: {name[:200]!r} is no file in the data folder of this server"


def test_the_kind_and_size_of_files_are_limited(folder: Path) -> None:
    with pytest.raises(InputError, match="ends in"):
        checked_file("model.gguf", "real", ServingConfig(data_dir=str(folder)))
    with pytest.raises(InputError, match="has 3 bytes, and this server reads 2 at most"):
        checked_file("rows.jsonl", "real", ServingConfig(data_dir=str(folder), max_file_bytes=2))
    with pytest.raises(InputError, match="reads no files"):
        checked_file("rows.jsonl", "real", ServingConfig())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ({"text": "a"}, "at least one row"),
        (7, "at least one row"),
        ("rows.jsonl", "belongs in config.data.path"),
        (["a", 3], r"row 1 \(from 0\): expected a text or an object"),
        (["a"] * 4, "4 rows, and one request may bring 3"),
        (["ä" * 11], "a value of 22 bytes"),
        ([{"text": "a", "more": ["b" * 30]}], r"row 0 \(from 0\): a value of 34 bytes"),
        ([{f"field {n}": "abc" for n in range(10)}], "more than 60 bytes"),
    ],
)
def test_rows_have_limits(rows: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_rows(rows, "real", ServingConfig.model_validate(LIMITS))


def test_depth_is_limited_and_broken_characters_are_no_crash() -> None:
    deep: Any = "a"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError, match="moderate depth"):
        checked_rows([{"text": deep}], "real", ServingConfig())
    rows = checked_rows([{"text": "half \ud83d"}, "plain"], "real", ServingConfig())
    lines = [json.loads(line) for line in as_json_lines(rows, "body")]
    assert lines == [{"text": "half \ud83d"}, {"body": "plain"}]
    assert "".join(as_json_lines(rows, "body")).isascii()


def test_the_operator_s_file_is_read_and_its_errors_hold_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "serving.yaml"
    monkeypatch.setenv("SYNALIGN_SERVING_CONFIG", str(file))
    file.write_text("data_dir: data\nmax_rows: 5\n")
    config = ServingConfig.from_environment()
    assert (config.data_dir, config.runs_dir) == (str(tmp_path / "data"), str(tmp_path / "runs"))
    monkeypatch.setenv("SYNALIGN_RUNS_DIR", "/srv/runs")
    assert ServingConfig.from_environment().runs_dir == "/srv/runs"
    for text, message in (
        ("max_rows: none", "max_rows"),
        ("endpoints: [{api_key_env: KEY}]", "endpoints.0"),
        ("- a list", "top level"),
        ("{", "as YAML"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message) as caught:
            ServingConfig.from_environment()
        assert str(tmp_path) not in str(caught.value)
