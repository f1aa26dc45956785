"""The seam for spans: what the rest of the package calls, at no cost while nobody traces (see `observe/otel.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal

from synalign_agent.observe.events import AlignmentResult
from synalign_agent.records import CallRecord

Kind = Literal["embedding", "gate", "alignment"]
Value = str | int | float | bool | None


class Span:
    """A stretch of work; this one is recorded nowhere."""

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Add what became known since the span began; what is None was not measured and is left out."""

    def ended(self, call: CallRecord) -> None:
        """Add how a call ended."""


class _Unrecorded(AbstractContextManager[Span]):
    """One object for all spans while nobody traces."""

    def __init__(self) -> None:
        self._span = Span()

    def __enter__(self) -> Span:
        return self._span

    def __exit__(self, *_: object) -> None:
        pass


_UNRECORDED = _Unrecorded()


class Spans:
    """The spans of a session; these are recorded nowhere."""

    recorded: bool = False
    """Whether somebody traces."""

    def span(
        self, name: str, kind: Kind, attributes: Mapping[str, Value] | None = None
    ) -> AbstractContextManager[Span]:
        """Open a span in the running node, or in the span that is open there."""
        return _UNRECORDED

    def call(self, call: CallRecord, messages: Sequence[tuple[str, str]]) -> AbstractContextManager[Span]:
        """Open the span of an attempt at a call, with its (role, text) messages; `Span.ended` takes its outcome."""
        return _UNRECORDED

    def mark_node(self, attributes: Mapping[str, Value]) -> None:
        """Add attributes to the span of the running node."""

    def flush(self) -> str | None:
        """Send what is recorded; return what went wrong since the last time, if anything did."""
        return None


def alignment_attributes(result: AlignmentResult) -> dict[str, Value]:
    """Return what the span of an alignment shows."""
    return {
        "synalign.n_pool": result.n_pool,
        "synalign.n_selected": result.n_selected,
        "synalign.mmd2.raw": result.mmd2.raw,
        "synalign.mmd2.aligned": result.mmd2.aligned,
        "synalign.mmd2.floor": result.mmd2.floor,
        "synalign.mmd2.target": result.mmd2.target,
        "synalign.ess": result.ess,
        "synalign.duality_gap": result.duality_gap,
    }


def gate_attributes(n_texts: int, verdicts: Iterable[tuple[str, str] | None]) -> dict[str, Value]:
    """Return what the span of gates shows: texts looked at, and rejected by reason, given the (reason, detail) of each."""
    reasons = Counter(verdict[0] for verdict in verdicts if verdict is not None)
    counts = {f"synalign.rejected.{reason}": count for reason, count in reasons.items()}
    return {"synalign.n_texts": n_texts, "synalign.n_rejected": reasons.total(), **counts}
