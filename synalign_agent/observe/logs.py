"""Log lines for machines: one JSON object a line, with the session, round and node that it is about."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter

from synalign_agent.observe.place import here

_FIELDS = ("levelname", "name", "message")
_RENAMED = {"levelname": "level", "name": "logger"}
_OURS = "synalign_agent"


@contextmanager
def json_logs(stream: TextIO, thread_id: str) -> Iterator[None]:
    """Write log records as JSON lines while the block runs: ours from INFO up, those of libraries from WARNING up.

    Our records hold ids, counts and seconds. Libraries' errors may quote what they failed on, so that of their exceptions
    only the type is shown.
    """
    handler = logging.StreamHandler(stream)
    formatter = JsonFormatter(_FIELDS, rename_fields=_RENAMED, timestamp=True, json_ensure_ascii=False)
    handler.setFormatter(formatter)
    handler.addFilter(_Placed(thread_id))
    ours = logging.getLogger(_OURS)
    level_before = ours.level
    ours.setLevel(logging.INFO)
    try:
        with records_to(handler):
            yield
    finally:
        ours.setLevel(level_before)


@contextmanager
def records_to(handler: logging.Handler) -> Iterator[None]:
    """Send log records and Python warnings to the handler while the block runs."""
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            # A library's deprecation notes are for its developers, not for who runs a synthesis.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)


class _Placed(logging.Filter):
    """Adds thread_id, round and node, and takes out tracebacks."""

    def __init__(self, thread_id: str) -> None:
        super().__init__()
        self._thread_id = thread_id

    def filter(self, record: logging.LogRecord) -> bool:
        place = here()
        record.thread_id = self._thread_id if place is None else place.thread_id
        record.round = place and place.round
        record.node = place and place.node
        if record.exc_info and record.exc_info[0] is not None:
            record.error_type = record.exc_info[0].__name__
            record.exc_info = record.exc_text = None
        return record.name.partition(".")[0] == _OURS or record.levelno >= logging.WARNING
