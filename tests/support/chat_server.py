"""A scripted OpenAI-compatible chat server on 127.0.0.1, for tests (real HTTP)."""

import argparse
import contextlib
import hashlib
import json
import math
import random
import re
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answers to one request."""

    content: str | None = None  # None: the default writer answers (unless refused)
    finish_reason: str = "stop"
    refusal: str | None = None
    status: int = 200  # anything else: OpenAI's error JSON, `content` as its message
    error_code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0  # on top of the server's latency
    raw_body: bytes | None = None  # sent as is, with `status`
    drop: bool = False  # close the connection without an answer


Script = Callable[[dict[str, Any], int], Reply | None]


def json_reply(obj: object, **kw: Any) -> Reply:
    """Return a reply whose content is `obj` as JSON; `kw` are other Reply fields."""
    return Reply(content=json.dumps(obj, ensure_ascii=False), **kw)


def sequence(*replies: Reply | None) -> Script:
    """Return a script giving `replies` in order of arrival, then the default."""
    return lambda _body, number: replies[number] if number < len(replies) else None


_WORDS = """
tone: sadly|luckily|frankly|honestly|good news|to be fair|once again|apparently|as promised|no rush|with respect|
seemingly|to my surprise|just so you know|oddly enough|thankfully|between us|alas|believe it or not|regrettably
who: I|my sister|a trainee|my husband|the courier|a colleague|my flatmate|my landlord|the cashier|our neighbour|grandma|
our accountant|my son|the repair shop|your chat agent|the porter|the manager|the school|a friend|your warehouse|
the driver|the tenant|my boss|the buyer|a stranger
verb: lost|found|tested|washed|ordered|weighed|insured|refused|returned|reserved|unpacked|paid for|measured|borrowed|
repaired|reviewed|compared|upgraded|exchanged|cancelled|picked up|sent back|gave away|assembled|misplaced|collected|
signed for|praised|resold|painted|dropped|wrapped|stored|shipped|inspected|donated|cleaned|chose|swapped|photographed
adj: navy|wooden|silver|velvet|fragile|striped|vintage|organic|cordless|foldable|handmade|engraved|oversized|half-price|
waterproof|second-hand|refurbished|tiny|heavy|pink|leather|glass|padded|electric|antique|cheap|ceramic|woollen|portable|
luxury|bamboo|yellow|floral|spare|rustic|quilted|magnetic|plastic|copper|solar-powered|emerald|knitted|curved|miniature|
retro
item: tent|kettle|puzzle|router|mirror|toaster|dog bed|blender|ukulele|yoga mat|suitcase|necklace|umbrella|keyboard|
backpack|mattress|doorbell|tool box|lamp|bookshelf|chess set|plant pot|pan|clock|headset|sofa|mower|candle|watch|jacket|
hose|tablet|towel|duvet|bottle|monitor|pen|curtain|boot|chair|camera|razor|goggles|printer|scarf|ladder|teapot|rug|
drone|hammock|globe|harmonica|apron|stapler|kite|thermos|wok|wig|cushion|paddle|telescope|jigsaw|trampoline|corkscrew|
stroller|aquarium|easel|bicycle|vase|piano
state: overheats|leaks badly|smells of smoke|works perfectly|has a torn seam|stopped charging|has a loose screw|
was charged twice|will not switch on|passed every check|scratched our table|never left the depot|was left in the rain|
lacks a manual|is out of stock|shrank in the wash|needs a battery|faded in the sun|rattles|had no discount|lacks a plug|
looks gorgeous|came in the wrong colour|arrived early|fits very well|is stuck at customs
time: just now|yesterday|at midnight|last summer|around dawn|last Tuesday|this morning|before lunch|on Boxing Day|
two hours ago|in early March|on my birthday|three weeks ago|back in October|at the weekend|at half past nine|on Friday|
after closing|this month|over Easter|while abroad|on May Day|after checkout|in mid June|during the sale|at teatime
reason: by mistake|for our new flat|despite the warning|to save on shipping|as a wedding present|for a charity raffle|
because of an allergy|since the zip had split|as the shop was closing|after a long phone call|after reading reviews|
because the box was soaked|as the warranty ran out|on a plumber's advice|without a receipt|because my card failed|
as a voucher had expired|because the app crashed|for loyalty points|out of curiosity
want: we need an invoice|we are happy to wait|I would like a refund|I need a repair quote|I would rather keep it|
please send a label|I want another|please close my account|I leave five stars|do you sell spares|note my new address|
can I swap it in store|what about my points|who is responsible|call me back|please skip the gift note|
credit would be fine|thank the packers
place: by telephone|from the outlet|in the car park|at the help desk|by post|upstairs|at the airport|at the locker|
at the till|in Bristol|online|through the app
""".replace("|\n", "|")
_PHRASES = {k: v.split("|") for k, v in re.findall(r"(\w+): (.+)", _WORDS)}
_TEMPLATES = (
    "{tone}, {who} {verb} the {adj} {item} {place} {time} {reason}.",
    "{time}, the {adj} {item} {place} {state}, so {want}.",
    "{who} {verb} the {adj} {item} {place} {reason}, and now it {state}.",
    "the {adj} {item} {who} {verb} {time} {state}; {want}.",
    "{want}: {who} {verb} the {adj} {item} {time}, yet it {state}.",
    "{tone}, the {adj} {item} {place} {state} {reason}.",
)


def _sentence(rng: random.Random) -> str:
    while True:
        slots = {name: rng.choice(phrases) for name, phrases in _PHRASES.items()}
        text = rng.choice(_TEMPLATES).format_map(slots)
        if 6 <= len(text.split()) <= 25:
            return text[0].upper() + text[1:]


def _instance(schema: Mapping[str, Any], rng: random.Random) -> Any:
    """Return a valid instance of `schema` (the subset that the tests use)."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    match schema.get("type"):
        case "object":
            return {k: _instance(v, rng) for k, v in schema["properties"].items()}
        case "array":
            count = schema.get("minItems") or schema.get("maxItems", 1)
            return [_instance(schema["items"], rng) for _ in range(count)]
        case "string":
            text = _sentence(rng)
            limit = schema.get("maxLength", len(text))
            if len(text) <= limit:
                return text
            return text[:limit].rpartition(" ")[0].rstrip(" ,;:") or text[:limit]
        case "integer" | "number" as kind:
            low = schema.get("minimum", min(0, schema.get("maximum", 0)))
            high = schema.get("maximum", low + 10)
            return rng.uniform(low, high) if kind == "number" else rng.randint(math.ceil(low), math.floor(high))
        case "boolean":
            return rng.random() < 0.5
    raise ValueError(f"the default writer does not know this schema: {schema}")


