"""A session's trace on a real Phoenix server: the spans and the token sums that its own API tells."""

from __future__ import annotations

import json
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from synalign_agent.config import SessionConfig
from synalign_agent.session import Session

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hash_encoder"), pytest.mark.timeout(600)]
_QUERY = (
    "{projects{edges{node{name traceCount recordCount tokenCountTotal tokenCountPrompt costSummary{total{cost}}}}}}"
)


def test_phoenix_shows_the_spans_and_adds_up_the_tokens(
    make_config: Callable[..., SessionConfig], phoenix_url: str
) -> None:
    prices = {"prompt_usd_per_million_tokens": 1.0, "completion_usd_per_million_tokens": 4.0}
    config = make_config(
        observability__otlp__endpoint=phoenix_url, observability__otlp__project="tickets", llm__prices=prices
    )
    with Session.create(config, thread_id="seen-by-phoenix") as session:
        result = session.run()
    assert result["warnings"] == []

    project = settled(phoenix_url, "tickets")
    spans = get(f"{phoenix_url}/v1/projects/tickets/spans?limit=1000")["data"]
    kinds = Counter(span["span_kind"] for span in spans)
    assert kinds["LLM"] == result["calls"]["done"]
    assert kinds["EMBEDDING"] and kinds["GUARDRAIL"]
    assert kinds["EVALUATOR"] == result["n_rounds"]
    of_session = {span["attributes"]["session.id"] for span in spans}
    assert of_session == {"seen-by-phoenix"}
    [aligned] = [
        span["attributes"]["synalign.mmd2.aligned"]
        for span in spans
        if span["span_kind"] == "EVALUATOR" and span["attributes"]["synalign.round"] == result["n_rounds"]
    ]
    assert aligned == pytest.approx(result["mmd2"]["aligned"])

    assert project["recordCount"] == len(spans)
    assert project["tokenCountPrompt"] == result["tokens"]["prompt"]
    assert project["tokenCountTotal"] == sum(result["tokens"].values())


def settled(url: str, name: str) -> dict[str, Any]:
    """Return what Phoenix tells of a project once it has taken in what was sent: it does so after it has answered."""
    seen, deadline = None, time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = get(f"{url}/graphql", {"query": _QUERY})
        found = [edge["node"] for edge in answer["data"]["projects"]["edges"] if edge["node"]["name"] == name]
        if found and found[0] == seen:
            return found[0]
        seen = found[0] if found else None
        time.sleep(1)
    raise AssertionError(f"Phoenix goes on changing: {seen}")


def get(url: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        url, data=None if body is None else json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)
