from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from synalign_agent.config import SessionConfig, walk_fields
from synalign_agent.errors import ConfigError

MINIMAL: dict[str, Any] = {"data": {"path": "rows.jsonl"}}


def parse(**fields: Any) -> SessionConfig:
    return SessionConfig.parse({**MINIMAL, **fields})


def refuse(**fields: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(**fields)
    return str(caught.value)


def write(folder: Path, text: str) -> Path:
    path = folder / "session.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refuse_file(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        SessionConfig.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_only_the_data_are_required() -> None:
    assert parse().data.path == "rows.jsonl"
    with pytest.raises(ConfigError, match="data: this field is required"):
        SessionConfig.parse({})


def test_unknown_fields_are_refused_on_every_level() -> None:
    assert "config: sed: unknown field" in refuse(sed=1)
    assert "config: llm.prices.prompt: unknown field" in refuse(llm={"prices": {"prompt": 1}})
    assert "synalign config schema" in refuse(sed=1)


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("seed", -1),
        ("n_samples", 0),
        ("task", ""),
        ("data", {"path": "rows.jsonl", "holdout_fraction": 1.0}),
        ("data", {"path": "rows.jsonl", "min_holdout_rows": 1}),
        ("data", {"path": "rows.jsonl", "format": "xml"}),
        ("llm", {"temperature": 2.1}),
        ("llm", {"temperature": float("nan")}),
        ("llm", {"max_tokens": 15}),
        ("llm", {"base_url": "127.0.0.1:8000/v1"}),
        ("llm", {"max_failed_share": 1.1}),
        ("llm", {"prices": {"prompt_usd_per_million_tokens": -1}}),
        ("explore", {"noise": 0}),
        ("gates", {"copy_check": {"max_shared_words": 2}}),
        ("gates", {"duplicate_cosine": 1.01}),
        ("gates", {"length": {"min_characters": 200, "max_characters": 100}}),
        ("align", {"oversampling": 0.9}),
        ("align", {"lengthscale_multipliers": []}),
        ("align", {"lengthscale_multipliers": [0.0]}),
        ("align", {"lengthscale_multipliers": [-1.0]}),
        ("target", {"alpha": 1.0}),
        ("target", {"mmd2": "small"}),
        ("target", {"mmd2": float("nan")}),
        ("limits", {"max_usd": 0}),
        ("limits", {"max_usd": float("nan")}),
        ("limits", {"max_calls": 0}),
        ("llm", None),
        ("llm", "gpt"),
    ],
)
def test_values_out_of_range_are_refused_by_name(section: str, value: Any) -> None:
    assert f"config: {section}" in refuse(**{section: value})


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("data", {"path": "rows.jsonl", "holdout_fraction": 0.0, "min_holdout_rows": 2}),
        ("llm", {"temperature": 2.0, "max_tokens": 16, "max_failed_share": 1.0}),
        ("gates", {"copy_check": {"max_shared_words": 3, "max_cosine": 1.0}}),
        ("align", {"oversampling": 1.0, "label_prior": {"a": 0.0, "b": 2.0}}),
        ("target", {"mmd2": 0.01}),
        ("limits", {"max_usd": 0.01, "max_calls": 1}),
    ],
)
def test_values_at_the_end_of_their_range_are_accepted(section: str, value: Any) -> None:
    assert parse(**{section: value}).data.path == "rows.jsonl"


def test_all_errors_are_named_at_once() -> None:
    message = refuse(seed=-1, llm={"temperature": 9, "modle": "x"}, limits={"max_rounds": "many"})
    for name in ("seed", "llm.temperature", "llm.modle", "limits.max_rounds"):
        assert f"config: {name}: " in message
    assert len(message.splitlines()) == 4


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    assert "synalign init" in refuse_file(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "text",
    ["data: [", "\tdata: 1", "data: {path: x}\n? [1, 2]\n: 3", "seed: 2020-13-45", "!!python/name:os.system", "- a"],
)
def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path, text: str) -> None:
    refuse_file(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "kind"), [("", "is empty; `synalign init"), ("- a\n- b", "found list"), ("a b", "found str")]
)
def test_a_file_without_fields_says_what_it_holds(tmp_path: Path, text: str, kind: str) -> None:
    assert kind in refuse_file(write(tmp_path, text))


