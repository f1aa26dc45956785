"""The numbers of a session as one JSON object: the contract of `--json`, `report.json` and the Python API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from synalign_agent.stores.base import SessionStore

DATASET = "export/dataset.parquet"
POOL = "export/pool.parquet"
REPORT = "report.html"

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
    config = yaml.safe_load(store.meta("config") or "{}")
    paths = {"dataset": DATASET, "pool": POOL, "report": REPORT}
    return {
        "thread_id": folder.name,
        "status": status,
        "stop_reason": store.meta("stop_reason") or None,
        "n_requested": config.get("n_samples"),
        "n_selected": last["n_selected"],
        "n_pool": store.count_samples(),
        "n_rounds": len(rounds),
        "mmd2": {**last["mmd2"], "reference": last["scored_on"]},
        "n_eq": last["n_eq"],
        "ess": last["ess"],
        "p_value": last["p_value"],
        "per_label": last["per_label"],
        "coverage": last["coverage"],
        "rejections": store.rejection_counts(),
        "calls": {
            "done": totals.done,
            "failed": totals.failed,
            "repeated": totals.repeated,
            "in_flight_lost": totals.in_flight_lost,
            "failed_by_class": dict(totals.failed_by_class),
        },
        "tokens": {"prompt": totals.prompt_tokens, "completion": totals.completion_tokens},
        "cost_usd": totals.cost_usd,
        "seconds": float(store.meta("active_seconds") or 0.0),
        "warnings": (store.meta("warnings") or "").splitlines(),
        "paths": {name: str(folder / path) if (folder / path).exists() else None for name, path in paths.items()},
    }
