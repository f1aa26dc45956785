"""What the numbers say, in sentences: what was asked, what came of it, and how it compares with real rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from synalign_agent.records import UNLABELLED
from synalign_agent.report.numbers import brief, rounded

_MOST_NAMED = 3
_WHY_STOPPED = {
    "target_reached": "the target is reached",
    "patience": "the distance no longer fell",
    "max_rounds": "the round limit is reached",
    "max_calls": "the call limit is reached",
    "max_tokens": "the token limit is reached",
    "max_usd": "the cost limit is reached",
    "no_new_samples": "no new samples passed the gates",
}


def why_stopped(reason: str) -> str:
    """Return a session's `stop_reason` as a clause."""
    return _WHY_STOPPED.get(reason, reason)


def verdict(summary: Mapping[str, Any], gaps: Sequence[Mapping[str, Any]] | None = None) -> str:
    """Return how the dataset compares with real rows, in a sentence.

    A label is within noise of real data if its MMD² is not above what as many real rows reach in all but `target.alpha` of
    draws (the floor's quantile). One that is not is under-covered if it lacks rows, or the gap map names it.
    """
    # A label whose share is 0 asks for nothing, and nothing is measured of it.
    labels = {name: row for name, row in (summary.get("per_label") or {}).items() if row.get("n_requested") != 0}
    mmd2 = summary.get("mmd2") or {}
    if summary.get("n_selected") == 0:
        return "No rows were selected, so there is nothing to compare with the real data."
    if mmd2.get("aligned") is None:
        return "How close the data are to real rows was not measured."
    if len(labels) < 2:
        return _of_all(mmd2)
    measured = {name: within_noise(row.get("mmd2") or {}) for name, row in labels.items()}
    n_within = sum(found is True for found in measured.values())
    unknown = [name for name, found in measured.items() if found is None and labels[name].get("n_selected")]
    sentence = f"Within noise of real data for {n_within} of {len(labels)} labels"
    short = {name for name, row in labels.items() if (row.get("n_selected") or 0) < (row.get("n_requested") or 0)}
    lacking = short | {gap["label"] for gap in gaps or ()}
    others = [name for name, found in measured.items() if found is not True and name not in unknown]
    under, far = [name for name in others if name in lacking], [name for name in others if name not in lacking]
    parts = [
        f"{_named(names)} {'is' if len(names) == 1 else 'are'} {what}"
        for names, what in ((under, "under-covered"), (far, "farther than noise"), (unknown, "not measured"))
        if names
    ]
    together = "" if within_noise(mmd2) is not False else f" All together are farther than noise{_times(mmd2)}."
    return f"{sentence}{'; ' if parts else ''}{', '.join(parts)}.{together}"


def worth(summary: Mapping[str, Any]) -> str | None:
    """Return what the dataset is worth in real rows, in a sentence; None if that was not measured."""
    mmd2, n_eq = summary.get("mmd2") or {}, summary.get("n_eq") or {}
    aligned, raw, floor = mmd2.get("aligned"), mmd2.get("raw"), mmd2.get("floor")
    if aligned is None:
        return None
    if n_eq.get("aligned") is not None:
        sentence = f"Aligned data are worth {rounded(n_eq['aligned'])} real rows per MMD²"
    else:
        sentence = f"Aligned data are closer to the real rows than MMD² can tell apart ({brief(aligned)})"
    if n_eq.get("raw") is not None:
        sentence += f", raw data {rounded(n_eq['raw'])}"
    elif raw is not None:
        sentence += f", raw data score {brief(raw)}"
    return sentence + (f"; real rows at this size would score {brief(floor)}." if floor is not None else ".")


def state(summary: Mapping[str, Any]) -> str:
    """Say whether the target is met, how many rows there are, and why the run ended."""
    mmd2 = summary.get("mmd2") or {}
    aligned, target, reason = mmd2.get("aligned"), mmd2.get("target"), summary.get("stop_reason")
    sentences = []
    if aligned is not None and target is not None:
        met = "is met" if aligned <= target else "is not met"
        sentences.append(f"The target of {brief(target)} {met}: the aligned data score {brief(aligned)}.")
    n_selected, n_requested = summary.get("n_selected"), summary.get("n_requested")
    if n_selected is not None and n_requested is not None:
        share = f"all {n_requested:,}" if n_selected == n_requested else f"{n_selected:,} of {n_requested:,}"
        sentences.append(f"The dataset holds {share} rows asked for.")
    if reason:
        sentences.append(f"The run stopped because {why_stopped(reason)}.")
    else:
        sentences.append(f"The run has not come to its end (status: {summary.get('status') or 'unknown'}).")
    return " ".join(sentences)


def reference_note(reference: str | None) -> str | None:
    """Say which real rows the distances are to, unless they are the held-out ones."""
    if reference == "holdout":
        return None
    if reference == "reference":
        return (
            "No real rows were held out. Distances are to the same real rows that the model saw and that the weights "
            "were fitted to, so they look better than distances to unseen rows would."
        )
    if reference == "mixed":
        return (
            "Some labels have no held-out rows. For those labels, distances are to the same real rows that the model "
            "saw and that the weights were fitted to, so they look better than distances to unseen rows would."
        )
    return "Distances were not measured, or it is not known to which real rows."


def fork_sentence(fork: Mapping[str, Any]) -> str:
    """Say where a fork comes from and what it changed."""
    changes = "; ".join(fork["changes"]) or "nothing in the configuration"
    return f"Forked from session {fork['parent']} at round {fork['from_round']}, changing {changes}."


def label_name(label: str) -> str:
    """Return how a label is shown: nothing for data without labels."""
    return "" if label == UNLABELLED else label


def _of_all(mmd2: Mapping[str, Any]) -> str:
    found = within_noise(mmd2)
    if found is None:
        return f"The data score {brief(mmd2['aligned'])}; what real rows score was not measured."
    if found:
        return "Within noise of real data."
    return f"Farther from real data than noise explains{_times(mmd2)}."


def _times(mmd2: Mapping[str, Any]) -> str:
    floor = mmd2.get("floor")
    return f": {rounded(mmd2['aligned'] / floor)} times what as many real rows score" if floor and floor > 0 else ""


def within_noise(mmd2: Mapping[str, Any]) -> bool | None:
    """Tell whether the aligned data score no more than as many real rows do in all but `target.alpha` of draws."""
    aligned, most = mmd2.get("aligned"), mmd2.get("floor_quantile")
    return None if aligned is None or most is None else aligned <= most


def _named(names: Sequence[str]) -> str:
    quoted = [f"“{name}”" for name in names[:_MOST_NAMED]]
    n_more = len(names) - len(quoted)
    if n_more:
        return f"{', '.join(quoted)} and {n_more} more"
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