def test_a_folder_and_a_binary_file_are_refused(tmp_path: Path) -> None:
    refuse_file(tmp_path)
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"data: {path: \xff}")
    refuse_file(path)


def test_errors_of_a_file_name_the_file_and_the_field(tmp_path: Path) -> None:
    path = write(tmp_path, "data: {path: a.jsonl}\nseed: -1\n1: x\n")
    message = refuse_file(path)
    assert f"{path}: seed: " in message and f"{path}: 1: " in message


def test_relative_paths_are_seen_from_the_file(tmp_path: Path) -> None:
    config = SessionConfig.load(
        write(tmp_path, "data: {path: sub/rows.jsonl}\nprompts_dir: prompts\nllm: {response_cache: r.sqlite}\n")
    )
    assert config.data.path == str(tmp_path / "sub" / "rows.jsonl")
    assert config.llm.response_cache == str(tmp_path / "r.sqlite")
    assert config.prompts_dir == str(tmp_path / "prompts")


def test_existing_folders_are_paths_and_other_names_are_data_set_ids(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert SessionConfig.load(write(tmp_path, "data: {path: folder}")).data.path == str(tmp_path / "folder")
    for name in ("imdb", "someone/else", "example:customer_messages"):
        assert SessionConfig.load(write(tmp_path, f"data: {{path: '{name}'}}")).data.path == name


def test_a_data_set_id_with_a_dot_is_no_file(tmp_path: Path) -> None:
    config = SessionConfig.load(write(tmp_path, "data: {path: someone/Dialogues-2.5}"))
    assert config.data.path == "someone/Dialogues-2.5"


def test_absolute_paths_and_the_home_folder_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "elsewhere").mkdir()
    absolute = tmp_path / "absolute.jsonl"
    config = SessionConfig.load(
        write(tmp_path / "elsewhere", f"data: {{path: '{absolute}'}}\nprompts_dir: ~/prompts\n")
    )
    assert config.data.path == str(absolute)
    assert config.prompts_dir == str(tmp_path / "home" / "prompts")
    config = SessionConfig.load(write(tmp_path / "elsewhere", "data: {path: ~/rows.jsonl}"))
    assert config.data.path == str(tmp_path / "home" / "rows.jsonl")


def test_without_folders_absolute_paths_are_names_and_all_else_stays(tmp_path: Path) -> None:
    config = parse(data={"path": str(tmp_path / "tickets.csv")}, runs_dir=str(tmp_path / "runs"), llm={"model": "a/b"})
    plain = config.without_folders()
    assert (plain.data.path, plain.runs_dir, plain.llm.model) == ("tickets.csv", "runs", "a/b")
    assert plain.with_overrides({"data.path": config.data.path, "runs_dir": config.runs_dir}) == config


def test_a_config_survives_its_own_yaml() -> None:
    config = parse(task="Nachrichten – kurz", llm={"extra_body": {"min_p": 0.05}}, align={"label_prior": {"a": 1.0}})
    assert SessionConfig.parse(yaml.safe_load(config.to_yaml())) == config


