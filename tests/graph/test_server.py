"""`langgraph dev` serves the graphs without keys of others: through the SDK, with limits on what comes over the network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pandas as pd
import pytest
from langgraph_sdk import get_sync_client
from langgraph_sdk.errors import AuthenticationError, ConflictError, NotFoundError
from support.chat_server import Reply
from support.langgraph_server import Server, langgraph_server

from synalign_agent import wiring

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with langgraph_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(autouse=True)
def unscripted(server: Server) -> Iterator[None]:
    yield
    server.chat.script = None


def failure(values: Any) -> str:
    """Return the message of a run that failed."""
    return str(values["__error__"]["message"])


def wait_until_interrupted(server: Server, thread_id: str, seconds: float) -> None:
    """Wait until a session is nobody's, so that the command line could go on with it."""
    until = time.monotonic() + seconds
    with server.session(thread_id) as session:
        while session.status() == "running" and time.monotonic() < until:
            time.sleep(0.1)
        assert session.status() == "interrupted"
        assert not wiring.is_locked(session.folder, session.store)


def test_a_key_is_needed_and_shows_its_owner_s_threads_alone(server: Server) -> None:
    with server.client() as ada, server.client("bob") as bob:
        for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}, {"x-auth-scheme": "langsmith"}):
            with get_sync_client(url=server.url, headers=headers) as nobody, pytest.raises(AuthenticationError):
                nobody.threads.create()
        thread_id = ada.threads.create(metadata={"owner": "bob"})["thread_id"]  # which it is not
        assert ada.threads.get(thread_id)["metadata"]["owner"] == "ada"
        assert [found["thread_id"] for found in ada.threads.search()] == [thread_id]
        assert bob.threads.search() == []
        for attempt in (
            lambda: bob.threads.get(thread_id),
            lambda: bob.threads.get_state(thread_id),
            lambda: bob.threads.delete(thread_id),
            lambda: bob.runs.create(thread_id, "synthesis", input={}, context=server.context()),
        ):
            with pytest.raises(NotFoundError):
                attempt()
        mine = ada.assistants.create("synthesis", context=server.context())["assistant_id"]
        with pytest.raises(NotFoundError):
            bob.assistants.delete(mine)
        assert len(bob.assistants.search()) == 3 < len(ada.assistants.search())
        ada.store.put_item(["notes"], "one", {"of": "ada"})
        assert bob.store.get_item(["notes"], "one") is None
        assert bob.store.search_items(["ada"])["items"] == []


def test_pages_of_other_sites_cannot_read_the_server(server: Server) -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for origin, allowed in (("https://smith.langchain.com", True), ("https://elsewhere.example", False)):
        reply = httpx.options(f"{server.url}/threads", headers={"Origin": origin, **preflight})
        assert ("access-control-allow-origin" in reply.headers) is allowed


def test_schemas_show_what_clients_may_give(server: Server) -> None:
    with server.client() as client:
        assistants = {found["graph_id"]: found["assistant_id"] for found in client.assistants.search()}
        assert assistants.keys() == {"synthesis", "alignment", "exploration"}
        schemas = {name: client.assistants.get_schemas(assistants[name]) for name in sorted(assistants)}
    assert set(schemas["alignment"]["input_schema"]["required"]) == {"real", "synthetic", "n_samples"}
    assert set(schemas["alignment"]["output_schema"]["properties"]) == {"report", "selected", "result_id"}
    assert "strategy" in schemas["exploration"]["input_schema"]["properties"]
    shown = schemas["synthesis"]["context_schema"]
    assert {"config", "real"} <= shown["properties"].keys()
    text = json.dumps(shown)
    assert "base_url" in text and "api_key_env" not in text and "runs_dir" not in text


