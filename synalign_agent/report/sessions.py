"""All sessions of a folder at a glance. Nothing here loads a model, a graph or an array library, or writes to a session."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import filelock
import yaml

from synalign_agent.errors import SynAlignError
from synalign_agent.report.ledger import is_priced

_DATABASE = "session.sqlite"
_CONFIG = "config.yaml"


def list_sessions(runs_dir: Path) -> list[dict[str, Any]]:
    """Return one row for each session under `runs_dir`, by name.

    Each has `thread_id`; `status` (as `Session.status`, or `unreadable`, by a file or by a database server that cannot be used);
    `stop_reason`; `n_rounds` finished; `n_pool` (texts that people rejected included); `n_requested`; `n_selected`; `mmd2`
    {`aligned`, `target`}; `calls` {`done`, `failed`}; `cost_usd` (None where no prices are configured); `forked_from` (thread
    id, or None); and `error` (why it is unreadable, or which error ended its last run, or None). What is not measured is None.
    """
    found = {path.parent for name in (_DATABASE, _CONFIG) for path in runs_dir.glob(f"*/{name}")}
    refusals: dict[str, str] = {}
    return [_session(folder, refusals) for folder in sorted(found) if not folder.name.startswith(".")]


def _session(folder: Path, refusals: dict[str, str]) -> dict[str, Any]:
    """Return a session's row.

    Args:
        folder: the session's folder.
        refusals: URL of a server -> why it cannot be used; each is asked in vain once.
    """
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
    try:
        url = None if path.exists() else _url(folder)
        if url is not None:
            return {**row, **_facts_from_server(url, folder, refusals)}
        # Read-only, and not through the store: looking at old sessions must not bring them to the newest schema.
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
            return {**row, **_facts(connection, lambda: _is_locked(folder))}
    except (sqlite3.Error, OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        return {**row, "error": f"{path}: {error}; restore it from a copy"}


def _url(folder: Path) -> str | None:
    config = yaml.safe_load((folder / _CONFIG).read_text(encoding="utf-8")) or {}
    url = (config.get("storage") or {}).get("url")
    return None if url is None else str(url)


def _facts_from_server(url: str, folder: Path, refusals: dict[str, str]) -> dict[str, Any]:
    from synalign_agent.stores.postgres import connect, explained_refusal, is_claimed

    if url in refusals:
        return {"error": refusals[url]}
    try:
        connection = connect(url, folder.name)
    except SynAlignError as error:
        refusals[url] = f"{folder}: {error}"
        return {"error": refusals[url]}
    try:
        with connection, explained_refusal():
            return _facts(connection, lambda: is_claimed(connection, folder.name) or _is_locked(folder))
    except SynAlignError as error:
        return {"error": f"{folder}: {error}"}


def _facts(connection: Any, is_locked: Callable[[], bool]) -> dict[str, Any]:
    """Read a row from a connection to SQLite or PostgreSQL, in words that both know."""
    meta = dict(
        connection.execute(
            "SELECT key, value FROM meta WHERE key IN ('status', 'error', 'stop_reason', 'config', 'lineage')"
        )
    )
    config = yaml.load(meta.get("config", "{}"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    last = connection.execute(
        "SELECT metrics, (SELECT COUNT(*) FROM rounds) FROM rounds ORDER BY round DESC LIMIT 1"
    ).fetchone()
    metrics = json.loads(last[0]) if last else {}
    done, failed, cost_usd = connection.execute(
        "SELECT COUNT(*) FILTER (WHERE state = 'done'), COUNT(*) FILTER (WHERE state = 'failed'), COALESCE(SUM(cost_usd), 0.0) "
        "FROM calls"
    ).fetchone()
    mmd2 = metrics.get("mmd2", {})
    lineage = json.loads(meta.get("lineage", "[]"))
    status = meta.get("status", "new")
    return {
        "status": "interrupted" if status == "running" and not is_locked() else status,
        "error": (meta.get("error") or None) if status == "failed" else None,
        "stop_reason": meta.get("stop_reason") or None,
        "n_rounds": last[1] if last else 0,
        "n_pool": connection.execute("SELECT COUNT(*) FROM samples").fetchone()[0],
        "n_requested": config.get("n_samples"),
        "n_selected": metrics.get("n_selected", 0),
        "mmd2": {"aligned": mmd2.get("aligned"), "target": mmd2.get("target")},
        "calls": {"done": done, "failed": failed},
        "cost_usd": cost_usd if is_priced(config) else None,
        "forked_from": lineage[-1]["parent"] if lineage else None,
    }


def _is_locked(folder: Path) -> bool:
    """Tell whether the process that was running holds the folder; where that cannot be known, that it does."""
    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            return False
    except (filelock.Timeout, OSError):  # a folder that cannot be written to: what is stored is all that is known
        return True
