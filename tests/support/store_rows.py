"""Rows of a session's store, small and of all kinds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from synalign_agent.records import (
    CallRecord,
    CallTotals,
    Decision,
    DemonstrationCluster,
    RealRow,
    Rejection,
    Sample,
    Split,
)

TEXT = 'it\'s "größer"; DROP TABLE real; -- 😀\n\x00 \U0010ffff0 100 % %s ? end'


def real(n: int, split: Split = "reference", text: str = "text") -> RealRow:
    return RealRow(f"real{n}", text, "label", split)


def cluster(n: int, round: int = 1, score: float | None = 0.5) -> DemonstrationCluster:
    return DemonstrationCluster(f"cluster{n}", round, "label", n, "real1", ("real1", f"real{n}"), score)


def sample(n: int, round: int = 1, text: str = "text") -> Sample:
    return Sample(f"sample{n}", round, "label", text, "cluster1", "key1", n, "real1", 0.25)


def rejection(n: int, round: int = 1, reason: str = "duplicate") -> Rejection:
    return Rejection(f"rejection{n}", round, "label", "key1", reason, "detail", "text")


def call(key: str = "key1", attempt: int = 1, round: int = 1, node: str = "generate", bound: int = 100) -> CallRecord:
    return CallRecord(
        key=key, attempt=attempt, state="intended", node=node, round=round, cluster_id="cluster1", draw=0,
        prompt="generate_samples", prompt_version="1", prompt_sha256="0", model="m", seed=7, bound_tokens=bound,
        bound_usd=bound / 1000,
    )  # fmt: skip


def done(intended: CallRecord, prompt: int = 10, completion: int = 5, content: str = "{}") -> CallRecord:
    return replace(
        intended, state="done", content=content, finish_reason="stop", prompt_tokens=prompt, completion_tokens=completion,
        cost_usd=(prompt + completion) / 1e4, seconds=1.5,
    )  # fmt: skip


def failed(intended: CallRecord, error_class: str = "timeout") -> CallRecord:
    return replace(intended, state="failed", error_class=error_class, error="it broke", seconds=0.5)


def decision(n: int, round: int = 1, **others: Any) -> Decision:
    fields: dict[str, Any] = {"kind": "sample", "item_id": f"sample{n}", "round": round, "verdict": "approve"}
    by = {"reviewer": "ada", "decided_at": "2026-01-01T00:00:00Z"}
    return Decision.of(**{**fields, **by, **others})


def same_totals(one: CallTotals, two: CallTotals) -> bool:
    """Compare up to the order in which money was added up."""
    money = ("cost_usd", "charged_usd")
    assert [getattr(one, name) for name in money] == pytest.approx([getattr(two, name) for name in money], abs=1e-9)
    return replace(one, cost_usd=0, charged_usd=0) == replace(two, cost_usd=0, charged_usd=0)
