"""`synalign review`: keys in the terminal, files, exit codes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.postgres import wherever_kept

from synalign_agent.config import SessionConfig
from synalign_agent.session import Session

pytestmark = pytest.mark.usefixtures("hash_encoder")
Cli = Callable[..., tuple[int, str, str]]
EDITED = "I would have liked somebody to ring me about the piano before it went back to your depot."


@pytest.fixture
def review(cli: Cli, make_config: Callable[..., SessionConfig], tmp_path: Path) -> Cli:
    """Start a session that waits for a review of its samples; return `synalign review` for it."""
    config = make_config(review__samples="first_round", limits__max_rounds=1, round_samples=8, n_samples=4)
    (tmp_path / "c.yaml").write_text(config.to_yaml(), encoding="utf-8")
    code, out, err = cli("run", str(tmp_path / "c.yaml"), "--thread-id", "t", "--json")
    assert (code, json.loads(out)["status"]) == (4, "waiting_for_review")
    assert f"synalign review t --runs-dir {tmp_path / 'runs'}" in err
    return lambda *arguments, keys="": cli("review", "t", "--reviewer", "ada", *arguments, keys=keys)


def texts(tmp_path: Path) -> list[str]:
    with Session.view("t", runs_dir=tmp_path / "runs") as session:
        return [sample.text for sample in session.store.samples()]


def pool(tmp_path: Path) -> list[str]:
    return list(pd.read_parquet(tmp_path / "runs" / "t" / "export" / "pool.parquet")["text"])


def decisions(tmp_path: Path) -> list[tuple[str, str | None, str]]:
    with Session.view("t", runs_dir=tmp_path / "runs") as session:
        return [(decision.verdict, decision.reason, decision.reviewer) for decision in session.store.decisions()]


@wherever_kept
def test_edit_reject_and_approve_by_keys(review: Cli, tmp_path: Path) -> None:
    first, second, *others = texts(tmp_path)
    code, out, err = review("--json", keys=f"e\n{EDITED}\nr\nreads like an advert\n" + "a\n" * len(others) + "g\n")
    result = json.loads(out)
    assert (code, result["status"]) in ((0, "finished"), (3, "finished")), err
    assert set(pool(tmp_path)) == {EDITED, *others}
    assert result["rejections"]["review_rejected"] == 1
    assert "nearest real row" in err and first in err and second in err
    assert {reviewer for _, _, reviewer in decisions(tmp_path)} == {"ada"}


@wherever_kept
def test_every_decision_is_saved_and_leaving_is_safe(review: Cli, cli: Cli, tmp_path: Path) -> None:
    n = len(texts(tmp_path))
    code, _, err = review(keys="a\ns\nr\nno\n")  # the input ends: as if the terminal was closed
    assert code == 4
    assert f"2 of {n} items are decided" in err and "synalign review t" in err
    assert [verdict for verdict, _, _ in decisions(tmp_path)] == ["approve", "reject"]
    code, _, err = cli("resume", "t", "--json")
    assert code == 4 and f"Waiting for review of {n - 2} items; 2 of {n} are decided." in err
    code, _, err = cli("status", "t")
    assert code == 0 and "waiting_for_review" in err and "Continue with: synalign review t" in err
    code, _, err = review(keys="a\n" * (n - 2) + "g\n")
    assert code in (0, 3)
    assert len(pool(tmp_path)) == n - 1


def test_undo_takes_the_last_decision_back(review: Cli, tmp_path: Path) -> None:
    first, *others = texts(tmp_path)
    code, _, err = review(keys="r\nno\nu\nq\n")
    assert (code, [verdict for verdict, _, _ in decisions(tmp_path)]) == (4, ["reject", "undo"])
    assert f"0 of {len(others) + 1} items are decided" in err
    # Across sittings, and from the question at the end.
    code, _, _ = review(keys="a\n" * (len(others) + 1) + "u\nr\nno\ng\n")
    assert code in (0, 3)
    assert sorted(pool(tmp_path)) == sorted([first, *others[:-1]])


def test_an_unusable_edit_or_reason_is_asked_for_again(review: Cli, tmp_path: Path) -> None:
    code, _, err = review(keys="r\n\ne\n \nx\na\nq\n")
    assert code == 4
    assert "say why" in err and "the new text is missing" in err
    assert [verdict for verdict, _, _ in decisions(tmp_path)] == ["approve"]


def test_an_edit_that_copies_a_real_row_comes_back_with_the_reason(review: Cli, tmp_path: Path) -> None:
    _, *others = texts(tmp_path)
    copied = "Package left in the rain. Box is mush. Thanks for nothing."
    code, _, err = review(keys=f"e\n{copied}\n" + "a\n" * len(others) + f"g\ne\n{EDITED}\ng\n")
    assert code in (0, 3)
    assert "the edited text copies a real row: shares 8 words in a row with real row" in err
    assert set(pool(tmp_path)) == {EDITED, *others}


@wherever_kept
@pytest.mark.parametrize("name", ["items.jsonl", "items.csv"])
def test_edit_and_reject_by_file(review: Cli, tmp_path: Path, name: str) -> None:
    first, second, *others = texts(tmp_path)
    code, out, err = review("--export", name)
    assert (code, out) == (0, "") and name in err
    rows = read(tmp_path / name)
    assert [row["text"] for row in rows] == [first, second, *others]
    assert all(row["nearest_real"] and not row["decision"] for row in rows)
    rows[0] |= {"decision": "edit", "edit": EDITED}
    rows[1] |= {"decision": "reject", "reason": "reads like an advert", "reviewer": "bob"}
    for row in rows[2:]:
        row["decision"] = "Approve"
    write(tmp_path / name, rows)
    code, out, _ = review("--import", name, "--json")
    assert code in (0, 3) and json.loads(out)["rejections"]["review_rejected"] == 1
    assert set(pool(tmp_path)) == {EDITED, *others}
    assert {reviewer for verdict, _, reviewer in decisions(tmp_path) if verdict == "reject"} == {"bob"}


def test_with_json_stdout_holds_one_object_while_decisions_are_missing(review: Cli, tmp_path: Path) -> None:
    n = len(texts(tmp_path))
    code, out, _ = review("--export", "items.jsonl", "--json")
    assert (code, json.loads(out)) == (0, {"thread_id": "t", "path": "items.jsonl", "n_items": n})
    rows = read(tmp_path / "items.jsonl")
    rows[0]["decision"] = "approve"
    write(tmp_path / "items.jsonl", rows)
    for arguments in (["--import", "items.jsonl"], []):
        code, out, _ = review(*arguments, "--json")
        result = json.loads(out)
        assert (code, result["status"], result["review"]["approve"]) == (4, "waiting_for_review", 1)


def read(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text)))
    return [json.loads(line) for line in text.splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_file_that_decides_a_part_is_kept_and_the_rest_can_follow(review: Cli, tmp_path: Path) -> None:
    review("--export", "items.jsonl")
    rows = read(tmp_path / "items.jsonl")
    rows[0]["decision"] = "approve"
    write(tmp_path / "items.jsonl", rows)
    code, _, err = review("--import", "items.jsonl")
    assert code == 4 and f"1 of {len(rows)} items are decided" in err
    review("--export", "items.jsonl")
    rows = read(tmp_path / "items.jsonl")
    assert (rows[0]["decision"], rows[0]["reviewer"]) == ("approve", "ada")
    n_before = len(decisions(tmp_path))
    code, _, _ = review("--import", "items.jsonl")
    assert code == 4 and len(decisions(tmp_path)) == n_before  # nothing new was said
    rows[0] |= {"decision": "reject", "reason": "on second thought"}
    write(tmp_path / "items.jsonl", rows)
    review("--import", "items.jsonl", "--reviewer", "bob")
    assert decisions(tmp_path) == [("approve", None, "ada"), ("reject", "on second thought", "bob")]


def test_reviewers_who_differ_are_shown_and_the_later_counts(review: Cli, tmp_path: Path) -> None:
    review("--export", "items.jsonl")
    rows = read(tmp_path / "items.jsonl")
    for row in rows:
        row["decision"] = "approve"
    rows[0] |= {"decision": "approve", "reviewer": "ada"}
    write(tmp_path / "ada.jsonl", rows[:1])
    rows[0] |= {"decision": "reject", "reason": "no", "reviewer": "bob"}
    write(tmp_path / "bob.jsonl", rows)
    review("--import", "ada.jsonl")
    _, _, err = review("--import", "bob.jsonl")
    assert "reviewers differ (ada" in err and "bob" in err and "the later decision counts" in err
    assert rows[0]["text"] not in pool(tmp_path)
    assert len(decisions(tmp_path)) == len(rows) + 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"decision": "maybe"}, "row 1: decision: 'maybe' is none of approve, edit, reject"),
        ({"decision": "edit"}, "row 1: edit: the new text is missing"),
        ({"decision": "reject"}, "row 1: reason: say why"),
        ({"decision": "approve", "item": "0000"}, "row 1: item: item '0000' does not wait"),
        ({"decision": "approve", "item": None}, "row 1: item: missing"),
        ({"decision": "reject", "reason": 5}, "row 1: reason: must be text"),
        ({"reason": "forgot the rest"}, "row 1: decision: empty"),
    ],
)
def test_an_error_in_a_file_names_file_row_and_field_and_nothing_is_kept(
    review: Cli, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    review("--export", "items.jsonl")
    rows = read(tmp_path / "items.jsonl")
    rows[0] |= change
    rows[1]["decision"] = "approve"
    write(tmp_path / "items.jsonl", rows)
    code, out, err = review("--import", "items.jsonl")
    assert (code, out) == (2, "") and f"items.jsonl: {says}" in err
    assert decisions(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"{", "row 1: not JSON"), (b"[1]", "row 1: expected a JSON object"), (b"\xff\xfe", "not readable as UTF-8")],
)
def test_a_file_of_another_kind_is_refused(review: Cli, tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    code, _, err = review("--import", "x.jsonl")
    assert code == 2 and f"x.jsonl: {says}" in err
    assert "--export missing.jsonl" in review("--import", "missing.jsonl")[2]
    (tmp_path / "x.csv").write_text("text\nx\n", encoding="utf-8")
    assert "no column item, decision" in review("--import", "x.csv")[2]


def test_attributes_are_changed_by_keys_and_by_csv(
    cli: Cli, make_config: Callable[..., SessionConfig], tmp_path: Path
) -> None:
    config = make_config(review__attributes="every_round", limits__max_rounds=1, round_samples=8, n_samples=4)
    (tmp_path / "c.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert cli("run", str(tmp_path / "c.yaml"), "--thread-id", "t")[0] == 4
    code, _, err = cli("review", "t", keys="e\nlate parcels\n\nurgency: none\n\nq\n")
    assert code == 4 and "topic" in err and "tone" in err
    cli("review", "t", "--export", "a.csv")
    rows = read(tmp_path / "a.csv")
    assert json.loads(rows[0]["edit"]) == {"topic": "late parcels", "urgency": "none"}
    for row in rows[1:]:
        row |= {"decision": "edit", "edit": '{"mood": "calm"}'}
    rows[1]["edit"] = "calm"
    write(tmp_path / "a.csv", rows)
    code, _, err = cli("review", "t", "--import", "a.csv")
    assert code == 2 and "a.csv: row 2: edit: 'calm' is no JSON object" in err
    rows[1]["edit"] = '{"mood": "calm"}'
    write(tmp_path / "a.csv", rows)
    assert cli("review", "t", "--import", "a.csv")[0] in (0, 3)
    with Session.view("t", runs_dir=tmp_path / "runs") as session:
        prompts = [call for call in session.store.calls(node="generate") if call.state == "done"]
        assert len(prompts) == len(rows)
    written = pd.read_parquet(tmp_path / "runs" / "t" / "export" / "pool.parquet")["attributes"]
    assert {tuple(pair["name"] for pair in row) for row in written} == {("topic", "urgency"), ("mood",)}


def test_a_session_that_does_not_wait_says_so(cli: Cli, make_config: Callable[..., SessionConfig]) -> None:
    with Session.create(make_config(limits__max_rounds=1), thread_id="t") as session:
        session.run()
    code, _, err = cli("review", "t")
    assert code == 2 and "does not wait for a review (its status is finished)" in err
    assert cli("review", "t", "--export", "a", "--import", "b")[0] == 2
