"""Traces over OTLP/HTTP: OpenInference's spans of graph and nodes, and spans of calls, gates, embeddings and alignments.

One provider serves the process, because LangChain is instrumented once; each session's spans go to the endpoint of its own
configuration, and spans of other graphs in the process go nowhere. What leaves is decided in `observe/exported.py`.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as SDKSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as OTelSpan
from opentelemetry.trace import Status, StatusCode, Tracer, set_span_in_context

from synalign_agent.config import OTLPConfig
from synalign_agent.errors import ConfigError
from synalign_agent.observe.exported import SESSION, SessionExporter, open_exporter
from synalign_agent.observe.place import here
from synalign_agent.observe.spans import Kind, Span, Spans, Value
from synalign_agent.records import CallRecord

_KINDS = {"embedding": "EMBEDDING", "gate": "GUARDRAIL", "alignment": "EVALUATOR"}
_FLUSH_MILLISECONDS = 15_000
_inside: ContextVar[bool] = ContextVar("synalign_inside_span", default=False)


class _BySession(SpanProcessor):
    """Gives each span to the sink of its session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sinks: dict[tuple[str, ...], tuple[BatchSpanProcessor, SessionExporter]] = {}
        self._of_session: dict[str, BatchSpanProcessor] = {}

    def join(self, thread_id: str, config: OTLPConfig) -> tuple[BatchSpanProcessor, SessionExporter]:
        """Have the spans of a session sent where its configuration says; sessions that agree share a sink.

        Raises:
            ConfigError: the variable that should hold the headers is not set.
        """
        headers = os.environ.get(config.headers_env, "")
        if not headers and config.headers_env != OTLPConfig().headers_env:
            # The exporter would take OTEL_EXPORTER_OTLP_HEADERS then, which is meant for another endpoint.
            raise ConfigError(
                f"observability.otlp.headers_env: the environment variable {config.headers_env} is not set; set it to "
                "name=value,name=value, or leave headers_env out if the endpoint needs no headers"
            )
        key = (str(config.endpoint), headers, config.project, str(config.capture_content))
        with self._lock:
            if key not in self._sinks:
                exporter = open_exporter(config, headers)
                self._sinks[key] = BatchSpanProcessor(exporter), exporter
            self._of_session[thread_id] = self._sinks[key][0]
            return self._sinks[key]

    def on_start(self, span: SDKSpan, parent_context: Context | None = None) -> None:
        pass

    def on_end(self, span: ReadableSpan) -> None:
        # Also the span of the graph itself, which ends after a served session was closed.
        sink = self._of_session.get(str((span.attributes or {}).get(SESSION)))
        if sink is not None:
            sink.on_end(span)

    def shutdown(self) -> None:
        for sink, _ in self._sinks.values():
            sink.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = _FLUSH_MILLISECONDS) -> bool:
        return all([sink.force_flush(timeout_millis) for sink, _ in self._sinks.values()])


class _Process:
    """The provider of this process, made when the first session traces; it is shut down, and with it flushed, at exit."""

    def __init__(self) -> None:
        from openinference.instrumentation.langchain import LangChainInstrumentor

        self.sessions = _BySession()
        self.provider = TracerProvider()
        self.provider.add_span_processor(self.sessions)
        self.tracer: Tracer = self.provider.get_tracer("synalign_agent")
        # An application that has instrumented LangChain keeps its own spans of the nodes; ours of calls and gates stay ours.
        if not LangChainInstrumentor().is_instrumented_by_opentelemetry:
            LangChainInstrumentor().instrument(tracer_provider=self.provider)


_process: _Process | None = None
_starting = threading.Lock()


def open_spans(thread_id: str, config: OTLPConfig, *, priced: bool) -> OTelSpans:
    """Return the spans of a session, sent to the endpoint of `config`; `priced` tells whether the costs of calls are known."""
    global _process
    with _starting:
        _process = _process or _Process()
    return OTelSpans(thread_id, _process, config, priced=priced)


