"""The engine against a loopback server: how much longer than the endpoint's own time does a round of generation take?

`python -m evals.bench.engine [--peers FOLDER]`, where FOLDER holds virtual environments named `curator` and `distilabel` with
those packages installed. Every measurement is a process of its own, and the server another one. Writes `engine.json` and
`engine.md` beside the other results.

Two spans are measured. At the endpoint, the same for everybody: from the arrival of the first request to the last answer. In
the client, what its user waits for once it is set up: of ours a round of the graph from the node that plans the calls to the
end of the screening, with fan-out, checkpoints, rendering, journal (intent and outcome of each call on disk), requests, parsing,
gates and embedding; of Curator one call of its LLM over a list of prompts; of distilabel `Pipeline.run`, which starts its
processes. CPU is that of the client's span for ours and of the whole process, imports included, for the others.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from evals import machine

LATENCY_SECONDS = 0.1
_ROOT = Path(__file__).resolve().parents[2]
_PROBLEMS = ((500, 50, "fake"), (500, 50, "real"), (2_000, 200, "fake"), (10_000, 200, "fake"))
_PEERS = ("distilabel", "curator")
_REPEATS = 3
_ONCE_FROM = 10_000


class HashEncoder:
    """Vectors by hashed words: what an encoder costs besides its model."""

    model_id = "bench-hash"

    def encode(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Any:
        rows = np.full((len(texts), 384), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.split():
                digest = hashlib.blake2b(word.encode(), digest_size=4).digest()
                rows[row, int.from_bytes(digest[:2], "big") % 384] += 1 if digest[2] % 2 else -1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@contextmanager
def server() -> Iterator[str]:
    """Start the loopback server and yield its URL."""
    command = [sys.executable, str(Path(__file__).with_name("loopback.py")), "--latency-seconds", str(LATENCY_SECONDS)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def measure(url: str, n: int, parallel: int, encoder: str) -> dict[str, Any]:
    """Run one round with `n` generation calls in this process and return its figures."""
    from synalign_agent import graph, wiring
    from synalign_agent.config import SessionConfig
    from synalign_agent.embedding.cache import CachedEncoder
    from synalign_agent.session import Session

    folder = Path(tempfile.mkdtemp())
    os.environ["SYNALIGN_CACHE_DIR"] = str(folder / "cache")
    if encoder == "fake":
        wiring.make_encoder = lambda *_: CachedEncoder(HashEncoder())
    times: dict[str, tuple[float, float, int]] = {}

    def stamp(name: str) -> None:
        times[name] = time.perf_counter(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    plan_calls, generate_tasks, screen = graph.plan_calls, graph.generate_tasks, graph.screen

    def started(state: Any) -> Any:
        stamp("start")
        return plan_calls(state)

    async def screened(state: Any, deps: Any) -> Any:
        stamp("replies")
        result = await screen(state, deps)
        stamp("end")
        return result

    def exactly(cluster_ids: Sequence[str], n_draws: int) -> Any:
        return generate_tasks(cluster_ids[: n // n_draws], n_draws)

    graph.plan_calls, graph.screen, graph.generate_tasks = started, screened, exactly  # type: ignore[assignment]
    draws = max(10, n // 50)
    config = SessionConfig.parse(
        {
            "data": {"path": "example:customer_messages"},
            "n_samples": 50,
            "round_samples": n + draws * 10,
            "runs_dir": str(folder / "runs"),
            "llm": {"base_url": url, "model": "bench", "concurrency": parallel, "structured_output": "auto"},
            "generate": {"samples_per_call": 1, "calls_per_cluster": draws, "demonstrations": "prompt"},
            "attributes": {"enabled": False},
            "align": {"oversampling": 3 * (n + draws * 10) / 50},
            "gates": {"label_check": {"method": "nearest"}},
            "limits": {"max_rounds": 1},
            "target": {"mmd2": -1.0},
        }
    )

    async def run() -> None:
        with Session.create(config, thread_id="bench") as session:
            try:
                await session.arun()
            finally:
                times["n"] = (session.store.call_totals().done, 0.0, 0)
                times["bytes"] = (sum(f.stat().st_size for f in session.folder.rglob("*") if f.is_file()), 0.0, 0)

    asyncio.run(run())
    (wall, cpu, memory), (replies, _, _), (end, cpu_end, memory_end) = times["start"], times["replies"], times["end"]
    assert times["n"][0] == n, times["n"]
    return {
        "seconds": end - wall,
        "seconds_to_last_reply": replies - wall,
        "cpu_seconds": cpu_end - cpu,
        "memory_growth_mb": (memory_end - memory) / 1024,
        "session_mb": times["bytes"][0] / 1e6,
    }


def _run(command: Sequence[str]) -> dict[str, Any]:
    with server() as url:
        busy = machine.busy_seconds()
        started = time.perf_counter()
        done = subprocess.run(
            [*command[:-2], url, *command[-2:]], cwd=_ROOT, capture_output=True, text=True, timeout=280, check=False
        )
        seconds, busy = time.perf_counter() - started, machine.busy_seconds() - busy
        with urllib.request.urlopen(f"{url}/span") as reply:
            span = json.load(reply)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        return {"not_run": ((done.stderr or done.stdout).strip().splitlines() or ["no output"])[-1]}
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return {**found, "endpoint_seconds": span["seconds"], "busy_cores": busy / seconds}


def main() -> None:
    """Measure, print a Markdown table and write it with all runs; the table shows the fastest run of each line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, help="folder with the peers' virtual environments")
    parser.add_argument("--only", type=int, help="problem size, to run one alone")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("results"), help="folder of the results"
    )
    parser.add_argument("--measure", nargs=4, metavar=("ENCODER", "URL", "N", "PARALLEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        encoder, url, n, parallel = options.measure
        print("RESULT " + json.dumps(measure(url, int(n), int(parallel), encoder)), flush=True)
        return
    problems: list[tuple[str, int, int, list[str]]] = [
        (
            f"synalign, {encoder} encoder",
            n,
            parallel,
            [sys.executable, "-m", "evals.bench.engine", "--measure", encoder],
        )
        for n, parallel, encoder in _PROBLEMS
    ]
    script = str(Path(__file__).with_name("engine_peers.py"))
    for peer in _PEERS if options.peers else ():
        if (python := options.peers / peer / "bin" / "python").exists():
            problems.insert(1, (peer, *_PROBLEMS[0][:2], [str(python), script, peer]))
    results: list[dict[str, Any]] = []
    chosen = [problem for problem in problems if options.only in (None, problem[1])]
    # Round by round, so that a busy minute does not fall on one of them alone.
    for repeat in range(_REPEATS):
        for place, (name, n, parallel, command) in enumerate(chosen):
            if repeat == 0:
                results.append({"name": name, "n": n, "parallel": parallel, "runs": []})
            if repeat == 0 or n < _ONCE_FROM:
                results[place]["runs"].append(_run([*command, str(n), str(parallel)]))
    table = "\n".join([_HEAD, *map(_row, results)]) + "\n"
    print(table)
    options.output.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine.describe(), "latency_seconds": LATENCY_SECONDS, "results": results}
    (options.output / "engine.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (options.output / "engine.md").write_text(table, encoding="utf-8")


_HEAD = (
    "| | prompts | in parallel | ideal, s | at the endpoint, s | in the client, s | CPU, ms a call | memory growth, MB |\n"
    "|---|---|---|---|---|---|---|---|"
)


def _row(result: dict[str, Any]) -> str:
    n, parallel = result["n"], result["parallel"]
    head = f"| {result['name']} | {n:,} | {parallel} | {n / parallel * LATENCY_SECONDS:.1f} |"
    good = [run for run in result["runs"] if "seconds" in run]
    if not good:
        return f"{head} not run: {result['runs'][0]['not_run']} | | | |"
    best = min(good, key=lambda run: float(run["seconds"]))
    memory = f"{best['memory_growth_mb']:.0f}" if "memory_growth_mb" in best else "not measured"
    return f"{head} {best['endpoint_seconds']:.2f} | {best['seconds']:.2f} | {1e3 * best['cpu_seconds'] / n:.2f} | {memory} |"


if __name__ == "__main__":
    main()
