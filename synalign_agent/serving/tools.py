"""What the graphs over the toolkit share: work in a thread that tells where it is and can be cancelled, and results kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from synalign_agent import wiring
from synalign_agent.config import SessionConfig
from synalign_agent.config.serving import ServingConfig
from synalign_agent.embedding.base import Encoder, Vectors
from synalign_agent.embedding.base import Progress as EncoderProgress
from synalign_agent.errors import InputError
from synalign_agent.serving.public_errors import without_paths
from synalign_agent.toolkit.progress import Progress

Result = TypeVar("Result")
Writer = Callable[[Any], None]
RESULTS = "results"
"""Folder of `runs_dir` that holds the results that clients asked to keep."""


class _CancelledError(BaseException):
    """The client no longer waits for the result. Not an `Exception`, as nothing failed that a log should tell of."""


async def in_thread(work: Callable[[Progress], Result], write: Writer) -> Result:
    """Run long work in a thread; `write` is told `{stage, done, total}`, and cancelling ends the work at its next report."""
    loop = asyncio.get_running_loop()
    cancelled = threading.Event()

    def progress(stage: str, done: int, total: int) -> None:
        if cancelled.is_set():
            raise _CancelledError
        loop.call_soon_threadsafe(write, {"stage": stage, "done": done, "total": total})

    try:
        return await asyncio.to_thread(work, progress)
    finally:
        cancelled.set()


@cache
def serving_config() -> ServingConfig:
    """Return what the operator allows, read at the first use: importing a graph opens nothing."""
    return ServingConfig.from_environment()


@cache
def shared_encoder() -> Encoder:
    """Return the operator's encoder, one for all runs of the process."""
    fields = serving_config().session.get("encoder") or {}
    config = SessionConfig.parse({"data": {"path": "example:customer_messages"}, "encoder": fields})
    return _OneAtATime(wiring.make_encoder(config))


def keep(save: Callable[[Path], object], serving: ServingConfig) -> str:
    """Have `save` write into a new folder of results, and return its name."""
    name = uuid4().hex
    folder = Path(serving.runs_dir) / RESULTS / name
    folder.mkdir(parents=True)
    save(folder)
    return name


def public_report(report: dict[str, Any], serving: ServingConfig) -> dict[str, Any]:
    """Return a report of the toolkit without the server's paths, in the sentences that name a file."""

    def public(message: str) -> str:
        return without_paths(message, serving)

    return {
        **report,
        "findings": [{**finding, "message": public(finding["message"])} for finding in report["findings"]],
        "warnings": [public(message) for message in report["warnings"]],
        "encoder": public(report["encoder"] or ""),
    }


def check_reply(n_rows: object, keep: bool, serving: ServingConfig, option: str) -> None:
    """Refuse, before the work, a result that is too large for a server or for a reply.

    Raises:
        InputError: it is; the message says what to do.
    """
    if not isinstance(n_rows, int):
        return  # the toolkit says what is wrong
    if n_rows > serving.max_samples:
        raise InputError(f"{option}: this server gives {serving.max_samples:,} rows at most, got {n_rows:,}")
    if n_rows > serving.max_reply_rows and not keep:
        raise InputError(
            f"{option}: a reply holds {serving.max_reply_rows:,} rows, and {n_rows:,} are asked for; set keep to true, and the "
            "result stays on the server under an id"
        )


class _OneAtATime:
    """An encoder for many threads: the tokenizers behind it refuse to be used by two at once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()

    @property
    def model_id(self) -> str:
        return self._encoder.model_id

    def encode(self, texts: Any, progress: EncoderProgress | None = None) -> Vectors:
        with self._lock:
            return self._encoder.encode(texts, progress)
