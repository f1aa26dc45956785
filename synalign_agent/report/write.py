"""Write everything that a finished, or paused, session shows: dataset, card, report."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from synalign_agent.config import SessionConfig
from synalign_agent.data.real import RealData
from synalign_agent.report.card import render_card
from synalign_agent.report.export import write_atomically, write_dataset
from synalign_agent.report.figures import MapPoint, project_2d
from synalign_agent.report.html import render_report
from synalign_agent.report.summary import REPORT, read_ledger, summarize
from synalign_agent.stores.base import SessionStore
from synalign_agent.stores.reviews import attributes_in_force
from synalign_agent.stores.reviews import pool as reviewed_pool
from synalign_agent.stores.vectors import VectorStore

_MAP_POINTS = 1500
_EXAMPLES = 5
_NEAREST_PAIRS = 50


def write_outputs(
    folder: Path,
    store: SessionStore,
    config: SessionConfig,
    real: RealData,
    real_vectors: VectorStore,
    pool_vectors: VectorStore,
    *,
    status: str = "finished",
) -> None:
    """Write `export/`, `report.json` and `report.html`; each file is replaced as a whole."""
    export = folder / "export"
    pool = write_dataset(export, store, config)
    (folder / REPORT).touch()  # the summary names only files that exist, and the page is made from the summary
    summary = summarize(folder, store, status=status)
    rounds = store.rounds()
    write_atomically(export / "README.md", lambda path: path.write_text(render_card(summary, config), encoding="utf-8"))
    ledger = read_ledger(store)
    document = {**summary, "rounds": rounds, "ledger": ledger, "config_fingerprint": config.fingerprint()}
    write_atomically(
        folder / "report.json",
        lambda path: path.write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8"),
    )
    selected = pool.loc[pool["selected"]].sort_values("nearest_similarity", ascending=False, kind="stable")
    page = render_report(
        summary=summary,
        rounds=rounds,
        ledger=ledger,
        points=_map_points(store, real, real_vectors, pool_vectors, set(selected["sample_id"])),
        rejection_examples=_rejection_examples(store),
        samples=[
            {
                "text": row["text"],
                "label": row["label"] if config.data.label_column else "",
                "weight": row["weight"],
                "nearest_real_text": real.texts([row["nearest_real_id"]])[0],
                "nearest_similarity": row["nearest_similarity"],
            }
            for row in selected.head(_NEAREST_PAIRS).to_dict("records")
        ],
        attributes=[
            {
                "label": cluster.label,
                "attributes": attributes_in_force(store, cluster.id),
                "demonstrations": real.texts(cluster.member_ids),
            }
            for cluster in store.clusters()[:_NEAREST_PAIRS]
        ],
        config_yaml=config.to_yaml(),
    )
    write_atomically(folder / REPORT, lambda path: path.write_text(page, encoding="utf-8"))


def _map_points(
    store: SessionStore, real: RealData, real_vectors: VectorStore, pool_vectors: VectorStore, selected: set[str]
) -> list[MapPoint]:
    rng = np.random.default_rng(0)
    # An export may look at a session that goes on: a sample of this moment may have no vector yet.
    samples = [sample for sample in reviewed_pool(store) if sample.id in pool_vectors]
    real_shown = [real.rows[place] for place in _some(rng, len(real.rows))]
    pool_shown = [samples[place] for place in _some(rng, len(samples))]
    projected = project_2d(
        real_vectors.get([row.id for row in real_shown]), [pool_vectors.get([sample.id for sample in pool_shown])]
    )
    points = [
        MapPoint(x=float(xy[0]), y=float(xy[1]), group="real", label=row.label, text=row.text, detail=row.split)
        for row, xy in zip(real_shown, projected[0], strict=True)
    ]
    points += [
        MapPoint(
            x=float(xy[0]), y=float(xy[1]), group="selected" if sample.id in selected else "pool", label=sample.label,
            text=sample.text, detail=f"round {sample.round}, cosine to nearest real row {sample.nearest_similarity:.2f}",
        )
        for sample, xy in zip(pool_shown, projected[1], strict=True)
    ]  # fmt: skip
    return points


def _some(rng: np.random.Generator, n: int) -> list[int]:
    return [int(place) for place in np.sort(rng.permutation(n)[:_MAP_POINTS])]


def _rejection_examples(store: SessionStore) -> dict[str, list[tuple[str, str]]]:
    examples: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for rejection in store.rejections():
        if len(examples[rejection.reason]) < _EXAMPLES:
            examples[rejection.reason].append((rejection.text, rejection.detail))
    return {reason: examples[reason] for reason in store.rejection_counts()}
