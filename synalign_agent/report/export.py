"""The dataset as files: the chosen rows and the whole pool, Parquet and JSON lines, each row with its lineage."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from synalign_agent.config import SessionConfig
from synalign_agent.records import content_id
from synalign_agent.stores import reviews
from synalign_agent.stores.base import SessionStore

_COLUMNS = (
    "text", "label", "weight", "selected", "copies", "sample_id", "round", "attributes", "demonstration_ids",
    "nearest_real_id", "nearest_similarity", "prompt", "prompt_version", "prompt_sha256", "model", "seed", "call_key",
    "edited_from",
)  # fmt: skip


def pool_frame(store: SessionStore, config: SessionConfig) -> pd.DataFrame:
    """Return the pool, one row a sample: text, label, weight, whether it was selected, and where it comes from.

    Columns bear the names in `_COLUMNS`, whatever the real data call theirs (`public_names` does that for files).
    """
    rounds = store.rounds()
    choices = {choice.sample_id: choice for choice in store.choices(rounds[-1]["round"])} if rounds else {}
    clusters = {cluster.id: cluster for cluster in store.clusters()}
    attributes = reviews.attributes_in_force(store, clusters)
    calls = {call.key: call for call in store.calls(node="generate") if call.state == "done"}
    rows: list[dict[str, Any]] = []
    for sample in reviews.pool(store):
        choice, call = choices.get(sample.id), calls[sample.call_key]
        rows.append(
            {
                "text": sample.text,
                "label": sample.label,
                "weight": choice.weight if choice else 0.0,
                "selected": bool(choice and choice.copies),
                "copies": choice.copies if choice else 0,
                "sample_id": sample.id,
                "round": sample.round,
                # Pairs, not a struct: dimensions differ between sessions, and Parquet has no empty struct.
                "attributes": [{"name": name, "value": value} for name, value in attributes[sample.cluster_id].items()],
                "demonstration_ids": list(clusters[sample.cluster_id].member_ids),
                "nearest_real_id": sample.nearest_real_id,
                "nearest_similarity": sample.nearest_similarity,
                "prompt": call.prompt,
                "prompt_version": call.prompt_version,
                "prompt_sha256": call.prompt_sha256,
                "model": call.model,
                "seed": call.seed,
                "call_key": sample.call_key,
                "edited_from": sample.edited_from,
            }
        )
    # Types are set, so that an empty pool is written like a full one.
    frame = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(
        {"selected": bool, "copies": int, "weight": float, "edited_from": "string"}
    )
    return frame


def public_names(frame: pd.DataFrame, config: SessionConfig) -> pd.DataFrame:
    """Give text and label the names that they have in the real data; a lineage column of the same name gets a prefix."""
    names = {"text": config.data.text_column}
    if config.data.label_column is None:
        frame = frame.drop(columns="label")
    else:
        names["label"] = config.data.label_column
    lineage = {name: f"synalign_{name}" for name in frame.columns if name in names.values() and name not in names}
    return frame.rename(columns={**lineage, **names})


def selected_frame(pool: pd.DataFrame) -> pd.DataFrame:
    """Return the chosen rows of a pool frame, in an order that does not sort them; a row with two copies appears twice."""
    # Pool order goes by round and label; a hash gives one that is as good as random and always the same.
    shuffled = pool.sort_values("sample_id", key=lambda ids: ids.map(lambda id: content_id("order", id)))
    return shuffled.loc[shuffled.index.repeat(shuffled["copies"])].reset_index(drop=True)


def write_dataset(folder: Path, store: SessionStore, config: SessionConfig) -> pd.DataFrame:
    """Write `dataset` and `pool` as Parquet and JSON lines into `folder`, each atomically, and return the pool frame."""
    folder.mkdir(parents=True, exist_ok=True)
    pool = pool_frame(store, config)
    for name, rows in (("dataset", selected_frame(pool)), ("pool", pool)):
        frame = public_names(rows, config)
        write_atomically(folder / f"{name}.parquet", partial(frame.to_parquet, index=False))
        write_atomically(folder / f"{name}.jsonl", partial(write_json_lines, frame))
    return pool


def write_json_lines(frame: pd.DataFrame, path: Path, **options: Any) -> None:
    """Write a table as JSON lines; without rows as an empty file, for which pandas writes a blank line that is no JSON."""
    if frame.empty:
        path.write_bytes(b"")
    else:
        frame.to_json(path, orient="records", lines=True, force_ascii=False, **options)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Have `write` fill a temporary file beside `path`, then put it in place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write(temporary)
    os.replace(temporary, path)
