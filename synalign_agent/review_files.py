"""A review as a file, JSON lines or CSV: written for spreadsheets and annotation tools, read back row by row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from synalign_agent.errors import InputError
from synalign_agent.records import Decision
from synalign_agent.report.export import write_atomically
from synalign_agent.review import PendingReview, ReviewItem, decide, now

FILLED = ("decision", "edit", "reason", "reviewer", "decided_at")
"""The fields that people fill in; all others are there to be read."""
_VERDICTS = ("approve", "edit", "reject")


def write_review(pending: PendingReview, path: Path) -> None:
    """Write one row for each item, with the decision in force; CSV if the name ends so, else JSON lines.

    In JSON lines the `edit` of attributes is an object; in CSV it is that object as JSON text.

    Raises:
        InputError: the file cannot be written.
    """
    rows = [_row(item) for item in pending.items]
    if _is_csv(path):
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
        # The mark makes spreadsheets read UTF-8.
        text = "\ufeff" + stream.getvalue()
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=""))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another file") from None


def read_review(pending: PendingReview, path: Path, *, reviewer: str) -> list[Decision]:
    """Read the decisions of a file; rows whose `decision` is empty decide nothing.

    Args:
        pending: the review that waits.
        path: the file.
        reviewer: who decided, where a row does not say.

    Raises:
        InputError: rows cannot be used; each is named with its field. None of the file counts then.
    """
    decisions: list[Decision] = []
    wrong: list[str] = []
    for number, row in _rows(path):
        where = f"{path}: row {number}"
        if not str(row.get("decision") or "").strip():
            if any(row.get(name) for name in ("edit", "reason")):
                wrong.append(
                    f"{where}: decision: empty, although there is an edit or a reason; write {', '.join(_VERDICTS)}"
                )
            continue
        try:
            decisions.append(_decision(pending, row, reviewer))
        except InputError as error:
            wrong.append(f"{where}: {error}")
    if wrong:
        raise InputError("\n".join(wrong))
    return decisions


def _row(item: ReviewItem) -> dict[str, Any]:
    decision = item.decision
    edit: Any = decision.edited if decision is not None else None
    if edit is not None and item.kind == "attributes":
        edit = json.loads(edit)
    filled = {
        "decision": decision.verdict if decision else None,
        "edit": edit,
        "reason": decision.reason if decision else None,
        "reviewer": decision.reviewer if decision else None,
        "decided_at": decision.decided_at if decision else None,
    }
    others = {
        "others": [f"{other.reviewer}: {other.verdict}" for other in item.conflicting],
        **({} if item.problem is None else {"problem": item.problem}),
    }
    shown = {name: value for name, value in item.shown.items() if name not in ("item_id", "problem")}
    return {"item": item.id, **filled, **shown, "problem": None, **others}


def _decision(pending: PendingReview, row: Mapping[str, Any], reviewer: str) -> Decision:
    item_id = row.get("item")
    if not isinstance(item_id, str) or not item_id:
        raise InputError("item: missing; keep the column as it was exported")
    try:
        item = pending.item(item_id)
    except InputError as error:
        raise InputError(f"item: {error}") from None
    verdict = str(row["decision"]).strip().lower()
    if verdict not in _VERDICTS:
        raise InputError(f"decision: {row['decision']!r} is none of {', '.join(_VERDICTS)}")
    for name in ("reason", "reviewer", "decided_at"):
        if not isinstance(row.get(name), str | None):
            raise InputError(f"{name}: must be text, not {row[name]!r}")
    edit = row.get("edit") if verdict == "edit" else None
    if verdict == "edit" and item.kind == "attributes" and isinstance(edit, str):
        try:
            edit = json.loads(edit)
        except ValueError:
            raise InputError(f'edit: {edit!r} is no JSON object such as {{"tone": "angry"}}') from None
    made = decide(
        item,
        "approve" if verdict == "approve" else "edit" if verdict == "edit" else "reject",
        edit=edit,
        reason=row.get("reason"),
        reviewer=row.get("reviewer") or reviewer,
        decided_at=row.get("decided_at") or None,
    )
    before = item.decision
    if (
        before is not None
        and (before.reviewer, before.decided_at) == (made.reviewer, made.decided_at)
        and before != made
    ):
        # The row still bears the name and time of the decision that was exported, but says something else now.
        return _by(made, reviewer)
    return made


def _by(decision: Decision, reviewer: str) -> Decision:
    """Return the same decision, made by `reviewer` now."""
    return Decision.of(
        decision.kind, decision.item_id, decision.round, decision.verdict, edited=decision.edited, reason=decision.reason,
        reviewer=reviewer, decided_at=now(),
    )  # fmt: skip


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield rows with their numbers, from 1 (in a CSV without its head)."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `synalign review THREAD_ID --export {path}` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as UTF-8: {error}") from None
    if _is_csv(path):
        reader = csv.DictReader(io.StringIO(text, newline=""))
        missing = [name for name in ("item", "decision") if name not in (reader.fieldnames or [])]
        if missing:
            raise InputError(f"{path}: row 0: no column {', '.join(missing)}; keep the head as it was exported")
        yield from enumerate(reader, start=1)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}: row {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}: row {number}: expected a JSON object, found {type(row).__name__}")
        yield number, row


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n".join(map(str, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
