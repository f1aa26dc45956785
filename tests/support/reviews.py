"""What tests of reviews have in common: a reviewer, an edit, and the review that waits."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
from support.chat_server import ChatServer

from synalign_agent.review import PendingReview, decide
from synalign_agent.session import Session

BY = {"reviewer": "ada", "decided_at": "2026-01-02T03:04:05+00:00"}
EDITED = "I would have liked somebody to ring me about the piano before it went back to your depot."


def pending_of(session: Session) -> PendingReview:
    pending = session.review()
    assert pending is not None
    return pending


def approve_all(session: Session) -> dict[str, Any]:
    return session.answer([decide(item, "approve", **BY) for item in pending_of(session).undecided])


def finish(session: Session) -> dict[str, Any]:
    result = session.summary()
    while result["status"] == "waiting_for_review":
        result = approve_all(session)
    return result


def pool_of(result: dict[str, Any]) -> list[str]:
    return list(pd.read_parquet(result["paths"]["pool"])["text"])


def sent(chat_server: ChatServer, schema: str, start: int = 0) -> list[str]:
    return [
        json.dumps(body["messages"], ensure_ascii=False)
        for body in chat_server.requests[start:]
        if body["response_format"]["json_schema"]["name"] == schema
    ]
