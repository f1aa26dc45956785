"""The whole loop against a scripted endpoint: what it delivers, why it stops, and what it says of bad replies."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from support.chat_server import ChatServer, Reply, json_reply

from synalign_agent.config import SessionConfig
from synalign_agent.errors import ConfigError, EndpointError, SessionError
from synalign_agent.graph import build_graph
from synalign_agent.nodes.summarize_attributes import STANDARD_DIMENSIONS
from synalign_agent.prompting.catalog import PROMPT_USES, SUFFIX
from synalign_agent.schemas import MAX_MEANING_CHARACTERS
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]
pytestmark = pytest.mark.usefixtures("hash_encoder")


def run(config: SessionConfig, thread_id: str = "t") -> dict[str, Any]:
    with Session.create(config, thread_id=thread_id) as session:
        return session.run()


def is_generation(body: dict[str, Any]) -> bool:
    return bool(body["response_format"]["json_schema"]["name"] == "GeneratedTexts")


def test_delivers_what_was_asked_for_with_lineage(make_config: MakeConfig, chat_server: ChatServer) -> None:
    config = make_config()
    result = run(config)
    assert result["status"] == "finished"
    assert result["stop_reason"] in ("target_reached", "patience", "max_rounds")
    assert result["n_selected"] == result["n_requested"] == 24
    assert result["n_pool"] >= 48
    assert result["mmd2"]["aligned"] < result["mmd2"]["raw"]
    assert result["mmd2"]["reference"] == "holdout"
    assert 0 < result["p_value"] <= 1
    assert result["ess"] >= 24
    assert result["calls"]["repeated"] == chat_server.repeated() == 0
    assert result["calls"]["done"] == len(chat_server.requests)

    dataset = pd.read_parquet(result["paths"]["dataset"])
    pool = pd.read_parquet(result["paths"]["pool"])
    assert len(dataset) == 24 and dataset["text"].is_unique and dataset["selected"].all()
    assert pool["selected"].sum() == 24 and len(pool) == result["n_pool"]
    assert pool["weight"].sum() == pytest.approx(1)
    assert dataset["label"].value_counts().to_dict() == {"delivery": 9, "billing": 7, "product": 5, "account": 3}
    row = dataset.iloc[0]
    assert len(row["demonstration_ids"]) == 5
    assert {pair["name"] for pair in row["attributes"]} == {"topic", "tone"}
    assert (row["prompt"], row["model"]) == ("generate_samples", "scripted")
    assert -1 <= row["nearest_similarity"] <= 0.95


def test_dataset_loads_in_the_usual_libraries(make_config: MakeConfig, tmp_path: Any) -> None:
    import datasets

    result = run(make_config())
    loaded = datasets.load_dataset(
        "parquet", data_files=result["paths"]["dataset"], split="train", cache_dir=str(tmp_path / "hf")
    )
    assert loaded.num_rows == 24
    lines = pd.read_json(result["paths"]["dataset"].replace(".parquet", ".jsonl"), lines=True)
    assert list(lines["text"]) == list(loaded["text"])
    card = datasets.load_dataset_builder(str(tmp_path / "runs" / "t" / "export"), cache_dir=str(tmp_path / "hf"))
    assert card.config.name == "default"


def test_an_empty_dataset_is_an_empty_file(make_config: MakeConfig, chat_server: ChatServer) -> None:
    result = run(make_config(limits__max_calls=1))
    export = Path(result["paths"]["dataset"]).parent
    assert result["n_selected"] == result["n_pool"] == 0
    assert [(export / name).read_bytes() for name in ("dataset.jsonl", "pool.jsonl")] == [b"", b""]
    assert list(pd.read_parquet(export / "dataset.parquet").columns[:2]) == ["text", "label"]


def test_every_gate_and_reply_problem_is_counted_with_its_reason(
    make_config: MakeConfig, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = "Package left in the rain. Box is mush. Thanks for nothing."
    replies = iter(
        [
            Reply(content='{"texts": ["half a tex', finish_reason="length"),
            Reply(refusal="I cannot write that"),
            Reply(content="Sure! Here are your texts."),
            json_reply({"items": []}),
            Reply(content=""),
            json_reply({"texts": [real, "x", "buy " * 30, "y" * 3000]}),
            json_reply({"texts": ["My new lamp came with a broken shade, please send me another one."] * 2}),
        ]
    )
    monkeypatch.setattr(
        chat_server, "script", lambda body, number: next(replies, None) if is_generation(body) else None, raising=True
    )
    rejections = run(make_config())["rejections"]
    expected = {"length_cut", "refused", "malformed", "off_schema", "empty_reply"}
    expected |= {"copy_words", "too_short", "repetitive", "too_long", "duplicate"}
    assert expected <= rejections.keys()
    assert all(rejections[reason] == 1 for reason in expected)


def test_a_busy_endpoint_is_asked_again(
    make_config: MakeConfig, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Reply(status=429, headers={"Retry-After": "0.01"})
    monkeypatch.setattr(chat_server, "script", lambda body, number: busy if number % 5 == 0 else None)
    result = run(make_config())
    assert result["n_selected"] == 24
    assert result["calls"]["failed_by_class"]["rate_limit"] == result["calls"]["failed"] > 0


@pytest.mark.parametrize(
    ("reply", "advice"),
    [
        (Reply(status=401), "llm.api_key_env"),
        (Reply(status=404), "llm.model"),
        (Reply(status=429, error_code="insufficient_quota"), "credit"),
        (Reply(status=400, content="response_format not supported"), "response_format not supported"),
    ],
)
def test_hopeless_errors_stop_at_once_and_say_what_to_do(
    make_config: MakeConfig, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, reply: Reply, advice: str
) -> None:
    monkeypatch.setattr(chat_server, "script", lambda body, number: reply)
    with pytest.raises(EndpointError, match=advice):
        run(make_config())
    formats = Counter(str(body.get("response_format", {}).get("type")) for body in chat_server.requests)
    assert max(formats.values()) <= 8  # those in flight together, none after
    assert len(formats) == (3 if "response_format" in advice else 1)  # refused as a format, it is tried in the others


def test_a_failing_endpoint_pauses_the_run_and_resume_finishes_it(
    make_config: MakeConfig, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(llm__max_attempts=1)
    monkeypatch.setattr(chat_server, "script", lambda body, number: Reply(status=503) if number > 20 else None)
    with Session.create(config, thread_id="t") as session:
        with pytest.raises(EndpointError, match="resume"):
            session.run()
        assert session.summary()["status"] == "failed"
    monkeypatch.setattr(chat_server, "script", None)
    with Session.open("t", runs_dir=config.runs_dir) as session:
        result = session.run()
    assert (result["status"], result["n_selected"], result["calls"]["repeated"]) == ("finished", 24, 0)


@pytest.mark.parametrize(("limit", "value"), [("max_calls", 9), ("max_tokens", 12_000), ("max_usd", 0.02)])
def test_limits_are_never_passed_and_end_the_run_with_what_there_is(
    make_config: MakeConfig, limit: str, value: float
) -> None:
    prices = {"prompt_usd_per_million_tokens": 1.0, "completion_usd_per_million_tokens": 4.0}
    result = run(make_config(**{f"limits__{limit}": value}, target__mmd2=-1.0, llm__prices=prices))
    spent = {
        "max_calls": result["calls"]["done"] + result["calls"]["failed"],
        "max_tokens": sum(result["tokens"].values()),
        "max_usd": result["cost_usd"],
    }
    assert result["stop_reason"] == limit
    assert spent[limit] <= value
    assert result["n_selected"] <= 24


def test_an_absolute_target_ends_the_loop_as_soon_as_the_pool_is_full(make_config: MakeConfig) -> None:
    result = run(make_config(target__mmd2=1.0))
    assert result["stop_reason"] == "target_reached"
    assert result["mmd2"]["target"] == 1.0


@pytest.mark.parametrize("strategy", ["ivr", "gp", "gp_gap", "random", "kmeans"])
def test_every_exploration_strategy_runs(make_config: MakeConfig, strategy: str) -> None:
    result = run(make_config(explore__strategy=strategy, limits__max_rounds=2))
    assert result["n_rounds"] == 2
    assert result["coverage"]["n_demonstrations"] > 0


def test_without_attributes_or_demonstrations_nothing_of_them_is_sent(
    make_config: MakeConfig, chat_server: ChatServer
) -> None:
    run(make_config(attributes__enabled=False, generate__demonstrations="none", limits__max_rounds=1))
    assert all(is_generation(body) for body in chat_server.requests)
    assert not any("Package left in the rain" in json.dumps(body) for body in chat_server.requests)


def test_holdout_rows_never_reach_the_model(make_config: MakeConfig, chat_server: ChatServer) -> None:
    config = make_config(limits__max_rounds=4, target__mmd2=-1.0)
    with Session.create(config, thread_id="t") as session:
        session.run()
        held_out = [row.text for row in session.store.real_rows("holdout")]
        shown = [row.text for row in session.store.real_rows("reference")]
    sent = "\n".join(message["content"] for body in chat_server.requests for message in body["messages"])
    assert len(held_out) == 83
    assert sum(json.dumps(text, ensure_ascii=False)[1:-1] in sent or text in sent for text in shown) > 20
    assert not any(json.dumps(text, ensure_ascii=False)[1:-1] in sent or text in sent for text in held_out)


def _asks_for(body: dict[str, Any], schema: str) -> bool:
    return bool(body["response_format"]["json_schema"]["name"] == schema)


def test_dimensions_are_proposed_once_and_frozen(make_config: MakeConfig, chat_server: ChatServer) -> None:
    config = make_config(attributes__n_dimensions=3, target__mmd2=-1.0)
    config = config.model_copy(update={"attributes": config.attributes.model_copy(update={"dimensions": None})})
    assert run(config)["n_rounds"] > 1
    schemas = [body["response_format"]["json_schema"] for body in chat_server.requests]
    assert [schema["name"] for schema in schemas].count("ProposedDimensions") == 1
    asked = {tuple(schema["schema"]["properties"]) for schema in schemas if schema["name"] == "AttributeValues"}
    assert len(asked) == 1 and len(asked.pop()) == 3


@pytest.mark.parametrize("propose", [True, False])
def test_dimensions_are_the_standard_ones_where_none_are_proposed(
    make_config: MakeConfig, chat_server: ChatServer, propose: bool
) -> None:
    """A proposal whose names or descriptions ran into the limits of the schema is half of something: it counts as a rejection."""
    config = make_config(attributes__propose=propose, llm__schema_limits=True, limits__max_rounds=1)
    config = config.model_copy(update={"attributes": config.attributes.model_copy(update={"dimensions": None})})
    cut = {"dimensions": [{"name": "tone", "description": "m" * MAX_MEANING_CHARACTERS}]}
    chat_server.script = lambda body, _: (
        Reply(content=json.dumps(cut)) if _asks_for(body, "ProposedDimensions") else None
    )
    with Session.create(config, thread_id="t") as session:
        session.run()
        described = [set(session.store.attributes_of(cluster.id)) for cluster in session.store.clusters(1)]
        n_cut = sum(each.reason == "attributes_cut" for each in session.store.rejections() if not each.label)
    assert any(described) and set().union(*described) <= STANDARD_DIMENSIONS.keys()
    assert sum(_asks_for(body, "ProposedDimensions") for body in chat_server.requests) == propose
    assert n_cut == propose


def test_values_that_say_nothing_are_counted_and_never_reach_the_writer(
    make_config: MakeConfig, chat_server: ChatServer
) -> None:
    values = {"topic": "late parcels", "tone": "unknown"}
    chat_server.script = lambda body, _: (
        Reply(content=json.dumps(values)) if _asks_for(body, "AttributeValues") else None
    )
    config = make_config(limits__max_rounds=1)
    with Session.create(config, thread_id="t") as session:
        result = session.run()
        n_clusters = len(session.store.clusters(1))
        [refused] = {
            (each.text, each.detail) for each in session.store.rejections() if each.reason == "attributes_echo"
        }
        assert {json.dumps(session.store.attributes_of(each.id)) for each in session.store.clusters(1)} == {
            json.dumps({"topic": "late parcels"})
        }
    assert config.attributes.dimensions == {"topic": "subject", "tone": "mood"}
    assert result["rejections"]["attributes_echo"] == n_clusters
    assert refused[0] == "unknown" and "tone" in refused[1]
    sent = [json.dumps(body["messages"]) for body in chat_server.requests if _asks_for(body, "GeneratedTexts")]
    assert sent and all("late parcels" in each and "unknown" not in each for each in sent)


def test_prompts_of_ones_own_may_use_all_that_they_are_promised(
    make_config: MakeConfig, chat_server: ChatServer, tmp_path: Path
) -> None:
    for name, use in PROMPT_USES.items():
        body = "".join(f"{key}: {{{{ {key} | json }}}}\n" for key in sorted(use.inputs))
        front = f"name: {name}\nversion: mine\ninputs: [{', '.join(use.inputs)}]\noutput_schema: {use.reply.__name__}\n"
        path = tmp_path / f"{name}{SUFFIX}"
        path.write_text(f"---\n{front}---\n<!-- role: user -->\n{body}", encoding="utf-8")
    config = make_config(prompts_dir=str(tmp_path), gates__label_check__method="llm", limits__max_rounds=1)
    config = config.model_copy(update={"attributes": config.attributes.model_copy(update={"dimensions": None})})
    run(config)
    for use in PROMPT_USES.values():
        asked = [body["messages"][0]["content"] for body in chat_server.requests if _asks_for(body, use.reply.__name__)]
        assert asked and all(f"{key}: " in content for content in asked for key in use.inputs)


def test_a_text_that_the_judge_refuses_makes_no_duplicate_of_one_that_it_accepts(
    make_config: MakeConfig, chat_server: ChatServer
) -> None:
    text = "Where is my refund? I sent the kettle back three weeks ago and heard nothing since."

    def script(body: dict[str, Any], _: int) -> Reply | None:
        if _asks_for(body, "GeneratedTexts"):
            return Reply(content=json.dumps({"texts": [text]}))
        return Reply(content=json.dumps({"label": "billing"})) if _asks_for(body, "LabelJudgement") else None

    chat_server.script = script
    with Session.create(make_config(gates__label_check__method="llm", limits__max_rounds=2), thread_id="t") as session:
        result = session.run()
        [sample] = session.store.samples()
        judged_in = {call.round for call in session.store.calls(node="judge_label")}
    assert (sample.label, sample.text) == ("billing", text)
    assert result["rejections"]["label_judged"] > 0 and result["rejections"]["duplicate"] > 0
    assert judged_in == {1}, "what repeats the pool of earlier rounds is not judged"


def test_a_prompt_that_a_content_filter_refuses_is_one_lost_call(
    make_config: MakeConfig, chat_server: ChatServer
) -> None:
    def script(body: dict[str, Any], _: int) -> Reply | None:
        unwanted = is_generation(body) and "product" in str(body["messages"])
        return Reply(status=400, error_code="content_filter") if unwanted else None

    chat_server.script = script
    result = run(make_config(limits__max_rounds=1))
    assert result["rejections"]["call_content_filter"] == result["calls"]["failed_by_class"]["content_filter"] > 0
    assert result["n_pool"] > 0


def test_leftovers_of_json_are_no_texts_unless_real_rows_look_like_them(
    make_config: MakeConfig, chat_server: ChatServer, tmp_path: Path
) -> None:
    debris = "]}user. You can add one more sentence about the parcel"
    chat_server.script = lambda body, _: Reply(content=json.dumps({"texts": [debris]})) if is_generation(body) else None
    result = run(make_config(limits__max_rounds=1), thread_id="prose")
    assert result["n_pool"] == 0 and result["rejections"]["json_debris"] > 0
    code = tmp_path / "code.jsonl"
    code.write_text(
        "".join(
            json.dumps({"text": f"}} else {{ return {n}; // and {n * n} more of what came before"}) + "\n"
            for n in range(40)
        )
    )
    data = {"data__path": str(code), "data__label_column": None, "limits__max_rounds": 1}
    config = make_config(**data)
    config = config.model_copy(update={"data": config.data.model_copy(update={"label_column": None})})
    assert run(config, thread_id="code")["n_pool"] == 1


def test_a_card_names_no_folder_and_says_what_in_sample_distances_are(make_config: MakeConfig, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps(
                {"text": f"Where is parcel {n}? I ordered it {n * n} days ago, and it is not here yet.", "label": "a"}
            )
            + "\n"
            for n in range(25)
        )
    )
    result = run(make_config(data__path=str(rows), limits__max_rounds=1))
    card = (Path(result["paths"]["dataset"]).parent / "README.md").read_text()
    assert str(tmp_path) not in card and "path: rows.jsonl" in card
    assert "look better than distances to unseen rows would" in card
    assert any("only 25 real rows" in line for line in result["warnings"])


def test_a_text_that_the_schema_cuts_at_a_space_is_cut(make_config: MakeConfig, chat_server: ChatServer) -> None:
    cut = "the parcel came late and nobody "
    chat_server.script = lambda body, _: Reply(content=json.dumps({"texts": [cut]})) if is_generation(body) else None
    length = {"gates__length__max_characters": len(cut), "limits__max_rounds": 1}
    enforced = run(make_config(llm__schema_limits=True, **length), thread_id="enforced")
    free = run(make_config(llm__schema_limits=False, **length), thread_id="free")
    assert enforced["n_pool"] == 0 and enforced["rejections"]["text_cut"] > 0
    assert free["n_pool"] == 1 and "text_cut" not in free["rejections"]


def test_a_configured_token_limit_is_that_of_every_prompt(make_config: MakeConfig, chat_server: ChatServer) -> None:
    config = make_config(llm__max_tokens=777, gates__label_check__method="llm", limits__max_rounds=1)
    run(config.model_copy(update={"attributes": config.attributes.model_copy(update={"dimensions": None})}))
    asked = {body["response_format"]["json_schema"]["name"] for body in chat_server.requests}
    assert asked == {use.reply.__name__ for use in PROMPT_USES.values()}
    assert {body["max_tokens"] for body in chat_server.requests} == {777}


def test_an_early_pool_that_is_uneven_is_weighed_as_evenly_as_it_can_be(make_config: MakeConfig) -> None:
    result = run(make_config(align__min_ess=1000.0, limits__max_rounds=1))
    assert result["n_selected"] > 0 and result["ess"] > 0.9 * result["n_selected"]


def test_a_limit_in_usd_needs_prices_and_a_free_endpoint_has_them(make_config: MakeConfig) -> None:
    config = make_config(limits__max_usd=1.0, limits__max_rounds=1)
    with pytest.raises(ConfigError, match=r"limits\.max_usd: .*llm\.prices"):
        Session.create(config, thread_id="t")
    free = config.with_overrides({"llm.prices.prompt_usd_per_million_tokens": 0.0})
    assert run(free)["cost_usd"] == 0.0
    assert run(make_config(limits__max_rounds=1), thread_id="unpriced")["cost_usd"] is None


def test_label_judge_is_asked_per_sample(make_config: MakeConfig, chat_server: ChatServer) -> None:
    result = run(make_config(gates__label_check__method="llm", limits__max_rounds=1))
    judged = [
        body for body in chat_server.requests if body["response_format"]["json_schema"]["name"] == "LabelJudgement"
    ]
    assert len(judged) >= result["n_pool"]
    assert result["rejections"]["label_judged"] > 0


def test_unlabelled_few_shot_data_are_scored_on_the_reference_and_say_so(
    make_config: MakeConfig, tmp_path: Any, chat_server: ChatServer
) -> None:
    path = tmp_path / "few.csv"
    path.write_text(
        "text\n"
        + "\n".join(
            f"where is parcel number {n} of mine and it was due {n} days ago and {'nobody ' * n} tells me"
            for n in range(12)
        ),
        encoding="utf-8",
    )
    config = make_config(data__path=str(path), n_samples=6, limits__max_rounds=2)
    config = config.model_copy(update={"data": config.data.model_copy(update={"label_column": None})})
    result = run(config)
    assert result["mmd2"]["reference"] == "reference"
    assert result["p_value"] is None
    assert list(pd.read_parquet(result["paths"]["dataset"]).columns)[:2] == ["text", "weight"]
    assert "with the label" not in json.dumps([body["messages"] for body in chat_server.requests])


def test_a_model_that_writes_nothing_usable_ends_with_a_reason_and_an_empty_dataset(
    make_config: MakeConfig, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        chat_server, "script", lambda body, number: Reply(content="no") if is_generation(body) else None
    )
    result = run(make_config(limits__max_rounds=9))
    assert result["stop_reason"] == "no_new_samples"
    assert (result["n_selected"], result["mmd2"]["aligned"]) == (0, None)
    assert len(pd.read_parquet(result["paths"]["dataset"])) == 0


def test_checkpoints_hold_references_only(make_config: MakeConfig) -> None:
    config = make_config()
    with Session.create(config, thread_id="t") as session:
        session.run()
        texts = [sample.text for sample in session.store.samples()]
        folder = session.folder

    async def values() -> dict[str, Any]:
        async def unopened(thread_id: str, context: Any) -> Any:
            raise AssertionError("reading a thread opens no session")

        async with AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.sqlite")) as saver:
            graph = build_graph(unopened).compile(checkpointer=saver)
            return dict((await graph.aget_state({"configurable": {"thread_id": "t"}})).values)

    state = json.dumps(asyncio.run(values()))  # plain JSON types only
    assert not any(text in state for text in texts)
    checkpoint_bytes = (folder / "checkpoints.sqlite").read_bytes()
    assert not any(text.encode() in checkpoint_bytes for text in texts)


def test_one_process_at_a_time(make_config: MakeConfig) -> None:
    import filelock

    with Session.create(make_config(), thread_id="t") as session:
        with filelock.FileLock(session.folder / ".lock"), pytest.raises(SessionError, match="is being run by"):
            session.run()
        assert session.run()["status"] == "finished"
