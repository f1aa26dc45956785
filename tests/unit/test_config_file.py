from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from synalign_agent.config import SessionConfig, walk_fields
from synalign_agent.config_file import commented_yaml, example_config

FULL: dict[str, Any] = {
    "data": {"path": "weird: name #1.jsonl", "label_column": None},
    "task": "Nachrichten: 'kurz' & \"gut\" # nicht lang",
    "llm": {"model": "m", "extra_body": {"stop": ["\n", "a: b"], "min_p": 0.05}},
    "attributes": {"dimensions": {"Ton – Stimmung": "yes", "no": "on, off"}},
    "align": {"label_prior": {"a b": 0.25, "1": 0.75}, "lengthscale_multipliers": [0.1, 1e-05]},
    "target": {"mmd2": 1e-05},
}
CONFIGS = [example_config(), SessionConfig.parse(FULL), SessionConfig.parse({"data": {"path": "x"}})]


@pytest.mark.parametrize("config", CONFIGS, ids=["example", "full", "minimal"])
def test_what_is_written_loads_back_to_the_same_config(config: SessionConfig) -> None:
    assert SessionConfig.parse(yaml.safe_load(commented_yaml(config))) == config


def test_the_example_runs_without_a_key_or_a_network() -> None:
    config = example_config()
    assert config.llm.provider == "embedded" and config.data.path.startswith("example:")
    assert config.encoder.model is None


def test_the_example_leaves_to_its_defaults_what_is_no_ones_data() -> None:
    own = {"data.path", "task", "n_samples", "llm.provider"}
    example, plain = example_config(), SessionConfig.parse({"data": {"path": "x"}})
    assert {
        name for (name, _, one), (_, _, two) in zip(walk_fields(example), walk_fields(plain), strict=True) if one != two
    } <= own


def test_every_field_is_there_under_its_meaning() -> None:
    config = example_config()
    text = commented_yaml(config)
    loaded = yaml.safe_load(text)
    words = " ".join(text.replace("#", " ").split())
    for name, info, _ in walk_fields(config):
        node = loaded
        for part in name.split("."):
            assert part in node, name
            node = node[part]
        assert " ".join(info.description.split()) in words, name


def test_comments_hold_the_defaults() -> None:
    config = SessionConfig.parse({"data": {"path": "x"}, "seed": 5, "limits": {"max_rounds": 3}})
    text = commented_yaml(config)
    words = re.sub(r"\n\s*#", "", text)
    assert "Seed of every random choice, also sent to the LLM. Default: 0." in words
    assert "Default: 12." in words and "max_rounds: 3" in words
    assert "Default: [0.5, 1.0, 2.0]." in words
    assert "Default: null." in words and "Default: true." in words
    required = words.split("path: x")[0]
    assert "Default:" not in required.split("data:")[1]
    n_optional = sum(not info.is_required() for _, info, _ in walk_fields(config))
    assert words.count("Default: ") == n_optional


def test_lines_are_short_and_end_with_a_line_feed() -> None:
    text = commented_yaml(SessionConfig.parse({"data": {"path": "x"}}))
    assert max(map(len, text.splitlines())) <= 120
    assert text.endswith("\n") and not text.endswith("\n\n")
