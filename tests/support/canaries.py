"""Words that must not leave: in real rows, in replies, in what an endpoint says of errors, and in the API key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.chat_server import Reply, json_reply

REAL, WRITTEN, KEY = "quokkareal", "narwhalwritten", "sk-axolotlkey"
CANARIES = (REAL, WRITTEN, KEY)
_SUBJECTS = (
    "kettle",
    "lamp",
    "parcel",
    "invoice",
    "password",
    "jacket",
    "refund",
    "courier",
    "voucher",
    "mirror",
    "desk",
)
_EVENTS = ("arrived broken", "is late again", "was charged twice", "does not work", "got lost", "smells odd", "is wet")


def write_rows(path: Path, n: int = 72) -> Path:
    """Write labelled rows that hold the canary."""
    rows = [
        {
            "text": f"The {_SUBJECTS[i % 11]} number {i} {_EVENTS[i % 7]}, says {REAL} to the desk on day {i * 7 % 31}.",
            "label": ("billing", "delivery")[i % 2],
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def script(body: dict[str, Any], number: int) -> Reply | None:
    """Write texts that hold the canary, and every seventh time an error that quotes the prompt and the key."""
    if number % 7 == 3:
        return Reply(
            status=429, content=f"too busy for {json.dumps(body['messages'])} of {KEY}", headers={"Retry-After": "0.01"}
        )
    if body["response_format"]["json_schema"]["name"] != "GeneratedTexts":
        return None
    texts = [
        f"My {_SUBJECTS[(number + i) % 11]} {_EVENTS[(number * 3 + i) % 7]}, {WRITTEN} wrote on {number} May at {i + 1} o'clock."
        for i in range(4)
    ]
    return json_reply({"texts": texts})


def refusing(body: dict[str, Any], number: int) -> Reply:
    """Answer every request by an error that quotes the prompt and the key."""
    return Reply(status=400, content=f"{KEY} may not ask about {REAL}: {json.dumps(body['messages'])}")