def other(value: Any, name: str) -> Any:
    """Return another valid value of a field."""
    choices: dict[str, Any] = {
        "data.format": "csv", "data.label_column": "kind", "llm.provider": "embedded", "llm.extra_body": {"min_p": 0.1},
        "llm.schema_limits": True, "encoder.precision": "float32", "explore.strategy": "random",
        "explore.kernel": "rq", "explore.device": "cpu", "align.objective": "herding", "align.min_ess": 10.0,
        "align.max_label_odds": 5.0,
        "attributes.dimensions": {"tone": "mood"}, "generate.demonstrations": "chat", "gates.label_check.method": "llm",
        "align.label_prior": "uniform", "align.lengthscale_multipliers": [1.0], "target.mmd2": 0.5, "align.oversampling": 3.0,
        "llm.temperature": 1.0, "llm.reading_temperature": 0.0, "attributes.propose": False,
        "target.n_equivalent": 10.0, "limits.max_usd": 1.0, "llm.max_tokens": 100,
        "llm.base_url": "http://localhost:1/v1", "llm.model": "m", "encoder.model": "m", "encoder.device": "cpu",
        "llm.response_cache": "replies.sqlite", "llm.structured_output": "text", "storage.url": "postgresql://host/db",
        "storage.encryption_key_env": "KEY", "observability.otlp.endpoint": "http://localhost:6006",
        "observability.mlflow.tracking_uri": "http://localhost:5000", "observability.callbacks": ["a:b"],
        "explore.focus": ["0123456789abcdef"],
        "prompts_dir": "p", "review.attributes": "flagged", "review.samples": "every_round",
    }  # fmt: skip
    if name in choices:
        return choices[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, float):
        return value / 3 + 0.01
    return (value or 1) + 1


def test_the_fingerprint_counts_every_field_but_the_operational() -> None:
    base = parse()
    operational = set()
    for name, info, value in walk_fields(base):
        changed = base.with_overrides({name: other(value, name)})
        assert changed != base, name
        if changed.fingerprint() == base.fingerprint():
            operational.add(name)
            assert base.changes(changed) == []
            assert info.json_schema_extra == {"operational": True}
        else:
            assert base.changes(changed) == [f"{name}: {value!r} -> {other(value, name)!r}"]
    assert operational == {
        "runs_dir", "llm.api_key_env", "llm.concurrency", "llm.timeout_seconds", "llm.max_attempts", "llm.max_failed_share",
        "llm.threads", "llm.requests_per_minute", "llm.tokens_per_minute", "llm.response_cache",
        "llm.prices.prompt_usd_per_million_tokens", "llm.prices.completion_usd_per_million_tokens",
        "encoder.device", "encoder.batch_size", "explore.device",
        "review.items_per_batch", "storage.url", "storage.checkpoints_kept", "storage.encryption_key_env",
        "observability.otlp.endpoint", "observability.otlp.headers_env", "observability.otlp.project",
        "observability.otlp.capture_content", "observability.mlflow.tracking_uri", "observability.mlflow.experiment",
        "observability.mlflow.artifacts", "observability.callbacks",
    }  # fmt: skip


def test_the_fingerprint_is_16_hex_digits_and_does_not_depend_on_the_order_of_keys() -> None:
    one = parse(seed=1, llm={"extra_body": {"a": 1, "b": 2}, "model": "m"})
    two = SessionConfig.parse({"llm": {"model": "m", "extra_body": {"b": 2, "a": 1}}, "seed": 1, **MINIMAL})
    assert one.fingerprint() == two.fingerprint()
    assert len(one.fingerprint()) == 16 and int(one.fingerprint(), 16) >= 0


def test_sections_that_came_later_leave_the_fingerprints_of_before_as_they_were() -> None:
    # As computed before either was there; results of before are found by it.
    # What is named has another default since, which new sessions should notice.
    before: Any = {"explore": {"strategy": "gp_gap"}, "align": {"contrast_shrinkage": False, "max_label_odds": None}}
    before |= {"gates": {"copy_check": {"max_row_share": 1.0}}, "attributes": {"propose": True}}
    assert parse(**before).fingerprint() == "8f1c0477ee151aba"
    assert parse(review={"samples": "flagged"}).fingerprint() != parse().fingerprint()


