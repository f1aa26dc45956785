"""kill -9 at random points of all nodes, each followed by a resume: nothing that was finished is asked again or lost.

`SYNALIGN_CHAOS_KILLS` says at how many points (`make chaos`: 50), `SYNALIGN_CHAOS_SEED` at which.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from support.chat_server import ChatServer

from synalign_agent.config import SessionConfig

MakeConfig = Callable[..., SessionConfig]
WORKER = Path(__file__).with_name("worker.py")
NODES = ("explore", "propose_dimensions", "summarize_attributes", "generate", "screen", "align", "finish")
N_KILLS = int(os.environ.get("SYNALIGN_CHAOS_KILLS", "4"))
SEED = int(os.environ.get("SYNALIGN_CHAOS_SEED", "0"))
KILLS_PER_SESSION = 5
N_ROUNDS = 3
TIMEOUT_SECONDS = 200


def start(
    runs_dir: str, thread_id: str, config: SessionConfig | None = None, kill: Any = None
) -> subprocess.Popen[str]:
    values = None if config is None else config.model_dump(mode="json")
    job = json.dumps({"runs_dir": runs_dir, "thread_id": thread_id, "config": values, "kill": kill})
    return subprocess.Popen(
        [sys.executable, str(WORKER), job],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )


def run(*arguments: Any, **keywords: Any) -> tuple[int, str, str]:
    process = start(*arguments, **keywords)
    out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    return process.returncode, out, err


def outcome(folder: Path) -> dict[str, Any]:
    """Return what a session made: everything but times and counts of attempts."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    pool = pd.read_parquet(folder / "export" / "pool.parquet").drop(columns=["attributes", "demonstration_ids"])
    shown = (
        "stop_reason",
        "n_selected",
        "n_pool",
        "n_rounds",
        "mmd2",
        "n_eq",
        "ess",
        "per_label",
        "rejections",
        "tokens",
    )
    return {
        **{name: report[name] for name in shown},
        "rounds": [{**entry, "seconds": None, "calls": entry["calls"]["done"]} for entry in report["rounds"]],
        "pool": pool.to_dict("records"),
        "done": report["calls"]["done"],
    }


class Kept(NamedTuple):
    """What is on disk of a session. No two calls have the same seed."""

    intended: set[int]
    """Seeds of calls that the journal knows of."""
    finished: set[int]
    samples: set[str]


def kept(folder: Path) -> Kept:
    if not (folder / "session.sqlite").exists():
        return Kept(set(), set(), set())
    with closing(sqlite3.connect(folder / "session.sqlite")) as connection:
        calls = connection.execute("SELECT seed, state FROM calls").fetchall()
        return Kept(
            intended={seed for seed, _ in calls},
            finished={seed for seed, state in calls if state == "done"},
            samples={row[0] for row in connection.execute("SELECT id FROM samples")},
        )


def draw_kill(rng: random.Random, node: str) -> dict[str, Any]:
    often = {"summarize_attributes": 8, "generate": 8, "propose_dimensions": 1, "finish": 1}.get(node, 2)
    return {
        "node": node,
        "nth": rng.randint(1, often),
        "when": rng.choice(("inside", "after")),
        "delay": rng.uniform(0, 0.03),
    }


def chaos_config(make_config: MakeConfig, server: ChatServer) -> SessionConfig:
    config = make_config(
        llm__base_url=server.base_url, llm__concurrency=6, limits__max_rounds=N_ROUNDS, limits__patience_rounds=99,
        target__mmd2=-1.0, n_samples=60, round_samples=100, generate__samples_per_call=2, generate__calls_per_cluster=2,
        attributes__n_dimensions=2,
    )  # fmt: skip
    return config.model_copy(update={"attributes": config.attributes.model_copy(update={"dimensions": None})})


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_kill_costs_a_finished_call_or_a_sample(make_config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(SEED)
    waiting = [NODES[place % len(NODES)] for place in range(N_KILLS)]
    rng.shuffle(waiting)
    hits, lost, n_calls = Counter[str](), 0, 0
    with ChatServer(latency_seconds=0.02) as server:
        config = chaos_config(make_config, server)
        code, _, err = run(config.runs_dir, "undisturbed", config)
        assert code == 0, err
        expected = outcome(Path(config.runs_dir) / "undisturbed")
        while waiting:
            folder = Path(config.runs_dir) / f"killed-{hits.total()}-{len(list(Path(config.runs_dir).iterdir()))}"
            n_before, finished, samples = len(server.requests), set[int](), set[str]()
            for place in range(KILLS_PER_SESSION + 1):
                n_requests = len(server.requests)
                kill = draw_kill(rng, waiting[-1]) if waiting and place < KILLS_PER_SESSION else None
                code, out, err = run(config.runs_dir, folder.name, config, kill)
                assert code in (0, -9), err
                # No request was made for what was finished before, and none without a row in the journal.
                sent = {body["seed"] for body in server.requests[n_requests:]}
                assert not finished & sent
                assert sent <= kept(folder).intended
                now = kept(folder)
                assert samples <= now.samples
                finished, samples = now.finished, now.samples
                if code == 0:
                    break
                hits[waiting.pop()] += 1
            # A node that ran only once may be behind it: then the session ended, and the next one is killed there.
            assert code == 0
            assert outcome(folder) == expected
            result = json.loads(out)
            assert result["calls"]["repeated"] == 0
            # Each answer was either kept or counted as lost.
            assert len(server.requests) - n_before <= result["calls"]["done"] + result["calls"]["in_flight_lost"]
            lost += result["calls"]["in_flight_lost"]
            n_calls += result["calls"]["done"]
    with capsys.disabled():
        by_node = ", ".join(f"{node} {hits[node]}" for node in NODES)
        print(f"\nkilled {hits.total()} times ({by_node}); {n_calls} calls, {lost} lost in flight, 0 repeated")  # noqa: T201


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_of_processes_that_resume_one_session_at_once_one_wins(make_config: MakeConfig) -> None:
    with ChatServer(latency_seconds=0.1) as server:
        config = chaos_config(make_config, server)
        kill = {"node": "generate", "nth": 20, "when": "after", "delay": 0.0}
        assert run(config.runs_dir, "t", config, kill)[0] == -9
        finished = kept(Path(config.runs_dir) / "t").finished
        n_requests = len(server.requests)
        processes = [start(config.runs_dir, "t") for _ in range(3)]
        results = [process.communicate(timeout=TIMEOUT_SECONDS) for process in processes]
        codes = [process.returncode for process in processes]
        assert sorted(codes) == [0, 2, 2], results
        for code, (_, err) in zip(codes, results, strict=True):
            assert code == 0 or "is being run by" in err
        seeds = [body["seed"] for body in server.requests[n_requests:]]
        assert not finished & set(seeds)
        assert len(seeds) == len(set(seeds))
