"""Traces, as a sink receives them: every kind of span with its numbers, no text, and the headers that platforms want."""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import canaries
from support.chat_server import ChatServer
from support.otlp_sink import OTLPSink

from synalign_agent.config import OTLPConfig, SessionConfig
from synalign_agent.errors import ConfigError, EndpointError
from synalign_agent.observe.exported import traces_url
from synalign_agent.observe.otel import open_spans
from synalign_agent.review import decide
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]
pytestmark = pytest.mark.usefixtures("hash_encoder")
PRICES = {"prompt_usd_per_million_tokens": 1.0, "completion_usd_per_million_tokens": 4.0}


@pytest.fixture
def sink() -> Iterator[OTLPSink]:
    with OTLPSink() as running:
        yield running


def test_every_step_is_a_span_with_its_numbers(make_config: MakeConfig, sink: OTLPSink) -> None:
    config = make_config(observability__otlp__endpoint=sink.base_url, llm__prices=PRICES, limits__max_rounds=2)
    with Session.create(config, thread_id="spans") as session:
        result = session.run()
    spans = sink.spans
    named = Counter(span.name for span in spans)
    assert {"explore", "summarize_attributes", "generate", "screen", "align", "finish", "synalign"} <= named.keys()
    assert {span.attributes["session.id"] for span in spans} == {"spans"}
    assert {span.resource["openinference.project.name"] for span in spans} == {"synalign"}

    calls = [span for span in spans if span.attributes["openinference.span.kind"] == "LLM"]
    assert len(calls) == result["calls"]["done"]
    for kind in ("prompt", "completion"):
        assert sum(span.attributes[f"llm.token_count.{kind}"] for span in calls) == result["tokens"][kind]
    assert sum(span.attributes["llm.cost.total"] for span in calls) == pytest.approx(result["cost_usd"])
    by_id = {span.span_id: span for span in spans}
    for call in calls:
        assert len(call.attributes["synalign.prompt.sha256"]) == 64
        assert call.attributes["synalign.prompt.version"].count(".") == 2
        node = by_id[call.parent_id]
        assert node.attributes["openinference.span.kind"] == "CHAIN"
        assert node.name == call.attributes["synalign.node"]
        assert call.attributes["synalign.round"] == node.attributes["synalign.round"]

    aligned = {span.attributes["synalign.round"]: span for span in spans if span.name == "align_pool"}
    assert sorted(aligned) == list(range(1, result["n_rounds"] + 1))
    assert aligned[result["n_rounds"]].attributes["synalign.mmd2.aligned"] == pytest.approx(result["mmd2"]["aligned"])
    for name in ("text_gates", "vector_gates"):
        gates = [span for span in spans if span.name == name]
        assert {span.attributes["synalign.round"] for span in gates} == set(aligned)
        assert all(by_id[span.parent_id].name == "screen" for span in gates)
    assert sum(span.attributes["synalign.n_texts"] for span in spans if span.name == "text_gates") == result[
        "n_pool"
    ] + sum(result["rejections"].values())
    assert {by_id[span.parent_id].name for span in spans if span.name == "embed" and span.parent_id} <= {
        "generate",
        "screen",
    }


