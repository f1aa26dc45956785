"""An encoder whose batches are spans."""

from __future__ import annotations

from collections.abc import Sequence

from synalign_agent.embedding.base import Encoder, Progress, Vectors
from synalign_agent.observe.spans import Spans, Value


class TracedEncoder:
    """Opens a span for every batch; texts that the cache knows are counted like the others."""

    def __init__(self, encoder: Encoder, spans: Spans) -> None:
        self._encoder = encoder
        self._spans = spans

    @property
    def model_id(self) -> str:
        return self._encoder.model_id

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        if not texts:
            return self._encoder.encode(texts, progress)
        attributes: dict[str, Value] = {"embedding.model_name": self.model_id, "synalign.n_texts": len(texts)}
        with self._spans.span("embed", "embedding", attributes):
            return self._encoder.encode(texts, progress)
