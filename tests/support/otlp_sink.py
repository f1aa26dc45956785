"""An OTLP/HTTP endpoint on 127.0.0.1 that keeps what it is sent, for tests."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    """Lower-case names."""
    body: bytes
    """Decompressed."""


@dataclass(frozen=True)
class SpanSeen:
    """A span with plain values."""

    name: str
    span_id: str
    parent_id: str
    trace_id: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    status: int
    """0 unset, 1 ok, 2 error."""
    events: list[str] = field(default_factory=list)


class OTLPSink:
    """A context manager; `base_url` is its address."""

    def __init__(self, status: int = 200) -> None:
        self.requests: list[Received] = []
        self.status = status
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                headers = {name.lower(): value for name, value in self.headers.items()}
                sink.requests.append(Received(self.path, headers, body))
                self.send_response(sink.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> OTLPSink:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def bytes(self) -> bytes:
        """Everything that was sent: bodies, headers and paths."""
        return b"\n".join(
            part
            for request in self.requests
            for part in (request.path.encode(), repr(request.headers).encode(), request.body)
        )

    @property
    def spans(self) -> list[SpanSeen]:
        """Every span that was sent."""
        seen = []
        for request in self.requests:
            for of_resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
                resource = _plain(of_resource.resource.attributes)
                for scope in of_resource.scope_spans:
                    seen += [
                        SpanSeen(
                            span.name, span.span_id.hex(), span.parent_span_id.hex(), span.trace_id.hex(),
                            _plain(span.attributes), resource, span.status.code, [event.name for event in span.events],
                        )
                        for span in scope.spans
                    ]  # fmt: skip
        return seen


def _plain(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in attributes}