@pytest.mark.parametrize("capture_content", [False, True])
def test_texts_and_keys_leave_only_if_content_is_captured(
    make_config: MakeConfig,
    sink: OTLPSink,
    chat_server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capture_content: bool,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", canaries.KEY)
    monkeypatch.setattr(chat_server, "script", canaries.script)
    config = make_config(
        data__path=str(canaries.write_rows(tmp_path / "real.jsonl")),
        observability__otlp__endpoint=sink.base_url,
        observability__otlp__capture_content=capture_content,
        review__samples="every_round",
        n_samples=8,
    )
    with Session.create(config, thread_id=f"canaries-{capture_content}") as session:
        assert session.run()["status"] == "waiting_for_review"  # an interrupt is an exception that holds the texts
        pending = session.review()
        assert pending is not None and any(canaries.WRITTEN in str(item) for item in pending.items)
        monkeypatch.setattr(chat_server, "script", canaries.refusing)
        answers = [decide(item, "reject", reason="no", reviewer="ada") for item in pending.items]
        with pytest.raises(EndpointError, match=canaries.REAL):
            session.answer(answers)
    failed = {span.name for span in sink.spans if span.status == 2}
    assert "synalign" in failed and failed & {"generate_samples", "summarize_attributes"}
    found = [word for word in canaries.CANARIES if word.encode() in sink.bytes]
    assert found == ([canaries.REAL, canaries.WRITTEN] if capture_content else [])


def test_langfuse_and_weave_get_their_path_key_and_project(
    make_config: MakeConfig, sink: OTLPSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    basic = base64.b64encode(b"pk-lf-1:sk-lf-2").decode()
    monkeypatch.setenv("LANGFUSE_HEADERS", f"Authorization=Basic {basic},x-langfuse-ingestion-version=4")
    monkeypatch.setenv("WEAVE_HEADERS", "wandb-api-key=key-of-wandb")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "wandb.entity=ada,wandb.project=tickets")
    platforms = {
        "langfuse": ("/api/public/otel", "LANGFUSE_HEADERS"),
        "weave": ("/otel/v1/traces", "WEAVE_HEADERS"),
    }
    for name, (path, variable) in platforms.items():
        config = make_config(
            observability__otlp__endpoint=sink.base_url + path,
            observability__otlp__headers_env=variable,
            limits__max_rounds=1,
        )
        with Session.create(config, thread_id=name) as session:
            assert session.run()["warnings"] == []
    received = {request.path: request for request in sink.requests}
    assert received.keys() == {"/api/public/otel/v1/traces", "/otel/v1/traces"}
    langfuse, weave = received["/api/public/otel/v1/traces"].headers, received["/otel/v1/traces"].headers
    assert langfuse["authorization"] == f"Basic {basic}" and langfuse["x-langfuse-ingestion-version"] == "4"
    assert weave["wandb-api-key"] == "key-of-wandb" and "authorization" not in weave
    assert langfuse["content-type"] == weave["content-type"] == "application/x-protobuf"
    of_weave = [span.resource for span in sink.spans if span.attributes["session.id"] == "weave"]
    assert {(resource["wandb.entity"], resource["wandb.project"]) for resource in of_weave} == {("ada", "tickets")}


@pytest.mark.parametrize("status", [None, 401])
def test_a_sink_that_is_down_or_refuses_is_a_warning(
    make_config: MakeConfig, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")  # seconds; 10 by default
    with OTLPSink(status or 200) as sink:
        url = sink.base_url
        if status is None:
            sink.__exit__()
        config = make_config(observability__otlp__endpoint=url, limits__max_rounds=1)
        started = time.monotonic()
        with Session.create(config, thread_id=f"down-{status}") as session:
            result = session.run()
    assert result["status"] == "finished"
    [warning] = result["warnings"]
    assert "observer otlp failed 1 time" in warning and f"{url}/v1/traces" in warning
    assert time.monotonic() - started < 60


def test_spans_of_other_graphs_go_nowhere(make_config: MakeConfig, sink: OTLPSink) -> None:
    from langchain_core.runnables import RunnableLambda

    config = make_config(observability__otlp__endpoint=sink.base_url, limits__max_rounds=1)
    with Session.create(config, thread_id="ours") as session:
        session.run()
    n_spans = len(sink.spans)
    RunnableLambda(str, name="theirs").invoke(3)
    from synalign_agent.observe import otel

    assert otel._process is not None and otel._process.provider.force_flush()
    assert len(sink.spans) == n_spans


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://localhost:6006", "http://localhost:6006/v1/traces"),
        ("http://localhost:6006/", "http://localhost:6006/v1/traces"),
        ("https://a.example/otel/v1/traces", "https://a.example/otel/v1/traces"),
        ("https://a.example/otel/v1/traces?tenant=1", "https://a.example/otel/v1/traces?tenant=1"),
    ],
)
def test_the_path_is_added_where_it_is_missing(endpoint: str, url: str) -> None:
    assert traces_url(endpoint) == url


def test_headers_come_from_the_named_variable_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=for-another-platform")
    monkeypatch.delenv("MY_HEADERS", raising=False)
    config = OTLPConfig(endpoint="http://127.0.0.1:1", headers_env="MY_HEADERS")
    with pytest.raises(ConfigError, match="MY_HEADERS is not set"):
        open_spans("t", config, priced=False)
