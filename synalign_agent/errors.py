"""Errors that a user may meet: each message says what happened and what to do next."""

from __future__ import annotations


class SynAlignError(RuntimeError):
    """Base of every error that this package raises on purpose; `exit_code` is what the CLI returns for it.

    A `RuntimeError`, as a LangGraph server passes on what errors of Python's own kinds say, and of all others nothing.
    """

    exit_code = 1


class InputError(SynAlignError, ValueError):
    """Bad data or bad usage: the message names the file, row and field, and what to change."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration value that cannot work."""


class MissingExtraError(SynAlignError, ImportError):
    """An optional part is not installed; the message holds the command that installs it."""

    exit_code = 2


class SessionError(SynAlignError):
    """A session folder that cannot be opened, continued or written."""

    exit_code = 2


class EndpointError(SynAlignError):
    """The LLM endpoint cannot be used now; the session is saved and can be resumed."""

    exit_code = 5


class BudgetExhausted(SynAlignError):
    """The next call could pass a limit of the budget; `limit` names it (`max_usd`, `max_tokens` or `max_calls`)."""

    exit_code = 3

    def __init__(self, limit: str, message: str) -> None:
        """Keep which limit stopped the call."""
        super().__init__(message)
        self.limit = limit


class InterruptedByUser(SynAlignError):
    """A person or the system asked the run to stop; the session is saved and can be resumed."""

    exit_code = 130