def test_a_run_is_streamed_waits_for_people_and_finishes(server: Server) -> None:
    edited = "I would have liked somebody to ring me about the piano before it went back to your depot."
    context = server.context(review={"samples": "first_round", "attributes": "first_round"})
    with server.client() as client:
        thread_id = client.threads.create()["thread_id"]

        def waiting() -> tuple[str, list[dict[str, Any]]]:
            [interrupt] = client.threads.get_state(thread_id)["interrupts"]
            assert interrupt["value"]["review_configs"][0]["allowed_decisions"] == ["approve", "edit", "reject"]
            return interrupt["id"], [request["args"] for request in interrupt["value"]["action_requests"]]

        def answer(*decisions: dict[str, Any]) -> Any:
            id, _ = waiting()
            command = {"resume": {id: {"decisions": list(decisions)}}}
            # Without a context: the session knows what it is.
            return client.runs.wait(thread_id, "synthesis", command=command, raise_error=False)

        events = list(client.runs.stream(thread_id, "synthesis", input={}, context=context, stream_mode="updates"))
        steps = [step for event in events if event.event == "updates" for step in event.data]
        assert steps[0] == "explore" and steps[-1] == "__interrupt__" and "summarize_attributes" in steps, steps
        _, clusters = waiting()
        assert all(cluster["demonstrations"] and cluster["attributes"] for cluster in clusters)
        # The session is nobody's while it waits: it can be looked at, or answered by the command line.
        folder = server.folder / "served" / thread_id
        with server.session(thread_id) as session:
            assert session.status() == "waiting_for_review"
            assert not wiring.is_locked(folder, session.store)

        answer({"type": "reject"})  # without a reason
        answer(*[{"type": "edit", "edited_action": {"args": {"attributes": {"mood": "calm"}}}} for _ in clusters])
        _, samples = waiting()
        others = [sample["text"] for sample in samples[2:]]
        assert all(sample["attributes"] == {"mood": "calm"} and sample["nearest_real"] for sample in samples)
        values = answer(
            {"type": "edit", "edited_action": {"name": "review_sample", "args": {"text": edited}}},
            {"type": "reject", "message": "reads like an advert"},
            *[{"type": "approve"} for _ in others],
        )
    assert values["stop_reason"] == "max_rounds", values
    pool = pd.read_parquet(folder / "export" / "pool.parquet")
    assert set(pool["text"]) == {edited, *others}
    with server.session(thread_id) as session:
        assert session.status() == "finished"
        assert [found.detail for found in session.store.rejections() if found.reason == "review_rejected"] == [
            "reads like an advert"
        ]


def test_a_background_run_is_cancelled_and_goes_on_later(server: Server) -> None:
    asked = len(server.chat.requests)
    server.chat.script = lambda _body, _number: Reply(delay_seconds=60.0)
    with server.client() as client:
        thread_id = client.threads.create()["thread_id"]
        run = client.runs.create(thread_id, "synthesis", input={}, context=server.context())
        server.chat.wait_for(asked + 1, 60.0)
        with pytest.raises(ConflictError):
            client.runs.create(thread_id, "synthesis", input={}, multitask_strategy="reject")
        client.runs.cancel(thread_id, run["run_id"], wait=True)
        assert client.runs.get(thread_id, run["run_id"])["status"] == "interrupted"
        wait_until_interrupted(server, thread_id, seconds=10.0)  # the run is over a moment before its session is closed
        server.chat.script = None
        values = client.runs.wait(thread_id, "synthesis", input=None)  # {} would begin another round
    assert values["stop_reason"] == "max_rounds", values
    assert [found["round"] for found in values["history"]] == [1]


def test_a_run_that_ends_between_two_steps_leaves_its_session_to_others(server: Server) -> None:
    asked = len(server.chat.requests)
    with server.client() as client:
        thread_id = client.threads.create()["thread_id"]
        client.runs.wait(thread_id, "synthesis", input={}, context=server.context(), interrupt_after=["explore"])

        def go_on(**options: Any) -> Any:
            return client.runs.wait(thread_id, "synthesis", input=None, raise_error=False, **options)

        told = failure(go_on(context=server.context(n_samples=5)))
        assert "n_samples" in told and "Leave the context out" in told and "--" not in told
        go_on(interrupt_after=["summarize_attributes"])
        assert client.threads.get_state(thread_id)["next"] == ["plan_calls"]
        wait_until_interrupted(server, thread_id, seconds=30.0)
        values = go_on()
    assert values["stop_reason"] == "max_rounds", values
    requests = [json.dumps(request, sort_keys=True) for request in server.chat.requests[asked:]]
    assert len(requests) == len(set(requests)) > 0
    with server.session(thread_id) as session:
        assert session.status() == "finished"
        assert session.store.call_totals().done == len(requests)


def test_runs_of_one_thread_queue_and_assistants_keep_their_contexts(server: Server) -> None:
    with server.client() as client:
        thread_ids = [client.threads.create()["thread_id"] for _ in range(2)]
        for n_samples, thread_id in zip((3, 5), thread_ids, strict=True):
            assistant = client.assistants.create("synthesis", context=server.context(n_samples=n_samples))
            runs = [
                client.runs.create(thread_id, assistant["assistant_id"], input={}, multitask_strategy="enqueue")
                for _ in range(2 if thread_id == thread_ids[0] else 1)
            ]
        for thread_id in thread_ids:
            for run in client.runs.list(thread_id):
                client.runs.join(thread_id, run["run_id"])
                assert client.runs.get(thread_id, run["run_id"])["status"] == "success"
        assert len(client.runs.list(thread_ids[0])) == 2 and runs
    for n_samples, thread_id in zip((3, 5), thread_ids, strict=True):
        with server.session(thread_id) as session:
            assert session.config.n_samples == n_samples
            assert len(session.store.rounds()) == 1  # the second run found it finished
            assert session.status() == "finished"


