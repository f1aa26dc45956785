"""The numbers of a session as one JSON object: the contract of `--json`, `report.json` and the Python API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from synalign_agent.report.ledger import is_priced, ledger
from synalign_agent.state import WAITING
from synalign_agent.stores.base import SessionStore
from synalign_agent.stores.reviews import standing

LINEAGE = "lineage"
"""Key of the fact that says which sessions this one was forked from, as a JSON list, oldest first."""
ERROR = "error"
"""Key of the fact that says which error ended the last run; empty if none did."""
DATASET = "export/dataset.parquet"
POOL = "export/pool.parquet"
REPORT = "report.html"
_VERDICTS = ("approve", "edit", "reject")

_NOT_MEASURED: dict[str, Any] = {
    "n_selected": 0,
    "n_pool": 0,
    "scored_on": None,
    "mmd2": dict.fromkeys(("raw", "aligned", "floor", "floor_quantile", "target")),
    "n_eq": {"raw": None, "aligned": None},
    "ess": None,
    "p_value": None,
    "per_label": {},
    "coverage": None,
}


def summarize(folder: Path, store: SessionStore, *, status: str) -> dict[str, Any]:
    """Return the session's numbers after its last finished round; what was not measured is None."""
    rounds = store.rounds()
    last = rounds[-1] if rounds else _NOT_MEASURED
    totals = store.call_totals()
    given = standing(store.decisions())
    config = yaml.safe_load(store.meta("config") or "{}")
    paths = {"dataset": DATASET, "pool": POOL, "report": REPORT}
    return {
        "thread_id": folder.name,
        "lineage": lineage_of(store),
        "status": status,
        "error": (store.meta(ERROR) or None) if status == "failed" else None,
        "stop_reason": store.meta("stop_reason") or None,
        "n_requested": config.get("n_samples"),
        "n_selected": last["n_selected"],
        "n_pool": _count_pool(store),
        "n_rounds": len(rounds),
        "mmd2": {**last["mmd2"], "reference": last["scored_on"]},
        "n_eq": last["n_eq"],
        "ess": last["ess"],
        "p_value": last["p_value"],
        "per_label": last["per_label"],
        "coverage": last["coverage"],
        "rejections": store.rejection_counts(),
        "review": {
            "pending": status == WAITING,
            **{verdict: sum(found.verdict == verdict for found in given.values()) for verdict in _VERDICTS},
        },
        "calls": {
            "done": totals.done,
            "failed": totals.failed,
            "repeated": totals.repeated,
            "in_flight_lost": totals.in_flight_lost,
            "failed_by_class": dict(totals.failed_by_class),
        },
        "tokens": {
            "prompt": totals.prompt_tokens if totals.reports_tokens else None,
            "completion": totals.completion_tokens if totals.reports_tokens else None,
        },
        "cost_usd": totals.cost_usd if totals.reports_tokens and is_priced(config) else None,
        "seconds": float(store.meta("active_seconds") or 0.0),
        "warnings": (store.meta("warnings") or "").splitlines(),
        "paths": {name: str(folder / path) if (folder / path).exists() else None for name, path in paths.items()},
    }


def read_ledger(store: SessionStore) -> dict[str, Any]:
    """Return what the session's calls cost and bought (see `report/ledger.py`), summed up by the store."""
    config = yaml.safe_load(store.meta("config") or "{}")
    forks = lineage_of(store)
    return ledger(
        store.call_groups(),
        store.rounds(),
        n_accepted=_count_pool(store),
        repeated=store.call_totals().repeated,
        priced=is_priced(config),
        inherited_rounds=forks[-1]["from_round"] - 1 if forks else 0,
    )


def lineage_of(store: SessionStore) -> list[dict[str, Any]]:
    """Return the forks that led to this session, oldest first: `parent`, `from_round`, `overrides`, `changes`, `forked_at`."""
    return list(json.loads(store.meta(LINEAGE) or "[]"))


def _count_pool(store: SessionStore) -> int:
    """Count the samples that no person rejected or replaced, without reading their texts."""
    decisions = standing(store.decisions(kind="sample"))
    return store.count_samples() - sum(found.verdict != "approve" for found in decisions.values())
