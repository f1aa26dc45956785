"""Which rows are on the map, and where."""

from __future__ import annotations

import numpy as np
import pandas as pd

from synalign_agent.core.arrays import FloatArray
from synalign_agent.core.strata import some_rows
from synalign_agent.data.real import RealData
from synalign_agent.report.layout import neighbourhoods, project_2d
from synalign_agent.report.map_figure import MapPoint
from synalign_agent.report.verdict import label_name
from synalign_agent.stores.vectors import VectorStore

MOST_POINTS = 750
"""Of real and of synthetic rows each: the page stays small, and t-SNE takes seconds."""


def map_points(
    real: RealData, real_vectors: VectorStore, pool_vectors: VectorStore, pool: pd.DataFrame
) -> list[MapPoint]:
    """Place a seeded sample of the real rows and of the pool, half of which are selected rows if there are so many.

    Args:
        real: the real rows.
        real_vectors: their vectors.
        pool_vectors: vectors of the pool.
        pool: the pool frame (see `report/export.py`), of rows that have vectors.
    """
    rng = np.random.default_rng(0)
    is_selected = pool["selected"].to_numpy(dtype=bool)
    n_selected = min(int(is_selected.sum()), max(MOST_POINTS // 2, MOST_POINTS - int((~is_selected).sum())))
    shown = np.sort(
        np.concatenate(
            [
                some_rows(np.flatnonzero(is_selected), n_selected, rng),
                some_rows(np.flatnonzero(~is_selected), MOST_POINTS - n_selected, rng),
            ]
        )
    )
    synthetic = pool.iloc[shown].to_dict("records")
    real_shown = [real.rows[place] for place in some_rows(np.arange(len(real.rows)), MOST_POINTS, rng).tolist()]
    vectors = real_vectors.get([row.id for row in real_shown])
    others = [pool_vectors.get([row["sample_id"] for row in synthetic])]
    directions = project_2d(vectors, others)
    near = neighbourhoods(vectors, others)
    points = [
        MapPoint(
            x=float(directions[0][place, 0]), y=float(directions[0][place, 1]), group="real", label=label_name(row.label),
            text=row.text, detail=row.split, neighbourhood=None if near is None else _pair(near[0][place]),
        )
        for place, row in enumerate(real_shown)
    ]  # fmt: skip
    points += [
        MapPoint(
            x=float(directions[1][place, 0]), y=float(directions[1][place, 1]),
            group="selected" if row["selected"] else "pool", label=label_name(row["label"]), text=row["text"],
            detail=f"round {row['round']}, cosine to nearest real row {row['nearest_similarity']:.2f}",
            sample_id=row["sample_id"], neighbourhood=None if near is None else _pair(near[1][place]),
        )
        for place, row in enumerate(synthetic)
    ]  # fmt: skip
    return points


def _pair(place: FloatArray) -> tuple[float, float]:
    return float(place[0]), float(place[1])
