"""An alignment in JSON values: distances, labels, gaps, and what a person should know before they trust them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synalign_agent.config import GatesConfig
from synalign_agent.core.alignment import Alignment, Rows, Score
from synalign_agent.core.arrays import Array
from synalign_agent.core.gap_map import Gap
from synalign_agent.core.mmd import equivalent_rows
from synalign_agent.core.strata import some_rows
from synalign_agent.data.real import RealData
from synalign_agent.errors import InputError
from synalign_agent.report.gaps import measured_gap
from synalign_agent.stores.near_duplicates import near_duplicates
from synalign_agent.toolkit.findings import Finding, listed
from synalign_agent.toolkit.sample import Sample
from synalign_agent.toolkit.table import Table
from synalign_agent.toolkit.vectors import alike_findings

_MANY_DOUBTFUL = 0.1
NOT_IN_REAL: Final = "label_not_in_real"


@dataclass(frozen=True)
class Outcome:
    """An alignment and what it was made from."""

    data: RealData
    real: Table
    synthetic: Table
    reference: Sample
    """The real rows that the weights were fitted to."""
    pool: Rows
    """The usable synthetic rows."""
    quotas: NDArray[np.int64]
    """(L,) rows wanted per label."""
    found: Alignment
    gaps: list[Gap]
    max_copies: int
    has_labels: bool

    def selected_by_label(self) -> NDArray[np.int64]:
        """Return (L,) how many rows were selected."""
        return np.bincount(self.pool.label, weights=self.found.copies, minlength=len(self.quotas)).astype(np.int64)

    def pool_by_label(self) -> NDArray[np.int64]:
        """Return (L,) how many rows there are to choose from."""
        return np.bincount(self.pool.label, minlength=len(self.quotas))


def report(outcome: Outcome) -> dict[str, Any]:
    """Return every number of an alignment; what was not measured is None."""
    data, found = outcome.data, outcome.found
    findings = list(_findings(outcome))
    return {
        "n_requested": int(outcome.quotas.sum()),
        "n_selected": int(found.copies.sum()),
        "n_distinct": int((found.copies > 0).sum()),
        "n_pool": len(outcome.pool.X),
        "n_synthetic": len(outcome.synthetic.frame),
        "n_real": len(data.rows),
        "n_held_out": int(data.held_out.sum()),
        "scored_on": data.scored_on,
        **_distances(found.score),
        "ess": found.ess,
        "p_value": found.p_value,
        "duality_gap": found.duality_gap,
        "contrast_kept": found.contrast_kept,
        "n_doubtful": int(found.doubtful.sum()),
        "n_fitted": len(outcome.reference.places),
        "sampling_excess": _sampling_excess(outcome),
        "per_label": _per_label(outcome),
        "gap_map": [_described(gap, outcome) for gap in outcome.gaps],
        "findings": [finding.as_json() for finding in findings],
        "warnings": [finding.message for finding in findings],
    }


def _distances(score: Score | None) -> dict[str, Any]:
    if score is None:
        return {
            "mmd2": dict.fromkeys(("raw", "aligned", "floor", "floor_quantile")),
            "n_eq": dict.fromkeys(("raw", "aligned", "floor")),
        }
    return {
        "mmd2": {
            "raw": float(score.raw),
            "aligned": float(score.aligned),
            "floor": score.floor_mean,
            "floor_quantile": score.floor_quantile,
        },
        "n_eq": {
            "raw": None if score.n_eq_raw is None else float(score.n_eq_raw),
            "aligned": score.n_eq_aligned,
            "floor": equivalent_rows(score.floor_mean, score.mean_kernel),
        },
    }


def _sampling_excess(outcome: Outcome) -> float:
    """Return what it costs at most, on average and in MMD2, that weights were fitted to a sample of the reference rows.

    The mean of n of N rows misses that of all by (1 / n - 1 / N) (1 - E k) in squared norm; labels are drawn independently.
    """
    data, prior = outcome.data, outcome.data.prior()
    used = np.bincount(outcome.reference.rows.label, minlength=len(prior))
    all_rows = np.bincount(data.codes[~data.held_out], minlength=len(prior))
    return float(
        sum(
            prior[code] ** 2 * (1.0 / used[code] - 1.0 / all_rows[code]) * (1.0 - score.mean_kernel)
            for code, score in outcome.found.per_label.items()
        )
    )


def _per_label(outcome: Outcome) -> dict[str, Any]:
    n_pool, n_selected = outcome.pool_by_label(), outcome.selected_by_label()
    return {
        label: {
            "n_requested": int(outcome.quotas[code]),
            "n_selected": int(n_selected[code]),
            "n_pool": int(n_pool[code]),
            "n_real": int((outcome.data.codes == code).sum()),
            **_distances(outcome.found.per_label.get(code)),
        }
        for code, label in enumerate(outcome.data.labels)
    }


def _described(gap: Gap, outcome: Outcome) -> dict[str, Any]:
    data, shown = outcome.data, outcome.reference.places[list(gap.examples)]
    return {**measured_gap(gap, data.labels), "examples": [data.rows[row].text for row in shown.tolist()]}


def _findings(outcome: Outcome) -> Iterator[Finding]:
    yield from outcome.real.findings("real")
    yield from outcome.synthetic.findings("synthetic")
    if not outcome.has_labels and "label" in outcome.real.frame and "label" in outcome.synthetic.frame:
        yield Finding(
            "labels_not_used",
            "both inputs have a field 'label' that was not used: name it as label_column to keep the labels' shares",
        )
    yield from alike_findings(outcome.reference.rows.X)
    yield from _label_findings(outcome)
    yield from _doubt_findings(outcome)
    yield from _copy_findings(outcome)
    yield from _near_duplicate_findings(outcome)
    yield from _count_findings(outcome)
    if outcome.data.scored_on != "holdout":
        which = "the distances" if outcome.data.scored_on == "reference" else "the distances of some labels"
        yield Finding(
            "no_holdout",
            f"{which} are to the real rows that the weights were fitted to, and look better than they are: nothing was held "
            "out (holdout_fraction is 0, or a label has fewer than twice min_holdout_rows, by default 40 rows)",
            {"scored_on": outcome.data.scored_on},
        )


def _label_findings(outcome: Outcome) -> Iterator[Finding]:
    data = outcome.data
    places = [place for place, reason in outcome.synthetic.left_out.items() if reason == NOT_IN_REAL]
    if places:
        yield Finding(
            NOT_IN_REAL,
            f"{len(places)} synthetic rows have a label that no real row has, and cannot be selected",
            {"count": len(places)},
        )
    shares = dict(zip(data.labels, data.prior().tolist(), strict=True))
    missing = {label: shares[label] for label, n in zip(data.labels, outcome.pool_by_label(), strict=True) if n == 0}
    if missing:
        yield Finding(
            "label_missing_in_pool",
            f"no synthetic row has the label {listed(list(missing))}, which {sum(missing.values()):.1%} of the real rows "
            "have; their mass counts as missing",
            {"labels": missing},
        )


def _doubt_findings(outcome: Outcome) -> Iterator[Finding]:
    doubtful = outcome.found.doubtful
    if doubtful.sum() > _MANY_DOUBTFUL * len(doubtful):
        counts = np.bincount(outcome.pool.label[doubtful], minlength=len(outcome.data.labels))
        by_label = {label: int(n) for label, n in zip(outcome.data.labels, counts, strict=True) if n}
        yield Finding(
            "doubtful_labels",
            f"{doubtful.sum()} synthetic rows were left aside because the real rows speak for another label than theirs "
            f"({listed(list(by_label))}); max_label_odds=None (JSON: null, command line: inf) selects them all the same",
            {"count": int(doubtful.sum()), "labels": by_label},
        )


def _copy_findings(outcome: Outcome) -> Iterator[Finding]:
    real = set(outcome.real.texts)
    is_copy = np.array([text in real for text in outcome.synthetic.texts], dtype=np.bool_)
    if is_copy.any():
        n_selected = int((outcome.found.copies[is_copy] > 0).sum())
        yield Finding(
            "copies_of_real_rows",
            f"copies of real rows, word by word: {is_copy.sum()} synthetic rows, {n_selected} of them selected; distances to "
            "real rows are smaller by them, and they are no new data",
            {"count": int(is_copy.sum()), "n_selected": n_selected},
        )


def _near_duplicate_findings(outcome: Outcome) -> Iterator[Finding]:
    """Compare with as many real rows: some data are full of near duplicates, and the result should be too."""
    rng = np.random.default_rng(0)
    selected, real = np.flatnonzero(outcome.found.copies), np.arange(len(outcome.reference.rows.X))
    n = min(len(selected), len(real))
    threshold = GatesConfig().duplicate_cosine
    count, expected = (
        _n_near_duplicates(X[some_rows(rows, n, rng)], threshold)
        for X, rows in ((outcome.pool.X, selected), (outcome.reference.rows.X, real))
    )
    if count > 2 * expected:
        yield Finding(
            "near_duplicates",
            f"of {n} selected rows, {count} are near duplicates of another one (cosine {threshold:g} or more); of as many real "
            f"rows, {expected}",
            {"count": count, "count_real": expected, "n": n, "cosine": threshold},
        )


def _n_near_duplicates(X: Array, threshold: float) -> int:
    try:
        return int((~near_duplicates(X, threshold).kept()).sum())
    except InputError:  # more pairs than can be held, so that nearly all rows are alike
        return len(X) - 1


def _count_findings(outcome: Outcome) -> Iterator[Finding]:
    labels, quotas = outcome.data.labels, outcome.quotas
    n_pool, n_selected = outcome.pool_by_label(), outcome.selected_by_label()
    no_choice = [labels[code] for code in np.flatnonzero((n_pool > 0) & (n_pool * outcome.max_copies <= quotas))]
    if no_choice:
        of = f" of label {listed(no_choice)}" if outcome.has_labels else ""
        yield Finding(
            "no_choice",
            f"all synthetic rows{of} were taken, for there are no more than are wanted: with more of them, or fewer wanted, "
            "there would be something to choose",
            {"labels": no_choice},
        )
    short = {labels[code]: int(quotas[code] - n_selected[code]) for code in np.flatnonzero(n_selected < quotas)}
    if short:
        by_label = ", ".join(f"{label!r} {count}" for label, count in list(short.items())[:5])
        of = f" (short of {by_label})" if outcome.has_labels else ""
        yield Finding(
            "fewer_rows_than_asked",
            f"selected {n_selected.sum()} of {quotas.sum()} rows{of}: write more rows, raise max_copies, or lower cap",
            {"n_requested": int(quotas.sum()), "n_selected": int(n_selected.sum()), "short": short},
        )
    n_repeats = int(outcome.found.copies.sum() - (outcome.found.copies > 0).sum())
    if n_repeats:
        yield Finding(
            "duplicates", f"{n_repeats} of {n_selected.sum()} selected rows repeat another one", {"count": n_repeats}
        )
