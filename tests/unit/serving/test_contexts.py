"""What a client may make of a session's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from synalign_agent.config import SessionConfig
from synalign_agent.config.serving import ServedEndpoint, ServingConfig
from synalign_agent.errors import ConfigError, InputError
from synalign_agent.serving.contexts import continued_config, session_config
from synalign_agent.serving.open_fields import OPEN, leaves
from synalign_agent.serving.sessions import ServedContext

HERE, THERE = "http://here/v1", "http://there/v1/"
EXAMPLE = {"path": "example:customer_messages"}


def serving(**fields: Any) -> ServingConfig:
    endpoints = [
        ServedEndpoint(base_url=HERE, api_key_env="KEY_OF_HERE", models=["small", "large"]),
        ServedEndpoint(base_url=THERE),
    ]
    return ServingConfig.model_validate({"endpoints": endpoints, "runs_dir": "/srv/runs", **fields})


def chosen(serving: ServingConfig, **sections: Any) -> SessionConfig:
    return session_config({"data": EXAMPLE, "llm": {"base_url": HERE, "model": "small"}, **sections}, serving)


def test_a_key_goes_to_its_own_endpoint_alone() -> None:
    assert chosen(serving()).llm.api_key_env == "KEY_OF_HERE"
    there = chosen(serving(), llm={"base_url": THERE, "model": "any"})
    assert there.llm.api_key_env == ""
    own = serving(session={"llm": {"base_url": "http://own/v1", "api_key_env": "OWN", "model": "m"}})
    assert session_config({"data": EXAMPLE}, own).llm.api_key_env == "OWN"
    assert chosen(own, llm={"base_url": THERE}).llm.api_key_env == ""
    with pytest.raises(ConfigError, match=r"does not call http://own/v1"):
        chosen(own, llm={"model": "other"})  # the operator offers that model of its own endpoint to nobody


@pytest.mark.parametrize(
    ("llm", "message"),
    [
        ({"base_url": "http://here/v1@elsewhere/v1", "model": "small"}, "does not call"),
        ({"base_url": "http://here", "model": "small"}, "does not call"),
        ({"model": "small"}, r"does not call https://api\.openai\.com/v1"),
        ({"base_url": HERE, "model": "huge"}, "offers small, large"),
        ({"provider": "embedded"}, "does not call an embedded model"),
    ],
)
def test_other_endpoints_and_models_are_refused(llm: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen(serving(), llm=llm)


def test_the_embedded_model_is_the_packaged_one_or_one_that_is_listed() -> None:
    bare = ServingConfig()
    assert session_config(None, bare).llm.provider == "embedded"
    for name in ("/models/other.gguf", "hf:someone/repo:model.gguf"):
        with pytest.raises(ConfigError, match="does not offer"):
            session_config({"data": EXAMPLE, "llm": {"provider": "embedded", "model": name}}, bare)


@pytest.mark.parametrize(
    "field",
    [
        "runs_dir", "prompts_dir", "storage.url", "storage.encryption_key_env", "llm.api_key_env", "llm.extra_body",
        "llm.response_cache", "llm.prices.prompt_usd_per_million_tokens", "llm.concurrency", "llm.threads", "encoder.model",
        "encoder.device", "explore.device", "data.hf_split",
    ],
)  # fmt: skip
def test_what_is_the_operator_s_is_refused_however_it_is_written(field: str) -> None:
    *sections, last = field.split(".")
    value: Any = {"n": 50} if last == "extra_body" else 7 if last.endswith(("tokens", "y")) and "_" in field else "x"
    nested: Any = {last: value}
    for section in reversed(sections):
        nested = {section: nested}
    for given in (nested, {field: value}, {f"{field}.n": value}):
        with pytest.raises(ConfigError, match=r"only the operator|unknown"):
            chosen(serving(), **given)


def test_every_open_field_exists_and_every_other_one_is_closed() -> None:
    known = dict(leaves(SessionConfig(data=EXAMPLE).model_dump()))  # type: ignore[arg-type]
    assert known.keys() >= OPEN
    for name in known.keys() - OPEN:
        *sections, last = name.split(".")
        nested: Any = {last: "not the operator's value"}
        for section in reversed(sections):
            nested = {section: nested}
        with pytest.raises(ConfigError, match="only the operator"):
            chosen(serving(), **{key: value for key, value in nested.items()})


def test_a_whole_configuration_may_be_sent_back() -> None:
    sent = SessionConfig.model_validate({"data": EXAMPLE, "llm": {"base_url": HERE, "model": "small"}}).model_dump()
    config = session_config(sent, serving())
    assert config.runs_dir == "/srv/runs"
    assert config.llm.model == "small"


def test_a_session_goes_on_only_where_its_endpoint_is_still_offered() -> None:
    stored = chosen(serving())
    moved = ServingConfig(endpoints=[ServedEndpoint(base_url=HERE, api_key_env="NEW_KEY")], runs_dir="/mnt/runs")
    config = continued_config(stored, moved)
    assert (config.llm.api_key_env, config.runs_dir) == ("NEW_KEY", "/mnt/runs")
    assert not stored.changes(config)
    with pytest.raises(ConfigError, match="does not call"):
        continued_config(stored, ServingConfig())


def test_limits_and_sizes_have_ceilings() -> None:
    own = serving(
        session={"limits": {"max_calls": 100}, "n_samples": 10, "data": {"label_column": None}}, max_samples=500
    )
    assert chosen(own).limits.max_calls == 100
    assert chosen(own).n_samples == 10
    assert chosen(own).data.label_column is None
    assert chosen(own, limits={"max_calls": 50}).limits.max_calls == 50
    assert chosen(own, limits={"max_calls": None}).limits.max_calls == 100
    with pytest.raises(ConfigError, match="allows 100 at most"):
        chosen(own, limits={"max_calls": 101})
    for name, fields in {
        "n_samples": {"n_samples": 501},
        "round_samples": {"align": {"oversampling": 1000}},
        "generate.calls_per_cluster": {"generate": {"calls_per_cluster": 1000}},
    }.items():
        with pytest.raises(ConfigError, match=f"{name}: this server allows 500 at most"):
            chosen(own, **fields)
    for section, field in (("align", "oversampling"), ("generate", "calls_per_cluster")):
        with pytest.raises(ConfigError, match=f"{section}.{field}: .*less than or equal to 1000"):
            chosen(own, **{section: {field: 10**9}})
    with pytest.raises(ConfigError, match="bytes"):
        chosen(own, task="x" * 100_000)


def test_data_come_from_the_data_folder_or_from_the_request(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\n")
    own = serving(data_dir=str(tmp_path))
    assert chosen(own, data={"path": "rows.csv"}).data.path == str(tmp_path / "rows.csv")
    assert (
        session_config({"llm": {"base_url": THERE, "model": "m"}}, own, rows="/a/real.jsonl").data.path
        == "/a/real.jsonl"
    )
    with pytest.raises(InputError, match="no file"):
        chosen(own, data={"path": "stanfordnlp/imdb"})
    with pytest.raises(ConfigError, match="loads no data sets"):
        chosen(own, data={"path": "rows.csv", "format": "huggingface"})


def test_the_schema_shows_open_fields_alone() -> None:
    text = str(TypeAdapter(ServedContext).json_schema())
    assert "base_url" in text and "max_rounds" in text and "real" in text
    assert not any(name in text for name in ("api_key_env", "runs_dir", "extra_body", "storage", "encoder"))