def _default_content(body: dict[str, Any], digest: str) -> str:
    rng = random.Random(digest)  # the digest covers the body's seed
    schema = (body.get("response_format") or {}).get("json_schema")
    return json.dumps(_instance(schema["schema"], rng)) if schema else _sentence(rng)


def _error(status: int, message: str, code: str | None) -> bytes:
    kind = code or ("server_error" if status >= 500 else "invalid_request_error")
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    server_bind = socketserver.TCPServer.server_bind  # no DNS look-up of the host
    chat: "ChatServer"

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # clients may vanish
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # TCP_NODELAY
    wbufsize = -1  # head and body in one segment
    server: _HTTPServer

    def _serve(self) -> None:
        chat, raw = self.server.chat, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chat._sockets.add(self.connection)
        route = f"{self.command} {self.path.partition('?')[0]}"
        if route == "POST /v1/chat/completions":
            chat._complete(self, json.loads(raw))
        elif route == "GET /v1/models":
            card = {"id": chat.model, "object": "model", "created": 0, "owned_by": "me"}
            self.send(200, json.dumps({"object": "list", "data": [card]}).encode(), {})
        else:
            self.send(404, _error(404, f"Invalid URL ({route})", "unknown_url"), {})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        kind = "text/html" if body.lstrip().startswith(b"<") else "application/json"
        fields = {"content-type": kind, "content-length": str(len(body))}
        self.send_response(status)
        for name, value in (fields | {k.lower(): headers[k] for k in headers}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def client_gone(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError as error:
            return not isinstance(error, BlockingIOError)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class ChatServer(contextlib.AbstractContextManager["ChatServer"]):
    """The server: it listens from construction until `close`.

    The script is called from many threads at once. One that raises makes a 500.
    """

    def __init__(
        self, script: Script | None = None, *, latency_seconds: float = 0.0, model: str = "scripted", port: int = 0
    ) -> None:
        """Start serving; `port` 0 takes any free one."""
        self.model = model
        self.requests: list[dict[str, Any]] = []  # bodies, in order of arrival
        self.answered: list[str] = []  # sha256 of each body that was given a 200
        self.max_in_flight = self._in_flight = 0
        self._changed = threading.Condition()  # guards the four above
        self.script, self._latency = script, latency_seconds
        self._sockets: set[socket.socket] = set()
        self._closing = threading.Event()
        self._http = _HTTPServer(("127.0.0.1", port), _Handler)
        self._http.chat = self
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def repeated(self) -> int:
        """Return how many 200s went to a body that had already been answered."""
        with self._changed:
            return len(self.answered) - len(set(self.answered))

    def wait_for(self, n_requests: int, timeout_seconds: float) -> None:
        """Block until `n_requests` were received; TimeoutError if they are not."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= n_requests, timeout_seconds):
                raise TimeoutError(f"{len(self.requests)} of {n_requests} requests")

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __exit__(self, *_exc: object) -> None:
        """Close the server."""
        self.close()

    def _complete(self, handler: _Handler, body: dict[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        with self._changed:
            number = len(self.requests)
            self.requests.append(body)
            self._in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self._in_flight)
            self._changed.notify_all()
        try:
            reply, payload = self._answer(body, number, digest)
        except Exception as error:
            reply, payload = Reply(status=500), _error(500, f"script failed: {error!r}", "script_error")
        self._closing.wait(self._latency + reply.delay_seconds)
        silent = reply.drop or self._closing.is_set() or handler.client_gone()
        with self._changed:  # before the write: the client may ask again at once
            self._in_flight -= 1
            if reply.status == 200 and not silent:
                self.answered.append(digest)
        if silent:
            handler.close_connection = True
        else:
            handler.send(reply.status, payload, reply.headers)

    def _answer(self, body: Any, number: int, digest: str) -> tuple[Reply, bytes]:
        reply = (self.script(body, number) if self.script else None) or Reply()
        if body.get("stream"):
            reply = Reply("This server does not stream.", status=400)
        content = reply.content
        if reply.raw_body is not None:
            return reply, reply.raw_body
        if reply.status != 200:
            message = content or f"scripted error {reply.status}"
            return reply, _error(reply.status, message, reply.error_code)
        if content is None and reply.refusal is None:
            content = _default_content(body, digest)
        texts = [message.get("content") or "" for message in body["messages"]]
        parts = [p for t in texts for p in ([{"text": t}] if isinstance(t, str) else t)]
        read = math.ceil(sum(len(part.get("text", "")) for part in parts) / 4)
        wrote = math.ceil(len(content or "") / 4)
        usage = {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
        said = {"role": "assistant", "content": content, "refusal": reply.refusal}
        choice = {"index": 0, "message": said, "finish_reason": reply.finish_reason}
        head = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 0, "model": body["model"]}
        return reply, json.dumps(head | {"choices": [choice], "usage": usage}).encode()


def main() -> None:
    """Serve until standard input closes or SIGTERM arrives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-seconds", type=float, default=0.0)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ChatServer(latency_seconds=options.latency_seconds, port=options.port) as chat:
        sys.stdout.write(chat.base_url + "\n")
        sys.stdout.flush()
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
