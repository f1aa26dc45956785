"""A journalled model with its store and a scripted endpoint."""

from __future__ import annotations

import asyncio
from typing import Any

from support.chat_server import ChatServer

from synalign_agent.config import LimitsConfig, LLMConfig
from synalign_agent.llm.base import CallRequest
from synalign_agent.llm.budget import Budget
from synalign_agent.llm.client import JournaledModel
from synalign_agent.llm.providers import Endpoint
from synalign_agent.prompting.catalog import PromptCatalog
from synalign_agent.records import CallRecord
from synalign_agent.schemas import texts_schema
from synalign_agent.stores.memory import MemorySessionStore

PROMPT = PromptCatalog.load()["generate_samples"]
REQUEST = CallRequest(
    node="generate",
    prompt=PROMPT,
    values={
        "task": "notes", "label": None, "attributes": {}, "demonstrations": [["one", "two"]], "guidance": [],
        "layout": "chat", "n": 2, "words": (3, 9),
    },
    schema=texts_schema(2, 80),
    max_tokens=100,
    round=1,
    cluster_id="c",
)  # fmt: skip

KEY = "sk-canary-4711"


class Bench:
    """A model, its store and its server."""

    def __init__(self, server: ChatServer, **llm: Any) -> None:
        limits = llm.pop("limits", LimitsConfig())
        self.store = llm.pop("store", None) or MemorySessionStore()
        config = LLMConfig(model="m", temperature=0.5, extra_body={"min_p": 0.1}, concurrency=4, **llm)
        endpoint = Endpoint(server.base_url, "m", "m", KEY)
        self.model = JournaledModel(endpoint, config, self.store, Budget(limits, self.store.call_totals()), seed=7)

    def call(self, *requests: CallRequest, in_turn: bool = False) -> list[CallRecord]:
        async def run() -> list[CallRecord]:
            try:
                if in_turn:
                    return [await self.model.call(request) for request in requests]
                return list(await asyncio.gather(*(self.model.call(request) for request in requests)))
            finally:
                await self.model.aclose()

        return asyncio.run(run())
