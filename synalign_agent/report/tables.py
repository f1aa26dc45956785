"""The rows of the page's tables, out of the session's numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from synalign_agent.report.map_figure import GROUPS, MapPoint
from synalign_agent.report.numbers import brief
from synalign_agent.report.verdict import within_noise

_REASONS = {
    "call": "The call failed",
    "copy_cosine": "Too close to a real row in meaning",
    "copy_edited": "A real row with a few words changed or added",
    "copy_words": "Shares a run of words with a real row",
    "cut": "Cut by the schema's length limit",
    "duplicate": "Same words as an earlier sample",
    "echo": "Repeats what was asked",
    "empty": "Empty text",
    "empty_reply": "Empty reply",
    "json_debris": "Begins with what is left of the model's JSON",
    "label_judged": "The model judged it to have another label",
    "label_mismatch": "Its nearest real rows have another label",
    "length_cut": "Reply cut by the token limit",
    "malformed": "Reply was not valid JSON",
    "near_duplicate": "Too close to an earlier sample in meaning",
    "off_schema": "Reply did not follow the schema",
    "refused": "The model refused",
    "repetitive": "Repeats itself",
    "text_cut": "Text cut by the schema's length limit",
    "too_long": "Text too long",
    "too_short": "Text too short",
    "wordless": "Has no words",
}


def rows_worth(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Return n_eq of every column of the key table; the target's follows as n_eq x MMD2 is the same for all."""
    mmd2, n_eq = summary.get("mmd2") or {}, summary.get("n_eq") or {}
    target = mmd2.get("target")
    measured = [key for key in ("aligned", "raw") if n_eq.get(key) is not None and mmd2.get(key) is not None]
    scale = n_eq[measured[0]] * mmd2[measured[0]] if measured else None
    return {
        "raw": n_eq.get("raw"),
        "aligned": n_eq.get("aligned"),
        "floor": summary.get("n_selected") if mmd2.get("floor") is not None else None,
        "target": scale / target if scale is not None and target is not None and target > 0 else None,
    }


def times_floor(mmd2: Mapping[str, Any]) -> dict[str, float | None]:
    """Return every column of the key table in units of the floor."""
    floor = mmd2.get("floor")
    usable = floor is not None and floor > 0
    return {
        key: mmd2[key] / floor if usable and mmd2.get(key) is not None else None
        for key in ("raw", "aligned", "floor", "target")
    }


def per_label(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each label, with None for numbers that an older session does not have."""
    rows = (summary.get("per_label") or {}).items()
    return [
        {
            "label": label,
            **with_keys(row, ("n_requested", "n_selected", "n_pool")),
            "mmd2": with_keys(row.get("mmd2"), ("raw", "aligned", "floor", "floor_quantile")),
            "n_eq": with_keys(row.get("n_eq"), ("raw", "aligned")),
            "within_noise": within_noise(row.get("mmd2") or {}),
        }
        for label, row in rows
    ]


def rounds_text(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Say in words what the figure of the rounds shows."""
    aligned = [(entry["round"], entry["mmd2"].get("aligned")) for entry in rounds]
    scored = [(round, value) for round, value in aligned if value is not None]
    if not scored:
        return "MMD² was not measured in any round."
    best_round, best = min(scored, key=lambda pair: (pair[1], pair[0]))
    (first_round, first), (last_round, last) = scored[0], scored[-1]
    if len(scored) == 1:
        return f"MMD² of the aligned data is {brief(last)} after round {last_round}."
    way = f"{brief(first)} after round {first_round} to {brief(last)} after round {last_round}"
    end = ", its lowest" if best_round == last_round else f"; it was lowest, {brief(best)}, after round {best_round}"
    return f"MMD² of the aligned data goes from {way}{end}."


def map_groups(points: Sequence[MapPoint]) -> list[dict[str, Any]]:
    """Describe each group of points in numbers, for those who cannot see the map."""
    rows = []
    for group, name in GROUPS.items():
        members = [point for point in points if point.group == group]
        if members:
            x, y = _mean_and_spread([point.x for point in members]), _mean_and_spread([point.y for point in members])
            rows.append({"name": name, "n": len(members), "x": x, "y": y})
    return rows


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return (0.0 if abs(mean) < 1e-9 * spread else mean), spread  # the real rows are centred up to rounding


def rejections(
    summary: Mapping[str, Any], examples: Mapping[str, Sequence[tuple[str, str]]], real_rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return a row for each reason, the most frequent first.

    Args:
        summary: with `rejections` {reason: count} and `n_pool`.
        examples: reason -> (text, detail) of a few rejections.
        real_rates: reason -> share of real rows that the same gate would reject.

    Returns:
        `reason`, `meaning`, `n`, `examples`, `share` (of all texts and replies that were judged) and `real_share`, None where
        the gate cannot be asked about real rows.
    """
    counts = summary.get("rejections") or {}
    n_judged = sum(counts.values()) + (summary.get("n_pool") or 0)
    return [
        {
            "reason": reason,
            "meaning": _meaning(reason),
            "n": counts[reason],
            "examples": examples.get(reason, ()),
            "share": counts[reason] / n_judged,
            "real_share": real_rates.get(reason),
        }
        for reason in sorted(counts, key=lambda reason: (-counts[reason], reason))
    ]


def _meaning(reason: str) -> str:
    if reason in _REASONS:
        return _REASONS[reason]
    kind, _, rest = reason.partition("_")
    if kind == "attributes" and rest:
        return f"Attribute summary: {_meaning(rest)[0].lower()}{_meaning(rest)[1:]}"
    if kind == "call" and rest:
        return f"{_REASONS[kind]}: {rest.replace('_', ' ')}"
    return reason.replace("_", " ").capitalize()


def with_keys(values: Mapping[str, Any] | None, keys: Sequence[str]) -> dict[str, Any]:
    """Return these keys of a mapping that may lack some, or be None; what it lacks is None."""
    return {key: (values or {}).get(key) for key in keys}
