"""Sessions beside each other: their numbers, what noise explains of the differences, and which settings differ."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synalign_agent.config import SessionConfig, is_operational, walk_fields
from synalign_agent.report.summary import read_ledger
from synalign_agent.report.verdict import verdict, within_noise
from synalign_agent.stores.base import SessionStore

_OF_THE_KERNEL = ("seed", "align.lengthscale_multipliers")
"""Settings that an MMD² depends on besides the rows: the kernel's scale is estimated on a seeded sample."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison needs of a session."""

    summary: Mapping[str, Any]
    ledger: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    """Dotted field -> value."""
    measured_by: Mapping[str, str]
    """What must be the same for distances to be compared: name -> something that tells two apart."""

    @classmethod
    def of(cls, summary: Mapping[str, Any], store: SessionStore, config: SessionConfig) -> Compared:
        """Read a session."""
        settings = {dotted: _plain(value) for dotted, info, value in walk_fields(config) if not is_operational(info)}
        rows = sorted(f"{row.id} {row.split}" for row in store.real_rows())
        return cls(
            summary=summary,
            ledger=read_ledger(store),
            rounds=store.rounds(),
            settings=settings,
            measured_by={
                "real rows, or their split": hashlib.sha256("\n".join(rows).encode()).hexdigest(),
                "encoder": store.meta("encoder") or "",
                "kernel": json.dumps([settings[name] for name in _OF_THE_KERNEL]),
            },
        )


def compare(sessions: Sequence[Compared]) -> dict[str, Any]:
    """Return sessions beside each other as plain JSON values; the first is what the others are compared with.

    Returns:
        `sessions`: for each `thread_id`, `status`, `stop_reason`, `verdict`, `n_requested`, `n_selected`, `n_pool`, `n_rounds`,
            `mmd2`, `n_eq`, `ess`, `per_label`, `n_rejected`, `calls`, `tokens`, `cost_usd`, `seconds`, `within_noise` (of real
            data), and `by_round` [{`round`, `aligned`, `floor`}].
        `differences`: for each session but the first `thread_id`, `not_comparable` (what the distances were measured by that
            is not the same; empty if they can be compared), `mmd2` (aligned, minus the first session's), `noise` (what two
            sets of real rows of these sizes would differ by in about 95 of 100 draws) and `beyond_noise`; None where a
            distance was not measured or cannot be compared.
        `settings`: for each field that differs `field` and `values`, one for each session.
    """
    first = sessions[0]
    fields = sorted({name for session in sessions for name in session.settings})
    values = {name: [session.settings.get(name) for session in sessions] for name in fields}
    return {
        "sessions": [_described(session) for session in sessions],
        "differences": [_difference(first, session) for session in sessions[1:]],
        "settings": [
            {"field": name, "values": found}
            for name, found in values.items()
            if any(value != found[0] for value in found)
        ],
    }


def _described(session: Compared) -> dict[str, Any]:
    summary = session.summary
    names = (
        "thread_id",
        "status",
        "stop_reason",
        "n_requested",
        "n_selected",
        "n_pool",
        "n_rounds",
        "mmd2",
        "n_eq",
        "ess",
    )
    return {
        **{name: summary[name] for name in names},
        "verdict": verdict(summary),
        "within_noise": within_noise(summary["mmd2"]),
        "per_label": summary["per_label"],
        "n_rejected": sum(summary["rejections"].values()),
        "calls": {name: summary["calls"][name] for name in ("done", "failed")},
        "tokens": session.ledger["tokens"],
        "cost_usd": session.ledger["cost_usd"],
        "seconds": summary["seconds"],
        "by_round": [
            {"round": entry["round"], **{name: entry["mmd2"][name] for name in ("aligned", "floor")}}
            for entry in session.rounds
        ],
    }


def _difference(first: Compared, other: Compared) -> dict[str, Any]:
    not_comparable = [name for name, value in first.measured_by.items() if other.measured_by[name] != value]
    ours, theirs = other.summary["mmd2"], first.summary["mmd2"]
    scored_on = {mmd2["reference"] for mmd2 in (ours, theirs) if mmd2["aligned"] is not None}
    if len(scored_on) > 1:
        not_comparable.append("which real rows score")
    difference = noise = None
    if not not_comparable and ours["aligned"] is not None and theirs["aligned"] is not None:
        difference = ours["aligned"] - theirs["aligned"]
        noise = math.hypot(*(mmd2["floor_quantile"] - mmd2["floor"] for mmd2 in (ours, theirs)))
    return {
        "thread_id": other.summary["thread_id"],
        "not_comparable": not_comparable,
        "mmd2": difference,
        "noise": noise,
        "beyond_noise": None if difference is None or noise is None else abs(difference) > noise,
    }


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
