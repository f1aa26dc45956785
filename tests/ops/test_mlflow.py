"""A session on a real MLflow server: its run, its rounds and its trace, as the server's own API tells them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from synalign_agent.config import SessionConfig
from synalign_agent.session import Session

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hash_encoder"), pytest.mark.timeout(600)]
MakeConfig = Callable[..., SessionConfig]
PRICES = {"prompt_usd_per_million_tokens": 1.0, "completion_usd_per_million_tokens": 4.0}


def test_a_session_is_a_run_and_goes_on_in_it(make_config: MakeConfig, mlflow_url: str) -> None:
    config = make_config(
        observability__mlflow__tracking_uri=mlflow_url,
        observability__mlflow__experiment="tickets",
        llm__prices=PRICES,
        limits__max_rounds=1,
        target__mmd2=-1.0,
    )
    with Session.create(config, thread_id="tracked") as session:
        first = session.run()
    client = MlflowClient(tracking_uri=mlflow_url)
    run = only_run(client)
    assert (run.info.run_name, run.info.status) == ("tracked", "FINISHED")
    assert run.data.params["n_samples"] == "24"
    assert run.data.params["llm.model"] == "scripted"
    assert run.data.metrics["mmd2.aligned"] == pytest.approx(first["mmd2"]["aligned"])
    assert run.data.metrics["tokens.prompt"] == first["tokens"]["prompt"]
    assert run.data.metrics["cost_usd"] == pytest.approx(first["cost_usd"])
    assert run.data.metrics["coverage"] == pytest.approx(first["coverage"]["explored"])
    assert {"ess", "mmd2.floor", "mmd2.raw", "mmd2.target", "n_eq", "tokens.completion"} <= run.data.metrics.keys()

    with Session.create(
        config.with_overrides({"limits.max_rounds": 3}), thread_id="tracked", accept_changes=True
    ) as session:
        second = session.run()
    assert second["warnings"] == []
    run = only_run(client)
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "mmd2.aligned")]
    assert steps == [1, 2, 3]
    assert run.data.tags["synalign.stop_reason"] == "max_rounds"

    digests = {item.tags[0].value: item.dataset.digest for item in run.inputs.dataset_inputs}
    assert digests.keys() == {"real", "synthetic"} and all(digests.values())
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"report.html", "report.json", "config.yaml", "prompts", "export"} <= artifacts
    assert [item.path for item in client.list_artifacts(run.info.run_id, "export")] == ["export/README.md"]
    assert len(client.list_artifacts(run.info.run_id, "prompts")) == 4
    version, sha256 = run.data.tags["synalign.prompt.generate_samples"].split()
    assert version.count(".") == 2 and len(sha256) == 64


def test_mlflow_shows_the_trace_and_adds_up_the_tokens(
    make_config: MakeConfig, mlflow_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(tracking_uri=mlflow_url)
    experiment = client.create_experiment("traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-mlflow-experiment-id={experiment}")
    config = make_config(observability__otlp__endpoint=mlflow_url, llm__prices=PRICES)
    with Session.create(config, thread_id="traced") as session:
        result = session.run()
    assert result["warnings"] == []

    traces = client.search_traces(locations=[experiment], include_spans=True)
    spans = [span for trace in traces for span in trace.data.spans]
    kinds = Counter(span.attributes["openinference.span.kind"] for span in spans)
    assert kinds["LLM"] == result["calls"]["done"]
    assert kinds["EVALUATOR"] == result["n_rounds"]
    assert kinds["EMBEDDING"] and kinds["GUARDRAIL"]
    [graph] = [trace for trace in traces if any(span.name == "synalign" for span in trace.data.spans)]
    usage = json.loads(graph.info.trace_metadata["mlflow.trace.tokenUsage"])
    assert usage["input_tokens"] == result["tokens"]["prompt"]
    assert usage["total_tokens"] == sum(result["tokens"].values())
    assert graph.info.trace_metadata["mlflow.trace.session"] == "traced"


def only_run(client: MlflowClient) -> Run:
    experiment: Any = client.get_experiment_by_name("tickets")
    [run] = client.search_runs([experiment.experiment_id])
    return run