def test_a_stored_configuration_without_a_field_is_read_as_the_session_behaved_then() -> None:
    stored = parse().model_dump()
    for name in ("contrast_shrinkage", "max_label_odds"):
        del stored["align"][name]
    del stored["review"]
    before = SessionConfig.parse_stored(stored)
    assert (before.align.contrast_shrinkage, before.align.max_label_odds) == (False, None)
    assert before.changes(parse()) == ["align.contrast_shrinkage: False -> True", "align.max_label_odds: None -> 2.0"]
    assert SessionConfig.parse_stored(parse().model_dump()) == parse()
    with pytest.raises(ConfigError, match="stored configuration: align: "):
        SessionConfig.parse_stored({**stored, "align": 3})


def test_every_accepted_file_has_a_fingerprint(tmp_path: Path) -> None:
    # YAML reads an unquoted date as a date, which no request and no hash can hold: refused, or taken as text.
    path = write(tmp_path, "data: {path: a.jsonl}\nllm: {extra_body: {cutoff: 2020-01-01}}")
    try:
        config = SessionConfig.load(path)
    except ConfigError as error:
        assert "llm.extra_body" in str(error)
    else:
        assert len(config.fingerprint()) == 16


def test_changes_lists_all_differences_in_order_of_name() -> None:
    mine, theirs = parse(seed=1, task="a"), parse(seed=2, task="b", runs_dir="elsewhere")
    assert mine.changes(theirs) == ["seed: 1 -> 2", "task: 'a' -> 'b'"]
    assert mine.changes(mine) == []


def test_overrides_replace_dotted_fields_and_skip_none() -> None:
    base = parse(seed=1)
    changed = base.with_overrides({"seed": None, "llm.model": "m", "llm.prices.prompt_usd_per_million_tokens": 2})
    assert (changed.seed, changed.llm.model, changed.llm.prices.prompt_usd_per_million_tokens) == (1, "m", 2.0)
    assert base.llm.model is None


@pytest.mark.parametrize(
    ("name", "value"), [("seed", -1), ("sed", 1), ("llm.modle", "m"), ("nosuch.field", 1), ("seed.field", 1)]
)
def test_overrides_are_validated_and_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name.split(".")[0]) as caught:
        parse().with_overrides({name: value}, source="--set")
    assert "--set" in str(caught.value)


def test_the_pool_target_follows_from_size_and_oversampling() -> None:
    assert parse(n_samples=100, align={"oversampling": 2.5}).pool_target == 250


def test_walk_fields_yields_every_leaf_once_in_order() -> None:
    config = parse(llm={"model": "m"})
    walked = [(name, value) for name, _, value in walk_fields(config)]
    names = [name for name, _ in walked]
    assert names[:2] == ["data.path", "data.format"] and names[-1] == "observability.callbacks"
    assert len(names) == len(set(names))
    assert {"seed", "llm.model", "llm.prices.prompt_usd_per_million_tokens", "gates.copy_check.max_cosine"} <= set(
        names
    )
    assert dict(walked)["llm.model"] == "m"
    assert names == [name for name, _ in leaves(config.model_dump())]


def leaves(dumped: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a dump in which no leaf is a mapping."""
    for name, value in dumped.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_the_schema_describes_every_field() -> None:
    schema = SessionConfig.model_json_schema()
    sections = {"SessionConfig": schema, **schema["$defs"]}
    bare = [
        f"{section}.{name}"
        for section, definition in sections.items()
        for name, field in definition.get("properties", {}).items()
        # A section whose field repeats its docstring is described there.
        if not {**sections.get(field.get("$ref", "").rpartition("/")[2], {}), **field}.get("description", "").strip()
    ]
    assert bare == []
    n_fields = sum(len(definition.get("properties", {})) for definition in sections.values())
    sections.pop("JsonValue", None)  # what `llm.extra_body` may hold
    n_sections = len(sections) - 1  # each is one more property, of its parent
    assert n_fields == len(list(walk_fields(parse()))) + n_sections
