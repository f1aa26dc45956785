"""What leaves the process in a trace: without `capture_content` the attributes on a list, and nothing that could quote a text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from urllib.parse import urlsplit, urlunsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status
from opentelemetry.util.re import parse_env_headers
from opentelemetry.util.types import AttributeValue

from synalign_agent.config import OTLPConfig

SESSION = "session.id"
_TRACES_PATH = "/v1/traces"
_NAMES = frozenset(
    {
        "openinference.span.kind", SESSION, "llm.model_name", "llm.finish_reason", "llm.prompt_template.version",
        "embedding.model_name",
    }
)  # fmt: skip
_PREFIXES = ("synalign.", "llm.token_count.", "llm.cost.", "graph.node.")
_METADATA = "metadata"
_METADATA_NAMES = frozenset({"thread_id", "langgraph_node", "langgraph_step", "ls_integration"})
_EXCEPTION_TYPE = "exception.type"


def open_exporter(config: OTLPConfig, headers: str) -> SessionExporter:
    """Return an exporter to the configured endpoint; `headers` are `name=value,name=value`, as in OTEL_EXPORTER_OTLP_HEADERS."""
    endpoint = traces_url(str(config.endpoint))
    sent = parse_env_headers(headers, liberal=True)
    # The SDK's own defaults and OTEL_RESOURCE_ATTRIBUTES, with which W&B is told entity and project.
    resource = Resource.create(
        {
            "service.name": "synalign-agent",
            "service.version": version("synalign-agent"),
            "openinference.project.name": config.project,
        }
    )
    inner = OTLPSpanExporter(endpoint=endpoint, headers=sent)
    return SessionExporter(inner, endpoint, resource, capture_content=config.capture_content)


def traces_url(endpoint: str) -> str:
    """Return the URL that takes traces, given it or the base that OTLP's path is added to."""
    parts = urlsplit(endpoint)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith(_TRACES_PATH) else path + _TRACES_PATH))


class SessionExporter(SpanExporter):
    """Sends spans under the project's name, and without texts unless told otherwise."""

    def __init__(self, inner: SpanExporter, endpoint: str, resource: Resource, *, capture_content: bool) -> None:
        self.endpoint = endpoint
        self.n_failed = 0
        """Spans that could not be sent."""
        self._inner = inner
        self._resource = resource
        self._capture_content = capture_content

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export([self._prepared(span) for span in spans])
        if result is not SpanExportResult.SUCCESS:
            self.n_failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)

    def _prepared(self, span: ReadableSpan) -> ReadableSpan:
        attributes, events, status = span.attributes or {}, span.events, span.status
        if not self._capture_content:
            attributes, events = without_content(attributes), [_type_alone(event) for event in events]
            # What an endpoint says of an error may quote the prompt; our own descriptions are in the attributes too.
            status = Status(span.status.status_code)
        return ReadableSpan(
            name=span.name, context=span.context, parent=span.parent, resource=self._resource, attributes=attributes,
            events=events, links=span.links, kind=span.kind, status=status, start_time=span.start_time,
            end_time=span.end_time, instrumentation_scope=span.instrumentation_scope,
        )  # fmt: skip


def without_content(attributes: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
    """Return the attributes that are names, ids and numbers: a list of what may leave, so that what is new stays inside."""
    kept = {name: value for name, value in attributes.items() if name in _NAMES or name.startswith(_PREFIXES)}
    if _METADATA in attributes:
        metadata = json.loads(str(attributes[_METADATA]))
        kept[_METADATA] = json.dumps({name: metadata[name] for name in sorted(_METADATA_NAMES & metadata.keys())})
    return kept


def _type_alone(event: Event) -> Event:
    given = event.attributes or {}
    attributes = {name: value for name, value in given.items() if name == _EXCEPTION_TYPE}
    return Event(event.name, attributes, event.timestamp)
