"""The served graphs in this process: what importing them does, and how long work is told, cancelled and kept."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from synalign_agent.errors import ConfigError, InputError
from synalign_agent.serving.alignment import AlignmentInput
from synalign_agent.serving.exploration import ExplorationInput
from synalign_agent.serving.tools import in_thread, serving_config, shared_encoder
from synalign_agent.toolkit.align import align
from synalign_agent.toolkit.explore import explore
from synalign_agent.toolkit.progress import Progress

GRAPHS = Path(__file__).resolve().parents[3] / "graphs"
TEXTS = [f"{word} {thing}" for word in ("red", "blue", "old", "new", "big") for thing in ("tent", "lamp", "pan", "rug")]


@pytest.fixture(autouse=True)
def own_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("SYNALIGN_RUNS_DIR", str(tmp_path))
    for cached in (serving_config, shared_encoder):
        cached.cache_clear()
    yield
    for cached in (serving_config, shared_encoder):
        cached.cache_clear()


def graph(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"served_{name}", GRAPHS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.graph


def test_every_option_of_the_toolkit_is_served_or_the_operator_s() -> None:
    for function, served in ((align, AlignmentInput), (explore, ExplorationInput)):
        operator_s = {"embeddings", "synthetic_embeddings", "encoder", "progress"}
        assert set(inspect.signature(function).parameters) - operator_s == set(served.__annotations__) - {"keep"}


def test_importing_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNALIGN_SERVING_CONFIG", "/nowhere/serving.yaml")
    graphs = {name: graph(name) for name in ("synthesis", "alignment", "exploration")}
    assert all(found.checkpointer is None and found.name == name for name, found in graphs.items())
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        asyncio.run(graphs["exploration"].ainvoke({"real": TEXTS, "n": 3}))


@pytest.mark.usefixtures("hash_encoder")
def test_results_are_kept_where_a_reply_cannot_hold_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "serving.yaml").write_text("max_reply_rows: 3\nmax_samples: 10\n")
    monkeypatch.setenv("SYNALIGN_SERVING_CONFIG", str(tmp_path / "serving.yaml"))
    given: dict[str, Any] = {"real": TEXTS, "synthetic": [f"{text}!" for text in TEXTS], "min_holdout_rows": 2}
    aligned = asyncio.run(graph("alignment").ainvoke({**given, "n_samples": 4, "keep": True}))
    assert aligned["selected"] == [] and aligned["report"]["n_selected"] == 4
    assert (tmp_path / "results" / aligned["result_id"] / "dataset.parquet").is_file()
    small = asyncio.run(graph("alignment").ainvoke({**given, "n_samples": 3}))
    assert len(small["selected"]) == 3 and small["result_id"] is None
    explored = asyncio.run(graph("exploration").ainvoke({"real": TEXTS, "n": 4, "keep": True}))
    assert explored["demonstrations"] == [] and explored["result_id"]
    for n, message in ((4, "set keep to true"), (11, "gives 10 rows at most")):
        with pytest.raises(InputError, match=message):
            asyncio.run(graph("alignment").ainvoke({**given, "n_samples": n}))


def test_work_is_told_and_ends_when_it_is_cancelled() -> None:
    told: list[dict[str, Any]] = []
    started, ended = threading.Event(), threading.Event()

    def work(progress: Progress) -> None:
        try:
            while True:
                progress("Working", 1, 2)
                started.set()
        finally:
            ended.set()

    async def cancel() -> None:
        run = asyncio.create_task(in_thread(work, told.append))
        await asyncio.to_thread(started.wait, 30)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(cancel())
    assert ended.wait(30)
    assert told[0] == {"stage": "Working", "done": 1, "total": 2}
