"""Pick real rows as demonstrations, and measure how much of the data they cover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synalign_agent.config import ExploreConfig
from synalign_agent.core.align import label_quotas
from synalign_agent.core.coverage import coverage_curve, radius_coverage
from synalign_agent.core.explore import (
    Cluster,
    select_by_mean_variance,
    select_by_variance,
    select_farthest,
    select_random,
    select_seeds,
)
from synalign_agent.core.kernels import RBFMixture, median_distance
from synalign_agent.core.strata import some_rows
from synalign_agent.data.real import RealData
from synalign_agent.embedding.base import Encoder, Vectors
from synalign_agent.errors import InputError
from synalign_agent.stores.vectors import kmeans_medoids, nearest_available
from synalign_agent.toolkit import Strategy
from synalign_agent.toolkit.files import TABLE_ENDINGS, write_report, write_table
from synalign_agent.toolkit.findings import Finding
from synalign_agent.toolkit.options import check_whole
from synalign_agent.toolkit.progress import Clock, Progress, silent
from synalign_agent.toolkit.table import Source, Table, read_table
from synalign_agent.toolkit.vectors import Embeddings, alike_findings, encoded, given, make_encoder

_SCALE_STREAM, _PICK_STREAM, _CHANCE_STREAM = 0, 1, 2
_RANDOM_CHOICES = 5
_MOST_CHANCE_ROWS = 100_000
"""Rows on which random choices are measured: their share is then known to 0.2 percentage points."""


@dataclass(frozen=True)
class ExploreResult:
    """Demonstrations in the order in which they were picked, and the numbers."""

    report: dict[str, Any]
    """Plain JSON values; what was not measured is None."""
    rows: pd.DataFrame
    """`pick` and `cluster` (from 1), `row` (place in the input, from 0), `text`, `label` (with a label column), `variance` (of
    `gp`: the posterior one at the pick, of the row that a cluster starts with; missing for its neighbours) and `coverage` (share
    of the real rows within the radius of this or an earlier demonstration)."""

    def save(self, path: str | Path) -> dict[str, str]:
        """Write the demonstrations to a `.jsonl`, `.csv` or `.parquet` file, or to a folder with the report.

        Returns:
            What was written -> its path.

        Raises:
            InputError: a file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() in TABLE_ENDINGS:
            return {"demonstrations": str(write_table(path, self.rows))}
        write_table(path / "demonstrations.parquet", self.rows)
        return {
            "demonstrations": str(write_table(path / "demonstrations.jsonl", self.rows)),
            "report": str(write_report(path / "report.json", self.report)),
        }


