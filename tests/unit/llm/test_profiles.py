from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
import yaml

from synalign_agent.config import SessionConfig
from synalign_agent.llm.profiles import profile_for, resolve_profile


def config(**fields: Any) -> SessionConfig:
    return SessionConfig.parse({"data": {"path": "rows.jsonl"}, **fields})


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2"),  # also a .gguf: the first match wins
        ("HuggingFaceTB/smollm2-1.7b", "smollm2"),
        ("/models/Qwen2.5-0.5B.GGUF", "small-gguf"),
        ("hf:someone/some-model:some-model.gguf", "small-gguf"),
        ("gpt-5-mini", "hosted"),
        ("org/model[v2]", "hosted"),
        ("", "hosted"),
    ],
)
def test_the_first_profile_that_matches_wins(model: str, expected: str) -> None:
    assert profile_for(model)["name"] == expected


def test_every_profile_fills_every_null_that_needs_one() -> None:
    text = resources.files("synalign_agent.llm").joinpath("profiles.yaml").read_text(encoding="utf-8")
    profiles = yaml.safe_load(text)
    assert [profile["match"] for profile in profiles][-1] == "*"
    for profile in profiles:
        assert set(profile) == {"name", "match", "llm", "attributes", "generate"}
        # `match` without its stars is a name that matches.
        resolved = resolve_profile(config(), profile["match"].replace("*", "x"))
        for section in ("llm", "attributes", "generate"):
            for name, value in profile[section].items():
                assert getattr(getattr(resolved, section), name) == value
                assert value is not None or name == "reading_temperature"  # which stands for `temperature` then
        assert None not in (resolved.llm.temperature, resolved.llm.concurrency, resolved.llm.schema_limits)
        assert resolved.attributes.propose is not None
        assert None not in resolved.generate.model_dump().values() and resolved.llm.extra_body is not None


def test_explicit_values_are_kept() -> None:
    explicit = {"temperature": 0.0, "extra_body": {}, "schema_limits": False, "concurrency": 1}
    resolved = resolve_profile(config(llm=explicit, generate={"samples_per_call": 7}), "smollm2")
    assert {name: getattr(resolved.llm, name) for name in explicit} == explicit
    assert resolved.generate.samples_per_call == 7
    assert resolved.generate.calls_per_cluster == profile_for("smollm2")["generate"]["calls_per_cluster"]


def test_the_given_config_is_not_changed_and_nothing_else_is() -> None:
    before = config(seed=3)
    resolved = resolve_profile(before, "gpt-5-mini")
    assert before == config(seed=3)
    changed = {line.split(":")[0] for line in before.changes(resolved)}
    assert changed and all(name.startswith(("llm.", "attributes.", "generate.")) for name in changed)


def test_resolving_again_changes_nothing() -> None:
    once = resolve_profile(config(), "smollm2")
    assert resolve_profile(once, "gpt-5-mini") == once
