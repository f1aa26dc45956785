"""Write everything that a finished, or paused, session shows: dataset, card, report."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from synalign_agent.config import SessionConfig
from synalign_agent.data.real import RealData
from synalign_agent.report.analysis import analyse
from synalign_agent.report.card import render_card
from synalign_agent.report.export import write_atomically, write_dataset
from synalign_agent.report.html import render_report
from synalign_agent.report.lineage import named_real_rows, sample_lineage
from synalign_agent.report.map_figure import MapPoint
from synalign_agent.report.map_points import map_points
from synalign_agent.report.summary import REPORT, read_ledger, summarize
from synalign_agent.report.verdict import label_name, verdict
from synalign_agent.stores.base import SessionStore
from synalign_agent.stores.reviews import attributes_in_force
from synalign_agent.stores.vectors import VectorStore

_EXAMPLES = 5
_NEAREST_PAIRS = 50
_CLUSTERS = 50


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
    clusters = store.clusters()
    attributes = attributes_in_force(store, [cluster.id for cluster in clusters])
    # An export may look at a session that goes on: a sample of this moment may have no vector yet.
    embedded = pool.loc[[id in pool_vectors for id in pool["sample_id"]]]
    analysis = analyse(folder, store, config, real, real_vectors, pool_vectors, embedded, attributes)
    document = {
        **summary,
        "verdict": verdict(summary, analysis["gap_map"]),
        "rounds": rounds,
        "ledger": ledger,
        **analysis,
        "config_fingerprint": config.fingerprint(),
    }
    write_atomically(
        folder / "report.json",
        lambda path: path.write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8"),
    )
    points = map_points(real, real_vectors, pool_vectors, embedded)
    nearest = pool.loc[pool["selected"]].sort_values("nearest_similarity", ascending=False, kind="stable")
    nearest = nearest.head(_NEAREST_PAIRS)
    page = render_report(
        summary=summary,
        rounds=rounds,
        ledger=ledger,
        analysis=analysis,
        points=points,
        lineage=_lineage(store, real, pool, points, nearest),
        rejection_examples=_rejection_examples(store),
        samples=[
            {
                "sample_id": row["sample_id"],
                "text": row["text"],
                "label": label_name(row["label"]),
                "weight": row["weight"],
                "nearest_real_text": real.texts([row["nearest_real_id"]])[0],
                "nearest_similarity": row["nearest_similarity"],
            }
            for row in nearest.to_dict("records")
        ],
        attributes=[
            {
                "label": label_name(cluster.label),
                "attributes": attributes[cluster.id],
                "demonstrations": real.texts(cluster.member_ids),
            }
            for cluster in clusters[:_CLUSTERS]
        ],
        config_yaml=config.to_yaml(),
        task=config.task,
    )
    write_atomically(folder / REPORT, lambda path: path.write_text(page, encoding="utf-8"))


def _lineage(
    store: SessionStore, real: RealData, pool: pd.DataFrame, points: list[MapPoint], nearest: pd.DataFrame
) -> dict[str, Any]:
    """Return the lineage of the samples on the map and in the copy check."""
    shown = {point.sample_id for point in points} | set(nearest["sample_id"])
    rows = pool.loc[pool["sample_id"].isin(shown)].to_dict("records")
    texts = {id: real.rows[real.position[id]].text for id in named_real_rows(rows)}
    edited = {row["edited_from"] for row in rows if isinstance(row["edited_from"], str)}
    before = {sample.id: sample.text for sample in store.samples() if sample.id in edited} if edited else {}
    return sample_lineage(rows, texts, rewritten=before)


def _rejection_examples(store: SessionStore) -> dict[str, list[tuple[str, str]]]:
    examples: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for rejection in store.rejections():
        if len(examples[rejection.reason]) < _EXAMPLES:
            examples[rejection.reason].append((rejection.text, rejection.detail))
    return {reason: examples[reason] for reason in store.rejection_counts()}
