"""`synalign align` and `synalign explore`: files in, files and one JSON object out, without a session."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

Cli = Callable[..., tuple[int, str, str]]
TOPICS = ("late parcel", "broken screen", "wrong invoice", "praise for staff")


@pytest.fixture
def columns() -> int:
    return 120


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hash_encoder: Any) -> None:
    """Write 160 real and 240 synthetic rows, the latter of three topics of four, and use an encoder that loads nothing."""
    for module in ("align", "explore"):
        monkeypatch.setattr(f"synalign_agent.toolkit.{module}.make_encoder", lambda encoder: hash_encoder)
    real = [{"text": f"{topic} [{n}]", "label": topic[0]} for topic in TOPICS for n in range(40)]
    pool = [{"text": f"{topic} ({n})", "label": topic[0], "id": n} for topic in TOPICS[:3] for n in range(80)]
    pd.DataFrame(real).to_json(tmp_path / "real.jsonl", orient="records", lines=True)
    pd.DataFrame(pool).to_csv(tmp_path / "pool.csv", index=False)
    np.save(tmp_path / "real.npy", np.asarray(hash_encoder.encode([row["text"] for row in real]), dtype=np.float16))
    for name, places, value in (("nan", [7], np.nan), ("zero", [3, 8], 0.0)):
        X = np.load(tmp_path / "real.npy")
        X[places] = value
        np.save(tmp_path / f"{name}.npy", X)
    (tmp_path / "empty.csv").touch()
    np.save(tmp_path / "pool.npy", hash_encoder.encode([row["text"] for row in pool]))


def test_align_prints_one_json_object_and_writes_all_rows(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("align", "real.jsonl", "pool.csv", "-n", "60", "--output", "out", "--json")
    report = json.loads(out)
    assert code == 0
    assert report.keys() >= {
        "mmd2",
        "n_eq",
        "ess",
        "per_label",
        "p_value",
        "seconds",
        "gap_map",
        "objective",
        "findings",
        "paths",
    }
    assert report["mmd2"].keys() >= {"raw", "aligned", "floor", "floor_quantile"}
    assert (report["n_requested"], report["n_selected"], report["n_pool"]) == (60, 60, 240)
    assert "the labels' shares" in err  # both files have a field `label`
    pool = pd.read_parquet(report["paths"]["pool"])
    assert len(pool) == 240 and pool["selected"].sum() == pool["copies"].sum() == 60
    assert pool["id"].tolist() == pd.read_csv(tmp_path / "pool.csv", dtype=str)["id"].tolist()
    assert len((tmp_path / "out" / "dataset.jsonl").read_text(encoding="utf-8").splitlines()) == 60
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "dataset.parquet", "dataset.jsonl", "pool.parquet", "pool.jsonl", "report.json",
    }  # fmt: skip


def test_align_shows_tables_with_the_missing_label(cli: Cli) -> None:
    code, out, err = cli("align", "real.jsonl", "pool.csv", "-n", "60", "--label-column", "label", "--output", "out")
    assert code == 0
    assert "noise floor" in out and "45 of 60 rows" in out and "What is missing" in out and "praise for staff" in out
    assert "no synthetic row has the label 'p', which 25.0% of the real rows have" in err
    assert "selected 45 of 60 rows" in err


def test_align_takes_vectors_and_options(cli: Cli) -> None:
    code, out, _ = cli(
        "align", "real.jsonl", "pool.csv", "--n-samples", "300", "--max-copies", "2", "--seed", "4", "--holdout-fraction", "0.3",
        "--embeddings", "real.npy", "--synthetic-embeddings", "pool.npy", "--output", "out", "--json",
    )  # fmt: skip
    report = json.loads(out)
    assert code == 0
    assert (report["n_selected"], report["n_held_out"], report["encoder"], report["seed"]) == (300, 48, None, 4)
    assert report["n_distinct"] < 300


@pytest.mark.parametrize("strategy", ["ivr", "gp", "random", "kmeans", "farthest"])
def test_explore_lists_demonstrations_with_coverage(cli: Cli, strategy: str) -> None:
    code, out, _ = cli("explore", "real.jsonl", "-n", "6", "--strategy", strategy, "--label-column", "label", "--json")
    report = json.loads(out)
    assert code == 0
    picks = report["demonstrations"]
    assert [row["pick"] for row in picks] == [1, 2, 3, 4, 5, 6]
    assert len({row["row"] for row in picks}) == 6 and len({row["label"] for row in picks}) == 4
    coverage = [row["coverage"] for row in picks]
    assert coverage == sorted(coverage) and coverage[-1] == report["coverage"]["explored"]


def test_explore_shows_a_table_and_writes_a_file(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("explore", "real.jsonl", "-n", "4", "--strategy", "random", "--output", "demos/picks.jsonl")
    assert code == 0
    rows = [json.loads(line) for line in (tmp_path / "demos" / "picks.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4
    assert all(row["text"] in out for row in rows) and "variance" in out and "of a demonstration" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["align", "missing.jsonl", "pool.csv", "-n", "5", "--output", "out"], "missing.jsonl: no such file"),
        (["align", "real.jsonl", "pool.csv", "-n", "5", "--text-column", "body", "--output", "out"], "no field `body`"),
        (["align", "real.jsonl", "pool.csv", "-n", "0", "--output", "out"], "n_samples"),
        (["align", "real.jsonl", "pool.csv", "-n", "5"], "Missing option '--output'"),
        (["align", "real.jsonl", "pool.csv", "-n", "5", "--output", "real.npy"], "real.npy: cannot be a folder"),
        (["align", "real.jsonl", "pool.csv", "-n", "5", "--objective", "best", "--output", "out"], "'best' is not one of"),
        (["align", "real.jsonl", "pool.csv", "-n", "5", "--embeddings", "real.npy", "--output", "out"], "or for neither"),
        (["explore", "real.jsonl", "-n", "5", "--embeddings", "pool.npy"], "pool.npy: 240 vectors for the 160 rows of"),
        (["explore", "real.jsonl", "-n", "5", "--embeddings", "nan.npy"],
         "nan.npy: the vectors of 1 rows are not finite: rows 7"),
        (["explore", "real.jsonl", "-n", "5", "--embeddings", "zero.npy"],
         "zero.npy: the vectors of 2 rows are all zeros: rows 3, 8"),
        (["align", "real.jsonl", "pool.csv", "-n", "5", "--output", "out", "--embeddings", "real.npy", "--synthetic-embeddings",
          "real.npy"], "real.npy: 160 vectors for the 240 rows of pool.csv"),
        (["explore", "empty.csv", "-n", "5"], "empty.csv: no rows"),
        (["align", "real.jsonl", "empty.csv", "-n", "5", "--output", "out"], "empty.csv: no rows"),
        (["explore", "real.jsonl", "-n", "5", "--strategy", "best"], "'best' is not one of"),
        (["explore", "real.jsonl", "-n", "5", "--label-column", "class"], "no field `class`"),
    ],
)  # fmt: skip
def test_bad_usage_is_exit_2_with_a_sentence(cli: Cli, arguments: list[str], says: str, tmp_path: Path) -> None:
    code, out, err = cli(*arguments)
    assert code == 2
    assert says in " ".join(err.replace("│", " ").split())
    assert out == ""
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.slow
def test_an_interrupt_is_exit_130_and_writes_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = pd.DataFrame({"text": [f"row {n}" for n in range(12_000)]})
    texts.to_json(tmp_path / "many.jsonl", orient="records", lines=True)
    np.save(tmp_path / "many.npy", rng.normal(size=(12_000, 64)))
    done = subprocess.Popen(
        [sys.executable, "-m", "synalign_agent", "align", "many.jsonl", "many.jsonl", "-n", "6000", "--embeddings", "many.npy",
         "--synthetic-embeddings", "many.npy", "--output", "out"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # What a shell starts in the background ignores the signal, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert done.stderr is not None
    for line in done.stderr:
        if line.startswith("Aligning"):
            break
    time.sleep(0.2)
    done.send_signal(signal.SIGINT)
    out, err = done.communicate(timeout=120)
    assert done.returncode == 130
    assert out == "" and "interrupted; nothing was written" in err and "Traceback" not in err
    assert list((tmp_path / "out").iterdir()) == []
