"""`--log-format json`: stderr is a log, one JSON object a line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import typer

from synalign_agent.cli.answer import answer_error
from synalign_agent.errors import EndpointError, SynAlignError

LOG = logging.getLogger("synalign_agent.cli")
_active: ContextVar[bool] = ContextVar("synalign_log_lines", default=False)


def stderr_is_a_log() -> bool:
    """Tell whether messages are to be log records."""
    return _active.get()


@contextmanager
def log_lines(thread_id: str) -> Iterator[None]:
    """Make stderr a log while the block runs; an error that a user can mend is its last line.

    What an endpoint answered may quote a prompt, so that of its failures the log has only their kind.

    Raises:
        typer.Exit: in place of such an error, with its exit code.
    """
    from synalign_agent.observe.logs import json_logs

    token = _active.set(True)
    try:
        with json_logs(sys.stderr, thread_id):
            try:
                yield
            except SynAlignError as error:
                said = str(error)
                if isinstance(error, EndpointError):
                    said = "the endpoint failed; without `--log-format json`, resuming shows what it says"
                LOG.error(said, extra={"error_type": type(error).__name__, "exit_code": error.exit_code})
                answer_error(str(error), error.exit_code)
                raise typer.Exit(error.exit_code) from None
    finally:
        _active.reset(token)
