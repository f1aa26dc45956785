"""Faulty replies by seed: what goes wrong with a request depends on the seed, the request and how often it was sent."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections import Counter
from typing import Any

from support.chat_server import Reply

KINDS = (
    "rate_limit", "server_error", "dropped", "not_json", "not_http_json", "cut", "refused", "empty", "duplicate", "giant",
    "off_schema", "slow",
)  # fmt: skip
_GIANT_CHARACTERS = 1_000_000


class FaultScript:
    """A script for `ChatServer` that spoils a share of the replies."""

    def __init__(self, seed: int, share: float) -> None:
        """Spoil `share` of the replies, evenly over all kinds of faults."""
        self._seed, self._share = seed, share
        self._times = Counter[str]()
        self._lock = threading.Lock()
        self.injected = Counter[str]()

    def __call__(self, body: dict[str, Any], number: int) -> Reply | None:
        """Return a spoiled reply, or None for a good one."""
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        with self._lock:
            self._times[digest] += 1
            rng = random.Random(f"{self._seed}:{digest}:{self._times[digest]}")
            if rng.random() >= self._share:
                return None
            kind = rng.choice(KINDS)
            self.injected[kind] += 1
        return self._spoiled(kind, rng)

    def _spoiled(self, kind: str, rng: random.Random) -> Reply:
        match kind:
            case "rate_limit":
                return Reply("slow down", status=429, headers={"Retry-After": "0"})
            case "server_error":
                return Reply(status=rng.choice((500, 502, 503)))
            case "dropped":
                return Reply(drop=True)
            case "not_json":
                return Reply("Sure! Here are some texts for you.")
            case "not_http_json":
                return Reply(raw_body=b"<html>bad gateway</html>")
            case "cut":
                return Reply('{"texts": ["The parcel never', finish_reason="length")
            case "refused":
                return Reply(refusal="I cannot help with that.")
            case "empty":
                return Reply("")
            case "duplicate":
                same = "The very same message about a parcel that was left at the wrong door."
                return Reply(json.dumps({"texts": [same] * 4}))
            case "giant":
                return Reply(json.dumps({"texts": ["word " * (_GIANT_CHARACTERS // 5)]}))
            case "off_schema":
                return Reply(json.dumps({"answer": 42}))
        return Reply(delay_seconds=rng.uniform(0.05, 0.3))
