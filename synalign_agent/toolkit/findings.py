"""What a person should know about their data before they trust the numbers: typed, so that a script can act on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "rows_left_out",
    "labels_not_used",
    "label_missing_in_pool",
    "real_rows_alike",
    "label_not_in_real",
    "doubtful_labels",
    "copies_of_real_rows",
    "near_duplicates",
    "no_choice",
    "fewer_rows_than_asked",
    "duplicates",
    "no_holdout",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition of the data that changes what the result means."""

    kind: Kind
    message: str
    """A sentence for people: what is so, and what can be done."""
    details: dict[str, Any] = field(default_factory=dict)
    """The same for scripts, as JSON values."""

    def as_json(self) -> dict[str, Any]:
        """Return the finding as one flat JSON object."""
        return {"kind": self.kind, "message": self.message, **self.details}


def listed(names: Sequence[object], shown: int = 5) -> str:
    """Return names for a sentence, texts in quotes, cut after `shown`."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(repr(name) for name in names[:shown]) + more
