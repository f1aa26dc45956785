"""Where samples come from: what the page shows of one that is clicked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from synalign_agent.report.verdict import label_name

_MOST_CHARACTERS = 600


def sample_lineage(
    rows: Iterable[Mapping[Any, Any]], real_texts: Mapping[str, str], *, rewritten: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return samples with everything they come from, and each real text that they name once.

    Args:
        rows: rows of the pool frame (see `report/export.py`), as dictionaries.
        real_texts: id -> text of the real rows that they name.
        rewritten: id -> text of the samples that people rewrote.

    Returns:
        `samples`: id -> `text`, `label`, `round`, `weight`, `copies`, `attributes` [[name, value], ...], `demonstrations`
            (ids), `nearest` (id), `similarity`, `prompt`, `model`, `seed`, `edited_from` (the text before, or None);
        `real`: id -> text. Texts are cut at 600 characters.
    """
    samples, named = {}, set()
    for row in rows:
        demonstrations = [str(id) for id in row["demonstration_ids"]]
        named |= {*demonstrations, row["nearest_real_id"]}
        edited_from = row["edited_from"] if isinstance(row["edited_from"], str) else None
        samples[row["sample_id"]] = {
            "text": _cut(row["text"]),
            "label": label_name(row["label"]),
            "round": int(row["round"]),
            "weight": float(row["weight"]),
            "copies": int(row["copies"]),
            "attributes": [[entry["name"], entry["value"]] for entry in row["attributes"]],
            "demonstrations": demonstrations,
            "nearest": row["nearest_real_id"],
            "similarity": float(row["nearest_similarity"]),
            "prompt": f"{row['prompt']} {row['prompt_version']} ({row['prompt_sha256'][:12]})",
            "model": row["model"],
            "seed": int(row["seed"]),
            "edited_from": None if edited_from is None else _cut((rewritten or {}).get(edited_from, edited_from)),
        }
    return {"samples": samples, "real": {id: _cut(real_texts[id]) for id in sorted(named) if id in real_texts}}


def named_real_rows(rows: Sequence[Mapping[Any, Any]]) -> set[str]:
    """Return the ids of the real rows that these rows of the pool frame come from, or are nearest to."""
    return {id for row in rows for id in (*row["demonstration_ids"], row["nearest_real_id"])}


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1].rstrip() + "…"
