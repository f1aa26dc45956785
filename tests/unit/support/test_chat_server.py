"""Tests of the scripted chat server."""

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from langchain_openai import ChatOpenAI
from support.chat_server import ChatServer, Reply, json_reply, sequence

ROOT = Path(__file__).resolve().parents[3]

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["refund", "praise"]},
        "texts": {
            "type": "array",
            "items": {"type": "string", "maxLength": 60},
            "maxItems": 3,
        },
        "one": {"type": "array", "items": {"type": "boolean"}},
        "inner": {
            "type": "object",
            "properties": {
                "score": {"type": "integer", "minimum": 1, "maximum": 5},
                "weight": {"type": "number"},
            },
            "required": ["score", "weight"],
        },
    },
    "required": ["label", "texts", "one", "inner"],
}
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "texts", "schema": SCHEMA, "strict": True},
}


def _llm(server: ChatServer, **kw: Any) -> ChatOpenAI:
    settings: dict[str, Any] = {"model": "m", "api_key": "k", "max_retries": 0, "timeout": 5} | kw
    return ChatOpenAI(base_url=server.base_url, **settings)


def _post(connection: http.client.HTTPConnection, body: object) -> dict[str, Any]:
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    answer: dict[str, Any] = json.load(connection.getresponse())
    return answer


def _connect(base_url: str) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=5))


def _body(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Write."}]
    return {"model": "m", "seed": number, "messages": messages}


def test_json_schema_gives_valid_json_and_usage() -> None:
    """The default writer obeys the schema, and usage counts characters."""
    with ChatServer() as server:
        llm = _llm(server, extra_body={"response_format": FORMAT})
        message = llm.invoke("Label: refund")
        assert llm.invoke("Label: refund").content == message.content
        assert server.requests[0]["response_format"] == FORMAT
    assert isinstance(message.content, str)
    value = json.loads(message.content)
    assert set(value) == set(SCHEMA["properties"])
    assert value["label"] in ("refund", "praise")
    assert len(value["texts"]) == len(set(value["texts"])) == 3
    assert all(0 < len(text) <= 60 for text in value["texts"])
    assert len(value["one"]) == 1 and isinstance(value["one"][0], bool)
    assert value["inner"]["score"] in range(1, 6)
    assert isinstance(value["inner"]["weight"], float)
    usage = message.usage_metadata
    assert usage is not None
    assert usage["input_tokens"] == 4  # 13 characters
    assert usage["output_tokens"] == -(-len(message.content) // 4)


def test_rate_limit_with_retry_after() -> None:
    """A 429 comes with its header and code, then the default answers."""
    limited = Reply(status=429, error_code="insufficient_quota", headers={"Retry-After": "7"})
    with ChatServer(sequence(limited)) as server:
        with pytest.raises(openai.RateLimitError) as caught:
            _llm(server).invoke("hi")
        assert server.answered == []
        assert _llm(server).invoke("hi").content
        assert len(server.answered) == 1
    assert caught.value.code == "insufficient_quota"
    assert caught.value.response.headers["retry-after"] == "7"


def test_drop_is_a_connection_error() -> None:
    """A dropped request is received but not answered."""
    with ChatServer(sequence(Reply(drop=True))) as server:
        with pytest.raises(openai.APIConnectionError):
            _llm(server).invoke("hi")
        assert len(server.requests) == 1 and server.answered == []


def test_finish_reason_and_refusal_come_through() -> None:
    """Cut and refused answers are told apart from whole ones."""
    script = sequence(json_reply({"a": "é"}, finish_reason="length"), Reply(refusal="No, I can't."))
    with ChatServer(script) as server:
        cut, refused = _llm(server).invoke("a"), _llm(server).invoke("b")
    assert cut.content == '{"a": "é"}'
    assert cut.response_metadata["finish_reason"] == "length"
    assert refused.content == ""
    assert refused.additional_kwargs["refusal"] == "No, I can't."


def test_raw_body_and_script_failure() -> None:
    """A raw body is sent as is; a failing script is a 500 that says why."""
    html = Reply(status=502, raw_body=b"<html>Bad gateway</html>")
    with ChatServer(sequence(html)) as server, pytest.raises(openai.InternalServerError) as caught:
        _llm(server).invoke("hi")
    assert caught.value.response.text == "<html>Bad gateway</html>"
    failing = ChatServer(lambda body, number: body["missing"])
    with failing as server, pytest.raises(openai.InternalServerError, match="missing"):
        _llm(server).invoke("hi")


def test_routes() -> None:
    """The model is listed, and an unknown path is OpenAI's 404."""
    with ChatServer(model="tiny") as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="k", max_retries=0)
        assert [model.id for model in client.models.list()] == ["tiny"]
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="m", input="x")
        assert server.requests == []