def explore(
    real: Source,
    n: int,
    *,
    strategy: Strategy = "ivr",
    cluster_size: int = 1,
    lengthscale_factor: float = ExploreConfig().lengthscale_factor,
    text_column: str = "text",
    label_column: str | None = None,
    holdout_fraction: float = 0.2,
    min_holdout_rows: int = 20,
    seed: int = 0,
    embeddings: Embeddings | None = None,
    encoder: str | Encoder | None = None,
    progress: Progress | None = None,
) -> ExploreResult:
    """Pick `n` real rows that show what the data contain.

    Held-out rows are never picked: `align` with the same rows, seed and hold-out can then score what a model wrote from the
    demonstrations on rows that the model has not seen. With a label column, every label gets its share of the picks, chosen
    by itself, and the labels take turns.

    Args:
        real: rows to pick from; see `Source`.
        n: demonstrations wanted, >= 1; fewer come back if rows run out.
        strategy: `ivr`, the row that lowers the mean posterior variance of all rows most, given the picks so far; `gp`, the
            row whose own is greatest; `random`; `kmeans`, the medoids of as many clusters; `farthest`, the row farthest from
            the picks so far.
        cluster_size: demonstrations picked together, a row and its nearest neighbours, >= 1.
        lengthscale_factor: the Gaussian process' lengthscale and the radius of coverage, as multiples of the median
            distance between two rows (of a label, and of all); > 0, and 0.5 to 1 works.
        text_column: field that holds the text.
        label_column: field that holds the label; None treats all rows as one group.
        holdout_fraction: share of each label's rows that is not picked from, in [0, 1).
        min_holdout_rows: least rows held out per label, >= 2; a label with fewer than twice as many holds none out.
        seed: of the split and of every draw.
        embeddings: vectors of the rows; None encodes the texts.
        encoder: sentence-transformers id or path, or an `Encoder`; None is the packaged all-MiniLM-L6-v2.
        progress: told of long work.

    Returns:
        The demonstrations, and the report.

    Raises:
        InputError: rows, vectors or options cannot be used; the message names which.
    """
    _check_options(n, strategy, cluster_size, lengthscale_factor, seed)
    tell = progress or silent
    clock = Clock()
    with clock.phase("read"):
        tell("Reading rows", 0, 0)
        table = read_table(real, name="real", text_column=text_column, label_column=label_column)
        split = table.split(holdout_fraction, min_holdout_rows, seed)
    with clock.phase("embed"):
        model, X = _vectors(table, embeddings, encoder, tell)
    data = RealData(split, X)
    with clock.phase("select"):
        quotas = label_quotas(dict(zip(data.labels, data.prior().tolist(), strict=True)), n)
        clusters: list[tuple[float, int, Cluster]] = []
        n_picked = 0
        for code, label in enumerate(data.labels):
            rows = data.reference_rows(code)
            wanted = min(quotas[label], len(rows))
            before = n_picked

            def tell_picks(done: int, _: int, before: int = before) -> None:
                tell("Picking rows", min(before + done * cluster_size, n), n)

            tell_picks(0, 0)
            found = _select(X[rows], wanted, strategy, cluster_size, lengthscale_factor, seed, code, tell_picks)
            clusters += _in_turns(found, rows, wanted)
            n_picked += wanted
        clusters.sort(key=lambda entry: entry[:2])
    with clock.phase("coverage"):
        tell("Measuring coverage", 0, 0)
        picks = [member for _, _, cluster in clusters for member in cluster.members]
        radius = lengthscale_factor * median_distance(X, np.random.default_rng([seed, _SCALE_STREAM]))
        curve = coverage_curve(X, picks, radius)
        chance = _coverage_by_chance(X, np.flatnonzero(~data.held_out), len(picks), radius, seed)
    frame = _frame(table, label_column, [cluster for _, _, cluster in clusters], curve)
    findings = [*table.findings("real"), *alike_findings(X), *_findings(table, label_column, n, len(picks))]
    report = {
        "n_requested": n,
        "n_selected": len(picks),
        "n_real": len(table.texts),
        "n_held_out": int(data.held_out.sum()),
        "coverage": {"explored": float(curve[-1]), "random": chance, "radius": radius},
        "per_label": {
            label: {"n_selected": int((data.codes[picks] == code).sum()), "n_real": int((data.codes == code).sum())}
            for code, label in enumerate(data.labels)
        },
        "findings": [finding.as_json() for finding in findings],
        "warnings": [finding.message for finding in findings],
        "strategy": strategy,
        "cluster_size": cluster_size,
        "lengthscale_factor": lengthscale_factor,
        "label_column": label_column,
        "holdout_fraction": holdout_fraction,
        "seed": seed,
        "encoder": model,
        "demonstrations": frame.astype(object).where(frame.notna(), None).to_dict("records"),
        "seconds": clock.seconds(),
    }
    return ExploreResult(report, frame)


def _vectors(
    table: Table, embeddings: Embeddings | None, encoder: str | Encoder | None, tell: Progress
) -> tuple[str | None, Vectors]:
    if embeddings is not None:
        tell("Reading vectors", 0, 0)
        return None, given(embeddings, table, "embeddings")
    tell("Loading the sentence encoder", 0, 0)
    model = make_encoder(encoder)
    return model.model_id, encoded(table, model, lambda done, total: tell("Embedding real rows", done, total))


