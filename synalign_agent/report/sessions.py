"""All sessions of a folder at a glance. Nothing here loads a model, a graph or an array library, or writes to a session."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import filelock
import yaml

_DATABASE = "session.sqlite"
_CONFIG = "config.yaml"


def list_sessions(runs_dir: Path) -> list[dict[str, Any]]:
    """Return one row for each session under `runs_dir`, by name.

    Each has `thread_id`; `status` (as `Session.status`, or `unreadable`, or `elsewhere` if it is not kept in its folder);
    `stop_reason`; `n_rounds` finished; `n_pool` (texts that people rejected included); `n_requested`; `n_selected`; `mmd2`
    {`aligned`, `target`}; `calls` {`done`, `failed`}; `cost_usd` (None where no prices are configured); `forked_from` (thread
    id, or None); and `error` (a sentence, or None). What is not measured is None.
    """
    found = {path.parent for name in (_DATABASE, _CONFIG) for path in runs_dir.glob(f"*/{name}")}
    return [_session(folder) for folder in sorted(found) if not folder.name.startswith(".")]


def _session(folder: Path) -> dict[str, Any]:
    path = folder / _DATABASE
    row: dict[str, Any] = {
        "thread_id": folder.name,
        "status": "unreadable",
        "stop_reason": None,
        **dict.fromkeys(("n_rounds", "n_pool", "n_requested", "n_selected")),
        "mmd2": {"aligned": None, "target": None},
        "calls": {"done": None, "failed": None},
        "cost_usd": None,
        "forked_from": None,
        "error": None,
    }
    if not path.exists():
        return {
            **row,
            "status": "elsewhere",
            "error": f"{folder}: kept in another database; `synalign status {folder.name}` asks it",
        }
    try:
        # Read-only, and not through the store: looking at old sessions must not bring them to the newest schema.
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
            return {**row, **_facts(connection, folder)}
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
        return {**row, "error": f"{path}: {error}; restore it from a copy"}


def _facts(connection: sqlite3.Connection, folder: Path) -> dict[str, Any]:
    meta = dict(
        connection.execute("SELECT key, value FROM meta WHERE key IN ('status', 'stop_reason', 'config', 'lineage')")
    )
    config = yaml.load(meta.get("config", "{}"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    last = connection.execute(
        "SELECT metrics, (SELECT COUNT(*) FROM rounds) FROM rounds ORDER BY round DESC LIMIT 1"
    ).fetchone()
    metrics = json.loads(last[0]) if last else {}
    done, failed, cost_usd = connection.execute(
        "SELECT COALESCE(SUM(state = 'done'), 0), COALESCE(SUM(state = 'failed'), 0), COALESCE(SUM(cost_usd), 0.0) FROM calls"
    ).fetchone()
    mmd2 = metrics.get("mmd2", {})
    priced = any(((config.get("llm") or {}).get("prices") or {}).values())
    lineage = json.loads(meta.get("lineage", "[]"))
    return {
        "status": _status(meta.get("status", "new"), folder),
        "stop_reason": meta.get("stop_reason") or None,
        "n_rounds": last[1] if last else 0,
        "n_pool": connection.execute("SELECT COUNT(*) FROM samples").fetchone()[0],
        "n_requested": config.get("n_samples"),
        "n_selected": metrics.get("n_selected", 0),
        "mmd2": {"aligned": mmd2.get("aligned"), "target": mmd2.get("target")},
        "calls": {"done": done, "failed": failed},
        "cost_usd": cost_usd if priced else None,
        "forked_from": lineage[-1]["parent"] if lineage else None,
    }


def _status(stored: str, folder: Path) -> str:
    """Return the stored status, or `interrupted` where the process that was running is gone."""
    if stored != "running":
        return stored
    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            return "interrupted"
    except (filelock.Timeout, OSError):  # a folder that cannot be written to: what is stored is all that is known
        return stored