def test_rows_come_with_the_context(server: Server) -> None:
    rows = [json.loads(line) for line in (server.folder / "data" / "real.jsonl").read_text().splitlines()]
    context = server.context(data={"text_column": "body", "label_column": "queue"})
    context["real"] = [{"body": row["text"], "queue": row["label"]} for row in rows]
    with server.client() as client:
        thread_id = client.threads.create()["thread_id"]
        values = client.runs.wait(thread_id, "synthesis", input={}, context=context)
        assert values["stop_reason"] == "max_rounds", values
        context["real"] = context["real"][:50]
        again = {"stop_reason": None}  # {} would end at once
        values = client.runs.wait(thread_id, "synthesis", input=again, context=context, raise_error=False)
    assert "other rows" in failure(values)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"llm": {"model": "scripted", "base_url": "http://169.254.169.254/v1"}}, "does not call http://169.254"),
    ({"llm": {"api_key_env": "AWS_SECRET_ACCESS_KEY"}}, "llm.api_key_env: only the operator"),
    ({"llm": {"provider": "embedded", "model": "/etc/passwd"}}, "does not call an embedded model"),
    ({"storage": {"url": "postgresql://elsewhere/db"}}, "storage.url: only the operator"),
    ({"data": {"path": "../outside.jsonl"}}, "is no file in the data folder"),
    ({"data": {"path": "link.jsonl"}}, "is no file in the data folder"),
    ({"data": {"path": "real.jsonl", "text_column": "body"}}, "real.jsonl: row 1: no field `body`"),
    ({"limits": {"max_rounds": 4}}, "allows 3 at most"),
]


def test_what_the_operator_keeps_is_refused_in_a_sentence(server: Server) -> None:
    with server.client() as client:
        runs = []
        for sections, _ in REFUSED:
            thread_id = client.threads.create()["thread_id"]
            # A client cannot have the session of another thread either.
            spoofed = {"configurable": {"thread_id": "../elsewhere"}} if sections == REFUSED[-1][0] else None
            context = server.context(**sections)
            if spoofed:
                spoofed["configurable"] |= context
                run = client.runs.create(thread_id, "synthesis", input={}, config=spoofed)
            else:
                run = client.runs.create(thread_id, "synthesis", input={}, context=context)
            runs.append((thread_id, run["run_id"]))
        for (_, expected), (thread_id, run_id) in zip(REFUSED, runs, strict=True):
            client.runs.join(thread_id, run_id)
            thread = client.threads.get(thread_id)
            assert thread["status"] == "error"
            told = json.dumps([thread, client.threads.get_state(thread_id)])
            assert expected in told
            assert str(server.folder) not in told and "a secret of the server" not in told
            assert not (server.folder / "served" / thread_id).exists()
    assert not (server.folder / "elsewhere").exists()


def test_alignment_and_exploration_take_rows_or_a_file(server: Server) -> None:
    rows = [json.loads(line) for line in (server.folder / "data" / "real.jsonl").read_text().splitlines()]
    synthetic = [{**row, "text": f"Well, {row['text']}"} for row in rows[::2]]
    with server.client() as client:
        parts = list(
            client.runs.stream(
                None,
                "alignment",
                input={
                    "real": "real.jsonl",
                    "synthetic": synthetic,
                    "n_samples": 30,
                    "label_column": "label",
                    "keep": True,
                },
                stream_mode=["custom", "values"],
            )
        )
        stages = [part.data["stage"] for part in parts if part.event == "custom"]
        assert "Reading rows" in stages and "Scoring" in stages
        aligned = parts[-1].data
        assert sum(found["copies"] for found in aligned["selected"]) == 30 == aligned["report"]["n_selected"]
        assert aligned["report"]["mmd2"]["aligned"] < aligned["report"]["mmd2"]["raw"]
        kept = server.folder / "served" / "results" / aligned["result_id"]
        dataset = pd.read_parquet(kept / "dataset.parquet")
        assert set(dataset["text"]) == {synthetic[found["row"]]["text"] for found in aligned["selected"]}
        assert str(server.folder) not in json.dumps(aligned)

        texts = [row["text"] for row in rows] + [""]
        thread_id = client.threads.create()["thread_id"]
        explored = client.runs.wait(thread_id, "exploration", input={"real": texts, "n": 5})
        assert [found["text"] for found in explored["demonstrations"]] == [
            texts[found["row"]] for found in explored["demonstrations"]
        ]
        assert len(explored["demonstrations"]) == 5
        assert 0 < explored["report"]["coverage"]["explored"] < 1
        # Rows are in no checkpoint.
        assert rows[7]["text"] not in json.dumps(client.threads.get_history(thread_id)[-1])

        for given, expected in (
            ({"real": "../outside.jsonl", "n": 5}, "real: '../outside.jsonl' is no file"),
            ({"real": texts, "n": 51}, "set keep to true"),
            ({"n": 5}, "real: is missing"),
        ):
            values = client.runs.wait(None, "exploration", input=given, raise_error=False)
            assert expected in failure(values)
            assert str(server.folder) not in failure(values)