def test_repeated_counts_answers_to_answered_bodies() -> None:
    """Only a second 200 to the same body is a repeat; key order is no matter."""
    with ChatServer(sequence(Reply(status=500))) as server, _connect(server.base_url) as connection:
        for number in (0, 0, 1):
            _post(connection, _body(number))
        assert server.repeated() == 0
        _post(connection, dict(reversed(_body(1).items())))
        assert server.repeated() == 1 and len(server.requests) == 4


def test_300_default_texts_are_distinct() -> None:
    """No two default texts are alike, and all are sentences of 6 to 25 words."""
    with ChatServer() as server, _connect(server.base_url) as connection:
        answers = [_post(connection, _body(number)) for number in range(300)]
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert all(6 <= len(text.split()) <= 25 for text in texts)
    bags = [frozenset(text.lower().strip(".").split()) for text in texts]
    for i, one in enumerate(bags):
        for other in bags[:i]:
            assert len(one & other) / len(one | other) < 0.7


def test_concurrency_is_measured_and_waited_for() -> None:
    """Requests overlap up to the number of clients, never beyond it."""
    with ChatServer(latency_seconds=0.1) as server:

        def ask(start: int) -> None:
            with _connect(server.base_url) as connection:
                for number in range(3):
                    _post(connection, _body(start + number))

        threads = [threading.Thread(target=ask, args=(100 * i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        server.wait_for(24, timeout_seconds=5)
        for thread in threads:
            thread.join()
        assert server.max_in_flight == 8
        with pytest.raises(TimeoutError):
            server.wait_for(25, timeout_seconds=0.01)


def test_answer_to_a_vanished_client_is_not_counted() -> None:
    """A client that left before the answer was not answered."""
    with ChatServer(sequence(Reply(delay_seconds=0.1))) as server:
        with _connect(server.base_url) as connection:
            connection.request("POST", "/v1/chat/completions", json.dumps(_body(0)))
            server.wait_for(1, timeout_seconds=5)
        time.sleep(0.2)
        assert server.answered == []


def test_close_cuts_open_connections() -> None:
    """After close nothing answers, not even a kept-alive connection."""
    server = ChatServer()
    with _connect(server.base_url) as connection:
        _post(connection, _body(0))
        server.close()
        with pytest.raises((http.client.HTTPException, OSError)):
            _post(connection, _body(1))
    assert len(server.requests) == 1


@pytest.mark.parametrize("by_signal", [False, True])
def test_command_line(by_signal: bool) -> None:
    """The command prints its URL and ends with its input or on SIGTERM."""
    script = ROOT / "tests" / "support" / "chat_server.py"
    process = subprocess.Popen(
        [sys.executable, str(script), "--port", "0", "--latency-seconds", "0.01"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None and process.stdout is not None
        base_url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{base_url}/models", timeout=5) as answer:
            assert json.load(answer)["data"][0]["id"] == "scripted"
        if by_signal:
            process.send_signal(signal.SIGTERM)
        else:
            process.stdin.close()
        assert process.wait(timeout=5) == 0
