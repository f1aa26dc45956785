"""Review by `Command(resume=...)`: what an API caller is given, may answer, and is told about an answer of no use."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from langgraph.types import Command
from pydantic import ValidationError
from support.postgres import wherever_kept
from support.reviews import EDITED, finish, pending_of, pool_of

from synalign_agent.graph_thread import GraphThread
from synalign_agent.session import Session

pytestmark = pytest.mark.usefixtures("hash_encoder")


class Api:
    """The graph as somebody drives it who knows LangGraph only: raw payloads, `Command(resume=...)`."""

    def __init__(self, session: Session) -> None:
        self._thread = GraphThread(session.folder, session.config, session.store)

    def state(self) -> Any:
        async def read() -> Any:
            async with self._thread.opened() as (graph, config, _):
                return await graph.aget_state(config)

        return asyncio.run(read())

    def resume(self, value: Any) -> None:
        """Resume as the session does, with a value that it did not check."""
        from contextlib import ExitStack

        async def go() -> None:
            with ExitStack() as stack:
                [waiting] = (await asyncio.to_thread(self.state)).interrupts
                command: Command[Any] = Command(resume={waiting.id: value})
                await self._thread.run(stack, lambda stage: None, handle_signals=False, resume=command)

        asyncio.run(go())


@wherever_kept
def test_the_request_has_langchains_shape_and_decisions_may_go_by_order(waiting: Session) -> None:
    api = Api(waiting)
    [interrupt] = api.state().interrupts
    assert interrupt.value.keys() == {"action_requests", "review_configs"}
    requests = interrupt.value["action_requests"]
    assert all(request.keys() == {"name", "args", "description"} for request in requests)
    assert interrupt.value["review_configs"] == [
        {"action_name": "review_sample", "allowed_decisions": ["approve", "edit", "reject"]}
    ]
    assert interrupt.response_schema["properties"]["decisions"]["minItems"] == 1
    first, second, *others = (request["args"]["text"] for request in requests)
    api.resume(
        {
            "decisions": [
                {"type": "edit", "edited_action": {"name": "review_sample", "args": {"text": EDITED}}},
                {"type": "reject", "message": "reads like an advert"},
                *({"type": "approve"} for _ in others),
            ]
        }
    )
    result = waiting.summary()
    texts = pool_of(result)
    assert result["status"] == "finished" and result["rejections"]["review_rejected"] == 1
    assert EDITED in texts and set(others) <= set(texts) and not {first, second} & set(texts)
    assert {decision.reviewer for decision in waiting.store.decisions()} == {"api"}


@pytest.mark.parametrize(
    "answer",
    [
        "yes",
        {},
        {"decisions": []},
        {"decisions": [{"type": "maybe"}]},
        {"decisions": [{"type": "edit"}]},
        {"decisions": [{"type": "reject", "message": " "}]},
        {"decisions": [{"type": "approve", "mesage": "x"}]},
    ],
)
def test_an_answer_off_the_schema_is_explained_and_can_be_given_again(waiting: Session, answer: Any) -> None:
    api = Api(waiting)
    with pytest.raises(ValidationError, match="ReviewAnswer"):
        api.resume(answer)
    assert waiting.store.decisions() == []
    assert finish_after_error(waiting)["status"] == "finished"


def finish_after_error(session: Session) -> dict[str, Any]:
    session.run()
    return finish(session)


@pytest.mark.parametrize(
    ("decisions", "says"),
    [
        ([{"type": "approve"}], "the answer has 1 decisions for"),
        ([{"type": "edit", "edited_action": {"args": {"txt": "x"}}, "item_id": "FIRST"}], "`args` needs `text`"),
        ([{"type": "approve", "item_id": "SECOND"}], "has no decision yet"),
    ],
)
def test_an_answer_that_fits_the_schema_but_not_the_items_is_explained(
    waiting: Session, decisions: Any, says: str
) -> None:
    first, second, *_ = pending_of(waiting).items
    named = json.loads(json.dumps(decisions).replace("FIRST", first.id).replace("SECOND", second.id))
    Api(waiting).resume({"decisions": named})
    assert waiting.status() == "waiting_for_review"
    items = {item.id: item for item in pending_of(waiting).items}
    assert says in str(items[first.id].problem)
    assert (second.id in items) == ("SECOND" not in json.dumps(decisions))
    assert finish(waiting)["status"] == "finished"