class OTelSpans(Spans):
    """Spans in OpenInference's vocabulary."""

    recorded = True

    def __init__(self, thread_id: str, process: _Process, config: OTLPConfig, *, priced: bool) -> None:
        self._thread_id = thread_id
        self._tracer = process.tracer
        self._sink, self._exporter = process.sessions.join(thread_id, config)
        self._capture_content = config.capture_content
        self._priced = priced
        self._failed_before = self._exporter.n_failed

    @contextmanager
    def span(self, name: str, kind: Kind, attributes: Mapping[str, Value] | None = None) -> Iterator[Span]:
        with self._open(name, _KINDS[kind], attributes or {}) as span:
            yield _Recorded(span, priced=False, capture_content=False)

    @contextmanager
    def call(self, call: CallRecord, messages: Sequence[tuple[str, str]]) -> Iterator[Span]:
        from openinference.instrumentation import suppress_tracing

        attributes: dict[str, Value] = {
            "llm.model_name": call.model,
            "llm.prompt_template.version": call.prompt_version,
            "synalign.prompt.name": call.prompt,
            "synalign.prompt.version": call.prompt_version,
            "synalign.prompt.sha256": call.prompt_sha256,
            "synalign.call.key": call.key,
            "synalign.call.attempt": call.attempt,
            "synalign.call.draw": call.draw,
            "synalign.cluster_id": call.cluster_id,
            "synalign.round": call.round,
        }
        if self._capture_content:
            for place, (role, text) in enumerate(messages):
                attributes[f"llm.input_messages.{place}.message.role"] = role
                attributes[f"llm.input_messages.{place}.message.content"] = text
        # One span for an attempt, with what the journal knows of it; LangChain's own would lack prompt and cost.
        with self._open(call.prompt, "LLM", attributes) as span, suppress_tracing():
            yield _Recorded(span, priced=self._priced, capture_content=self._capture_content)

    def mark_node(self, attributes: Mapping[str, Value]) -> None:
        node = _node_span()
        if node is not None:
            node.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def flush(self) -> str | None:
        in_time = self._sink.force_flush(_FLUSH_MILLISECONDS)
        n_failed, self._failed_before = self._exporter.n_failed - self._failed_before, self._exporter.n_failed
        if n_failed:
            return f"{n_failed} spans could not be sent to {self._exporter.endpoint}"
        return None if in_time else f"{self._exporter.endpoint} took too long to take the last spans"

    @contextmanager
    def _open(self, name: str, kind: str, attributes: Mapping[str, Value]) -> Iterator[OTelSpan]:
        # Spans of the nodes are never current, as they begin and end in callbacks: LangChain knows which node is running.
        node = None if _inside.get() else _node_span()
        place = here()
        given: dict[str, Value] = {
            "openinference.span.kind": kind,
            SESSION: self._thread_id,
            "synalign.round": None if place is None else place.round,
            "synalign.node": None if place is None else place.node,
            **attributes,
        }
        token = _inside.set(True)
        try:
            with self._tracer.start_as_current_span(
                name,
                context=None if node is None else set_span_in_context(node),
                attributes={name: value for name, value in given.items() if value is not None},
            ) as span:
                yield span
        finally:
            _inside.reset(token)


class _Recorded(Span):
    """A span that is exported."""

    def __init__(self, span: OTelSpan, *, priced: bool, capture_content: bool) -> None:
        self._span = span
        self._priced = priced
        self._capture_content = capture_content

    def set(self, attributes: Mapping[str, Value]) -> None:
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def ended(self, call: CallRecord) -> None:
        self.set({"synalign.call.state": call.state, "synalign.call.error_class": call.error_class})
        if call.state != "done":
            self._span.set_status(Status(StatusCode.ERROR, call.error if self._capture_content else call.error_class))
            return
        self._span.set_status(Status(StatusCode.OK))
        self.set({"llm.finish_reason": call.finish_reason})
        if call.prompt_tokens + call.completion_tokens:
            self.set(
                {
                    "llm.token_count.prompt": call.prompt_tokens,
                    "llm.token_count.completion": call.completion_tokens,
                    "llm.token_count.total": call.prompt_tokens + call.completion_tokens,
                    "llm.cost.total": call.cost_usd if self._priced else None,
                }
            )
        if self._capture_content:
            self.set(
                {
                    "llm.output_messages.0.message.role": "assistant",
                    "llm.output_messages.0.message.content": call.content,
                    "output.value": json.dumps({"content": call.content, "refusal": call.refusal}, ensure_ascii=False),
                    "output.mime_type": "application/json",
                }
            )


def _node_span() -> OTelSpan | None:
    from openinference.instrumentation.langchain import get_current_span

    span: OTelSpan | None = get_current_span()
    return span
