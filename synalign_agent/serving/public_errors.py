"""Errors as clients see them: sentences without the server's paths, and nothing of what went wrong inside."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langgraph.errors import GraphBubbleUp

import synalign_agent
from synalign_agent.config.serving import ServingConfig
from synalign_agent.errors import ConfigError, EndpointError, InputError, SessionError, SynAlignError

_LOG = logging.getLogger(__name__)
_KEPT = (InputError, ConfigError, SessionError, EndpointError)
# Looked up once, and not in an event loop: that blocks.
_OWN_FOLDERS = (Path(synalign_agent.__file__).parent, Path.cwd(), Path.home())
# Not the path of a URL, which follows its host.
_PATH = re.compile(r"(?<![\w:/.~-])~?/(?:[^\s/:'\"`,;()]+/)+([^\s/:'\"`,;()]*)")


@contextmanager
def public_errors(serving: ServingConfig | None = None) -> Iterator[None]:
    """Replace what the block raises by what a client may know; interrupts and cancellation pass.

    Raises:
        SynAlignError: of the kind that was raised; anything that is no `SynAlignError` is logged in whole, under a reference
            that the client is told.
    """
    try:
        yield
    except GraphBubbleUp:
        raise
    except SynAlignError as error:
        message = without_paths(str(error), serving)
        kind = next((kind for kind in (type(error), *type(error).__mro__) if kind in _KEPT), SynAlignError)
        raise kind(message) from None
    except Exception:
        reference = secrets.token_hex(4)
        _LOG.exception("a served run failed; its client was told the reference %s", reference)
        raise SynAlignError(
            f"the server failed at something that it did not expect; its log has the reason under the reference {reference}"
        ) from None


def without_paths(message: str, serving: ServingConfig | None = None) -> str:
    """Return the message with the names that clients know instead of the server's paths."""
    names = () if serving is None else (serving.data_dir, serving.runs_dir)
    for folder in (*(Path(name) for name in names if name is not None), *_OWN_FOLDERS):
        if folder != Path(folder.anchor):
            message = message.replace(f"{folder}/", "")
    return _PATH.sub(lambda found: found[1] or "...", message)
