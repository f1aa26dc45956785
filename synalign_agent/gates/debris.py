"""What is left of the model's JSON at the beginning of a text: a small model closes its object and goes on in the next string."""

from __future__ import annotations

from synalign_agent.gates.base import Verdict


def begins_with_debris(text: str) -> bool:
    """Tell whether a text begins with a bracket that closes nothing."""
    return text.lstrip()[:1] in ("]", "}")


def check_debris(text: str, *, is_usual: bool) -> Verdict | None:
    """Reject a text that begins with debris, unless it `is_usual`: real rows begin so too, as pieces of code may."""
    if is_usual or not begins_with_debris(text):
        return None
    return Verdict("json_debris", "begins with a bracket that closes nothing")
