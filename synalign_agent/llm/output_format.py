"""Find out by the first calls how an endpoint can be made to answer with JSON, and remember it for the session."""

from __future__ import annotations

import asyncio

from synalign_agent.config import LLMConfig
from synalign_agent.llm.providers import Endpoint
from synalign_agent.llm.structured import FORMATS, OutputFormat
from synalign_agent.stores.base import SessionStore


class FormatProbe:
    """The output format in use: schema, then JSON mode, then words alone.

    No call is made for the probe's sake. The session's first calls ask by schema; an endpoint that refuses the format
    answers 400, which costs nothing and which the journal keeps, and the call is asked again in the next format. The first
    format that is answered stays for the session.
    """

    def __init__(self, config: LLMConfig, endpoint: Endpoint, store: SessionStore) -> None:
        self._store = store
        # Not for the embedded server: its port is another one each time, and it takes schemas.
        self._key = f"structured_output:{endpoint.base_url}:{endpoint.model}"
        self._decided = True
        self.current: OutputFormat = "json_schema"
        if config.structured_output != "auto":
            self.current = config.structured_output
        elif config.provider != "embedded":
            remembered = store.meta(self._key)
            self._decided = remembered is not None
            self.current = next((format for format in FORMATS if format == remembered), "json_schema")

    def refused(self, format: OutputFormat) -> bool:
        """Note that the endpoint does not know `format`; return whether there is another one to ask in."""
        if format != self.current:
            return True  # a call that was sent before another one was refused
        if self._decided or format == FORMATS[-1]:
            return False
        self.current = FORMATS[FORMATS.index(format) + 1]
        return True

    async def works(self, format: OutputFormat) -> None:
        """Note that the endpoint answered a call in `format`."""
        if not self._decided and format == self.current:
            self._decided = True
            await asyncio.to_thread(self._store.set_meta, self._key, format)
