"""What the gates look at and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text out of a valid reply, not yet data."""

    call_key: str
    position: int
    """Place in the reply, from 0."""
    cluster_id: str
    label: str
    text: str
    """Without spaces around it."""
    is_cut: bool = False
    """It reached the limit that the schema sets: its end is missing."""


class Verdict(NamedTuple):
    """Why a candidate is rejected."""

    reason: str
    detail: str
