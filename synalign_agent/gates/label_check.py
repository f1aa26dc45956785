"""Does a text carry the label that was asked for? A vote of its nearest real rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from synalign_agent.gates.base import Verdict

_ROUND_OFF = 1e-9


def check_vote(
    label: str, neighbour_labels: Sequence[str], label_counts: Mapping[str, int], min_vote: float
) -> Verdict | None:
    """Reject a text whose nearest reference rows hardly carry its label.

    Each neighbour votes with the inverse of its label's frequency, so that a rare label is not outvoted by its rarity.
    """
    votes: dict[str, float] = {label: 0.0}
    for name in neighbour_labels:
        votes[name] = votes.get(name, 0.0) + 1 / label_counts[name]
    total = sum(votes.values())
    share = votes[label] / total if total else 1.0
    if share >= min_vote - _ROUND_OFF:
        return None
    winner = max(votes, key=lambda name: votes[name])
    return Verdict(
        "label_mismatch", f"its nearest real rows give {label!r} {share:.0%} of the vote, {winner!r} the most"
    )


def check_judgement(label: str, judged: str) -> Verdict | None:
    """Reject a text that the judge gives another label."""
    return None if judged == label else Verdict("label_judged", f"judged {judged!r} instead of {label!r}")
