"""An OpenAI-compatible server with a fixed latency, light enough not to be what a client's benchmark measures.

`GET /v1/span` tells how many completions it gave, and the seconds from the arrival of the first request to the last answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time

_WORDS = (  # noqa: SIM905 - a list of sixty literals reads worse
    "order parcel invoice refund kettle lamp courier yesterday broken late thanks please account login password charge twice "
    "delivery address wrong size colour missing screw manual app crashed update voucher expired card declined store pickup "
    "reply support nobody answered weeks waiting excellent quality cheap plastic smells gift wrapped mother birthday"
).split()


class _Span:
    """What was asked and answered, and when."""

    def __init__(self) -> None:
        self.n_requests = self.n_answers = 0
        self._first = self._last = 0.0

    def asked(self) -> int:
        self.n_requests += 1
        if self.n_requests == 1:
            self._first = time.perf_counter()
        return self.n_requests

    def answered(self) -> None:
        self.n_answers += 1
        self._last = time.perf_counter()

    def to_json(self) -> bytes:
        return json.dumps({"n": self.n_answers, "seconds": self._last - self._first}).encode()


class _Connection(asyncio.Protocol):
    """One keep-alive connection: requests come with Content-Length, and answers leave after the latency."""

    def __init__(self, latency: float, span: _Span) -> None:
        self._latency, self._span, self._data = latency, span, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            body, self._data = self._data[end + 4 : end + 4 + length], self._data[end + 4 + length :]
            if head.startswith(b"post"):
                answer = _answer(body, self._span.asked())
                asyncio.get_running_loop().call_later(self._latency, self._complete, answer)
            else:
                self._send(self._span.to_json() if b"/v1/span" in head else b'{"object":"list","data":[]}')

    def _complete(self, answer: bytes) -> None:
        self._span.answered()
        self._send(answer)

    def _send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
            self._transport.write(head.encode() + answer)  # type: ignore[attr-defined]


def _answer(body: bytes, number: int) -> bytes:
    rng = random.Random(number)
    wanted = 1
    if b'"json_schema"' in body:
        schema = json.loads(body)["response_format"]["json_schema"]["schema"]
        wanted = schema.get("properties", {}).get("texts", {}).get("minItems", 1)
    texts = [" ".join(rng.choices(_WORDS, k=12)) + "." for _ in range(wanted)]
    content = json.dumps({"texts": texts}) if b'"json_schema"' in body else texts[0]
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": len(body) // 4, "completion_tokens": 16, "total_tokens": len(body) // 4 + 16}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    reply = {
        "id": f"c{number}",
        "object": "chat.completion",
        "created": 0,
        "model": "bench",
        "choices": [choice],
        "usage": usage,
    }
    return json.dumps(reply).encode()


async def _serve(latency: float) -> None:
    span = _Span()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(latency, span), "127.0.0.1", 0, backlog=2048
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)  # until the one who started it goes away


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-seconds", type=float, default=0.1)
    asyncio.run(_serve(parser.parse_args().latency_seconds))
