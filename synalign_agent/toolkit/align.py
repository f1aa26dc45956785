"""Weigh and select synthetic rows from any source so that they match real rows, and measure how well they do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synalign_agent.config import AlignConfig
from synalign_agent.core.align import label_quotas
from synalign_agent.core.alignment import MOST_SCORED_ROWS, Alignment, Rows, align_pool
from synalign_agent.core.certificate import MAX_REAL_ROWS
from synalign_agent.core.kernels import RBFMixture, median_distance
from synalign_agent.core.pool_choice import ChoiceOptions, largest_min_ess
from synalign_agent.data.real import RealData
from synalign_agent.embedding.base import Encoder, Vectors
from synalign_agent.errors import InputError
from synalign_agent.report.gaps import find_gaps
from synalign_agent.toolkit import Objective
from synalign_agent.toolkit.align_report import NOT_IN_REAL, Outcome, report
from synalign_agent.toolkit.files import write_report, write_table
from synalign_agent.toolkit.findings import listed
from synalign_agent.toolkit.options import check_whole
from synalign_agent.toolkit.progress import Clock, Progress, silent
from synalign_agent.toolkit.sample import sample
from synalign_agent.toolkit.table import Source, Table, read_table
from synalign_agent.toolkit.vectors import Embeddings, encoded, given, make_encoder

_SCALE_STREAM, _ALIGN_STREAM, _SAMPLE_STREAM = 0, 1, 2
_MOST_FLOOR_ROWS = 3000
"""Of every label. `align_pool` uses no more, nor more than `MOST_SCORED_ROWS` for scores and `MAX_REAL_ROWS` for the fit: what
it would leave aside is not copied for it."""
_OUR_COLUMNS = ("weight", "selected", "copies", "left_out")


@dataclass(frozen=True)
class AlignResult:
    """Every synthetic row with its weight, and the numbers."""

    report: dict[str, Any]
    """Plain JSON values; what was not measured is None."""
    rows: pd.DataFrame
    """The synthetic input, row by row and field by field, and `weight` (sum 1), `selected`, `copies` (how often the row is
    in the result) and `left_out` (why a row could not be used, or None)."""

    def dataset(self) -> pd.DataFrame:
        """Return the selected rows, in input order; a row with two copies appears twice."""
        chosen = self.rows.loc[self.rows.index.repeat(self.rows["copies"])]
        return chosen.drop(columns=["selected", "copies", "left_out"]).reset_index(drop=True)

    def save(self, folder: str | Path) -> dict[str, str]:
        """Write `dataset` and `pool` as Parquet and JSON lines, and `report.json`; return their paths.

        Raises:
            InputError: the folder or a file in it cannot be written.
        """
        folder = Path(folder)
        paths: dict[str, str] = {}
        for name, frame in (("dataset", self.dataset()), ("pool", self.rows)):
            write_table(folder / f"{name}.jsonl", frame)
            paths[name] = str(write_table(folder / f"{name}.parquet", frame))
        paths["report"] = str(write_report(folder / "report.json", self.report))
        return paths


def align(
    real: Source,
    synthetic: Source,
    *,
    n_samples: int,
    objective: Objective = "kernel",
    text_column: str = "text",
    label_column: str | None = None,
    max_copies: int = 1,
    cap: float | None = None,
    min_ess: float | None = None,
    swaps: bool = True,
    contrast_shrinkage: bool = True,
    max_label_odds: float | None = 2.0,
    holdout_fraction: float = 0.2,
    min_holdout_rows: int = 20,
    seed: int = 0,
    embeddings: Embeddings | None = None,
    synthetic_embeddings: Embeddings | None = None,
    encoder: str | Encoder | None = None,
    progress: Progress | None = None,
) -> AlignResult:
    """Select `n_samples` of the synthetic rows so that their distribution is that of the real rows.

    Real rows are split: weights are fitted to one part, and every number of the report is a distance to the other, which
    nothing was fitted to. With a label column, labels get the shares that they have in the real rows.

    Args:
        real: rows to match; see `Source`.
        synthetic: rows to choose from, with the same text and label fields.
        n_samples: rows wanted, >= 1. Fewer are selected where a label has too few (`max_copies` times its rows).
        objective: how rows are weighed: `kernel`, exactly, for the least MMD; `projection`, `herding`, `thinning`, baselines to
            compare with; `none`, all alike, so that rows are drawn at random.
        text_column: field that holds the text.
        label_column: field that holds the label; None treats all rows as one group.
        max_copies: how often one row may be selected, >= 1.
        cap: largest weight of a row, as a multiple of the mean weight of the rows selected, >= 1; None for `max_copies`.
        min_ess: least effective sample size of the weights, in rows; only for `kernel`.
        swaps: whether to exchange selected rows for others where that brings the selection nearer; only for `kernel`.
        contrast_shrinkage: whether to follow what tells labels apart only as far as the real rows can tell it from chance: with
            few rows a label, noise in it misleads classifiers that are trained on the selection; only for `kernel`.
        max_label_odds: rows whose label is less probable than another by more than this factor, judged by the real rows, are not
            selected, as far as enough others are left; >= 1. None selects them all the same, and so does `none`.
        holdout_fraction: share of each label's real rows kept for scoring, in [0, 1).
        min_holdout_rows: least rows held out per label, >= 2; a label with fewer than twice as many gets no hold-out, and is
            scored on the rows that were fitted to.
        seed: of the split and of every draw.
        embeddings: vectors of the real rows; None encodes the texts.
        synthetic_embeddings: vectors of the synthetic rows, by the same encoder; given if and only if `embeddings` is.
        encoder: sentence-transformers id or path, or an `Encoder`; None is the packaged all-MiniLM-L6-v2.
        progress: told of long work.

    Returns:
        The rows with their weights, and the report.

    Raises:
        InputError: rows, vectors or options cannot be used; the message names which.
    """
    check_whole("n_samples", n_samples)
    check_whole("max_copies", max_copies)
    check_whole("seed", seed, least=0)
    options = ChoiceOptions(
        objective=objective, max_copies=max_copies, cap=cap, min_ess=min_ess, swaps=swaps,
        contrast_shrinkage=contrast_shrinkage, max_label_odds=max_label_odds,
    )  # fmt: skip
    if (embeddings is None) != (synthetic_embeddings is None):
        raise InputError(
            "give vectors for both the real and the synthetic rows, or for neither: two encoders cannot be compared"
        )
    tell = progress or silent
    clock = Clock()
    with clock.phase("read"):
        tell("Reading rows", 0, 0)
        real_table = read_table(real, name="real", text_column=text_column, label_column=label_column)
        pool_table = read_table(synthetic, name="synthetic", text_column=text_column, label_column=label_column)
        _check_real_labels(real_table, label_column)
        pool_table = _with_known_labels(pool_table, real_table)
        rows = real_table.split(holdout_fraction, min_holdout_rows, seed)
    with clock.phase("embed"):
        model, X_real, X_pool = _vectors(real_table, pool_table, embeddings, synthetic_embeddings, encoder, tell)
    data = RealData(rows, X_real)
    code_of = {label: code for code, label in enumerate(data.labels)}
    pool = Rows(X_pool, np.array([code_of[label] for label in pool_table.labels], dtype=np.int64))
    prior = data.prior()
    quotas = label_quotas(dict(zip(data.labels, prior.tolist(), strict=True)), n_samples)
    quota = np.array([quotas[label] for label in data.labels], dtype=np.int64)
    if min_ess is not None:
        _check_ess(min_ess, pool, quota, max_copies)

    def tell_labels(done: int, total: int) -> None:
        tell(*(("Scoring", 0, 0) if done == total else ("Aligning", done, total)))

    with clock.phase("align"):
        # The fit of one label has no parts that could be counted.
        tell("Aligning", 0, len(data.labels) if len(data.labels) > 1 else 0)
        draws = np.random.default_rng([seed, _SAMPLE_STREAM])
        reference = sample(data, ~data.held_out, MAX_REAL_ROWS, draws)
        scoring = sample(data, data.scores, MOST_SCORED_ROWS, draws).rows
        population = sample(data, np.ones(len(data.rows), dtype=np.bool_), _MOST_FLOOR_ROWS, draws).rows
        scale = median_distance(reference.rows.X, np.random.default_rng([seed, _SCALE_STREAM]))
        kernel = RBFMixture(tuple(scale * factor for factor in AlignConfig().lengthscale_multipliers))
        found = align_pool(
            pool, reference.rows, scoring, population, kernel, prior=prior, quotas=quota,
            scoring_is_held_out=data.scored_on == "holdout", rng=np.random.default_rng([seed, _ALIGN_STREAM]),
            options=options, progress=tell_labels,
        )  # fmt: skip
    with clock.phase("gap_map"):
        tell("Mapping gaps", 0, 0)
        gaps = find_gaps(reference.rows, scoring, pool, found.copies, kernel, prior=prior, seed=seed)
    outcome = Outcome(
        data,
        real_table,
        pool_table,
        reference,
        pool,
        quota,
        found,
        gaps,
        max_copies,
        has_labels=label_column is not None,
    )
    settings = {
        "objective": objective,
        "label_column": label_column,
        "max_copies": max_copies,
        "cap": cap,
        "min_ess": min_ess,
        "swaps": swaps,
        "contrast_shrinkage": contrast_shrinkage,
        "max_label_odds": max_label_odds,
        "holdout_fraction": holdout_fraction,
        "seed": seed,
        "encoder": model,
    }
    return AlignResult({**report(outcome), **settings, "seconds": clock.seconds()}, _frame(pool_table, found))


def _vectors(
    real: Table, pool: Table, embeddings: Embeddings | None, synthetic_embeddings: Embeddings | None,
    encoder: str | Encoder | None, tell: Progress,
) -> tuple[str | None, Vectors, Vectors]:  # fmt: skip
    """Return the encoder's id (None for the user's vectors) and the vectors of both tables."""
    if embeddings is None or synthetic_embeddings is None:
        tell("Loading the sentence encoder", 0, 0)
        model = make_encoder(encoder)
        # The pool is large and the real rows are few: a bad model shows before the long part.
        X_real = encoded(real, model, lambda done, total: tell("Embedding real rows", done, total))
        X_pool = encoded(pool, model, lambda done, total: tell("Embedding synthetic rows", done, total))
        return model.model_id, X_real, X_pool
    tell("Reading vectors", 0, 0)
    X_real, X_pool = given(embeddings, real, "embeddings"), given(synthetic_embeddings, pool, "synthetic_embeddings")
    if X_real.shape[1] != X_pool.shape[1]:
        raise InputError(
            f"embeddings have {X_real.shape[1]} dimensions and synthetic_embeddings {X_pool.shape[1]}: two encoders made them"
        )
    return None, X_real, X_pool


def _frame(table: Table, found: Alignment) -> pd.DataFrame:
    """Return the input with our columns; columns of the user that have these names get a prefix."""
    n = len(table.frame)
    weight, copies = np.zeros(n), np.zeros(n, dtype=np.int64)
    weight[table.places], copies[table.places] = found.weights, found.copies
    left_out = pd.Series([table.left_out.get(place) for place in range(n)], dtype=object)
    frame = table.frame.rename(columns=_free_names(list(table.frame.columns)))
    return frame.assign(weight=weight, selected=copies > 0, copies=copies, left_out=left_out)


def _free_names(columns: list[str]) -> dict[str, str]:
    renamed: dict[str, str] = {}
    for name in set(columns).intersection(_OUR_COLUMNS):
        new = f"input_{name}"
        while new in columns:
            new = f"input_{new}"
        renamed[name] = new
    return renamed


def _check_real_labels(table: Table, label_column: str | None) -> None:
    single = sorted(label for label, count in Counter(table.labels).items() if count < 2)
    if single:
        what = f"labels with a single real row ({listed(single)})" if label_column else "a single real row"
        raise InputError(
            f"{table.source}: {what}: nothing can be held against one row; add rows, or leave label_column out"
        )


def _check_ess(min_ess: float, pool: Rows, quotas: NDArray[np.int64], max_copies: int) -> None:
    """Refuse what no weights can have."""
    most = largest_min_ess(pool.label, quotas, max_copies)
    if not 0.0 < min_ess <= most:
        raise InputError(
            f"min_ess must be above 0 and, with these {len(pool.X)} rows, at most {most:g}, got {min_ess:g}"
        )


def _with_known_labels(pool: Table, real: Table) -> Table:
    known = set(real.labels)
    unknown = set(pool.labels) - known
    if len(unknown) == len(set(pool.labels)):
        raise InputError(
            f"no label of {pool.source} ({listed(sorted(unknown))}) is one of {real.source} ({listed(sorted(known))}): "
            "write them alike, or leave label_column out"
        )
    return pool.leaving_out(unknown, NOT_IN_REAL) if unknown else pool