def _select(
    X: Vectors, wanted: int, strategy: Strategy, cluster_size: int, factor: float, seed: int, code: int,
    progress: Callable[[int, int], None],
) -> list[Cluster]:  # fmt: skip
    """Pick clusters of one label until they hold `wanted` rows; only a posterior variance is kept as a score."""
    if wanted == 0:
        return []
    n_clusters = -(-wanted // cluster_size)
    neighbours = nearest_available(X) if cluster_size > 1 else _no_neighbours
    rng = np.random.default_rng([seed, _PICK_STREAM, code])
    if strategy == "random":
        return select_random(
            len(X), n_clusters=n_clusters, cluster_size=cluster_size, neighbours=neighbours, rng=rng
        )  # fmt: skip
    if strategy == "kmeans":
        seeds = kmeans_medoids(X, n_clusters, int(rng.integers(2**31)))
        return select_seeds(
            seeds, cluster_size=cluster_size, neighbours=neighbours, available=np.ones(len(X), dtype=np.bool_),
            n_clusters=n_clusters,
        )  # fmt: skip
    if strategy == "farthest":
        found = select_farthest(X, n_clusters=n_clusters, cluster_size=cluster_size, neighbours=neighbours)
        return [cluster._replace(score=None) for cluster in found]
    lengthscale = factor * median_distance(X, np.random.default_rng([seed, _SCALE_STREAM, code]))
    kernel = RBFMixture((lengthscale,))
    if strategy == "ivr":
        found = select_by_mean_variance(
            X, n_clusters=n_clusters, cluster_size=cluster_size, kernel=kernel, neighbours=neighbours, rng=rng,
            progress=progress,
        )  # fmt: skip
        return [cluster._replace(score=None) for cluster in found]
    return select_by_variance(
        X, n_clusters=n_clusters, cluster_size=cluster_size, kernel=kernel, neighbours=neighbours, progress=progress
    )


def _no_neighbours(row: int, k: int, available: NDArray[np.bool_]) -> NDArray[np.intp]:
    return np.zeros(0, dtype=np.intp)


def _in_turns(found: list[Cluster], rows: NDArray[np.int64], wanted: int) -> list[tuple[float, int, Cluster]]:
    """Return a label's clusters by their rows in the data, each with when its turn comes, in (0, 1)."""
    entries: list[tuple[float, int, Cluster]] = []
    left = wanted
    for position, cluster in enumerate(found):
        members = tuple(int(rows[member]) for member in cluster.members[:left])
        entries.append(((position + 0.5) / len(found), members[0], Cluster(members[0], members, cluster.score)))
        left -= len(members)
    return entries


def _coverage_by_chance(X: Vectors, allowed: NDArray[np.int64], size: int, radius: float, seed: int) -> float:
    rng = np.random.default_rng([seed, _CHANCE_STREAM])
    some = X[some_rows(np.arange(len(X)), _MOST_CHANCE_ROWS, rng)]
    shares: list[float] = []
    for _ in range(_RANDOM_CHOICES):
        chosen = X[rng.choice(allowed, size, replace=False)]
        together = np.concatenate([chosen, some])
        # The rows chosen count as covered by themselves, and are not of the sample.
        covered = radius_coverage(together, np.arange(size), radius) * len(together) - size
        shares.append(covered / len(some))
    return float(np.mean(shares))


def _frame(table: Table, label_column: str | None, clusters: list[Cluster], curve: NDArray[np.float64]) -> pd.DataFrame:
    picks = [(at, cluster, member) for at, cluster in enumerate(clusters, start=1) for member in cluster.members]
    frame = pd.DataFrame(
        {
            "pick": np.arange(1, len(picks) + 1),
            "row": [int(table.places[member]) for _, _, member in picks],
            "text": [table.texts[member] for _, _, member in picks],
            "label": [table.labels[member] for _, _, member in picks],
            "cluster": [at for at, _, _ in picks],
            "variance": [cluster.score if member == cluster.seed else None for _, cluster, member in picks],
            "coverage": curve,
        }
    ).astype({"variance": float})
    return frame if label_column else frame.drop(columns="label")


def _findings(table: Table, label_column: str | None, wanted: int, found: int) -> list[Finding]:
    findings: list[Finding] = []
    if label_column is None and "label" in table.frame:
        findings.append(
            Finding(
                "labels_not_used",
                "the rows have a field 'label' that was not used: name it as label_column to give every label its share",
            )
        )
    if found < wanted:
        findings.append(
            Finding(
                "fewer_rows_than_asked",
                f"picked {found} of {wanted} rows: there are no more that are different and not held out",
                {"n_requested": wanted, "n_selected": found},
            )
        )
    return findings


def _check_options(n: int, strategy: Strategy, cluster_size: int, lengthscale_factor: float, seed: int) -> None:
    check_whole("n", n)
    check_whole("cluster_size", cluster_size)
    check_whole("seed", seed, least=0)
    if strategy not in get_args(Strategy):
        raise InputError(f"strategy must be one of {', '.join(get_args(Strategy))}, got {strategy!r}")
    if not (np.isfinite(lengthscale_factor) and lengthscale_factor > 0):
        raise InputError(f"lengthscale_factor must be above 0, got {lengthscale_factor!r}")
