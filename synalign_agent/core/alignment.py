"""Weigh, resample and score a pool of synthetic rows, label by label.

Within each label the weights minimise the MMD to the reference rows (`align.fit_weights`); the labels' masses are a prior.
Scores are taken to rows that the weights never saw, at the size of the result: every distance here is that of a set of
`n_selected` rows to the population that the scoring rows come from (`mmd.mmd2_to_population`), so that raw, aligned and
floor can be compared with each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from synalign_agent.core.align import fit_weights
from synalign_agent.core.arrays import FloatArray, IntArray
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.mmd import equivalent_rows, mean_kernel, mmd2_to_population, witness
from synalign_agent.core.mmd_null import permutation_p_value, real_floor
from synalign_agent.core.resample import effective_sample_size, systematic


class Rows(NamedTuple):
    """Embedded rows with integer labels."""

    X: FloatArray
    """(n, d), unit norm."""
    label: IntArray
    """(n,), 0 <= label < number of labels."""

    def of(self, label: int) -> Rows:
        """Return the rows of one label."""
        keep = self.label == label
        return Rows(self.X[keep], self.label[keep])


@dataclass(frozen=True, slots=True)
class Score:
    """Distances of a selection to the population of the scoring rows."""

    raw: float
    """Expected MMD2 of as many rows drawn at random from the pool, label by label."""
    aligned: float
    floor_mean: float
    """Expected MMD2 of as many real rows."""
    floor_quantile: float
    """The (1 - alpha) quantile of the same."""
    mean_kernel: float
    """E k(x, x') over real pairs."""

    @property
    def n_eq_raw(self) -> float | None:
        """Number of real rows that would score like the raw pool; None when the distance is not above 0."""
        return equivalent_rows(self.raw, self.mean_kernel)

    @property
    def n_eq_aligned(self) -> float | None:
        """Number of real rows that would score like the selection."""
        return equivalent_rows(self.aligned, self.mean_kernel)


@dataclass(frozen=True, slots=True)
class Alignment:
    """What the aligner decided about a pool, and how good it is."""

    weights: FloatArray
    """(m,) sampling weights over the whole pool, sum 1."""
    copies: IntArray
    """(m,) how often each row is in the result."""
    score: Score | None
    """None while the pool is empty."""
    per_label: dict[int, Score]
    """Labels that have selected rows."""
    p_value: float | None
    """Permutation test of the selection against the scoring rows; None where its conditions fail."""
    ess: float
    duality_gap: float
    """The largest of the labels' gaps."""
    witness: FloatArray
    """(n_reference,) positive where real mass is missing from the selection, within the row's label."""


def align_pool(
    pool: Rows,
    reference: Rows,
    scoring: Rows,
    population: Rows,
    kernel: Kernel,
    *,
    prior: FloatArray,
    quotas: IntArray,
    scoring_is_held_out: bool,
    rng: np.random.Generator,
    max_copies: int = 1,
    alpha: float = 0.05,
    tolerance: float = 1e-6,
) -> Alignment:
    """Fit weights, resample to the quotas without more than `max_copies` of a row, and score the result.

    Args:
        pool: (m, d) synthetic rows.
        reference: (n, d) real rows that the weights are fitted to.
        scoring: (h, d) real rows for scores; the reference itself where there is no hold-out.
        population: (N, d) all real rows at hand, from which the floor draws its real-vs-real comparisons.
        kernel: with k(x, x) = 1.
        prior: (L,) label masses, sum 1.
        quotas: (L,) rows wanted per label; a label with fewer pool rows gives what it has.
        scoring_is_held_out: whether the p-value is valid.
        rng: for resampling and null distributions.
        max_copies: largest number of copies of one row, also the cap of the weights.
        alpha: tail probability of the floor's quantile.
        tolerance: duality gap of the weights.

    Returns:
        Weights, copies and scores; labels without pool rows are absent from `per_label`, and their mass counts as missing.
    """
    n_selected = np.array(
        [min(int(quota), max_copies * int((pool.label == label).sum())) for label, quota in enumerate(quotas)]
    )
    weights, copies = np.zeros(len(pool.X)), np.zeros(len(pool.X), dtype=np.int64)
    largest_gap = 0.0
    for label in np.flatnonzero(n_selected).tolist():
        rows, n = np.flatnonzero(pool.label == label), int(n_selected[label])
        fitted = fit_weights(pool.X[rows], reference.of(label).X, kernel, cap=max_copies / n, tolerance=tolerance)
        copies[rows] = systematic(fitted.w, n, rng)
        weights[rows] = fitted.w * n / n_selected.sum()
        largest_gap = max(largest_gap, fitted.duality_gap)

    score = _score(pool, copies, scoring, population, kernel, prior, n_selected, alpha, rng)
    per_label: dict[int, Score] = {}
    for label in np.flatnonzero(n_selected).tolist():
        # A single label, its rows renumbered as stratum 0.
        parts = [
            Rows(part.of(label).X, np.zeros(len(part.of(label).X), dtype=np.int64))
            for part in (pool, scoring, population)
        ]
        alone = _score(
            parts[0],
            copies[pool.label == label],
            parts[1],
            parts[2],
            kernel,
            np.ones(1),
            n_selected[[label]],
            alpha,
            rng,
        )
        if alone is not None:
            per_label[label] = alone
    return Alignment(
        weights=weights,
        copies=copies,
        score=score,
        per_label=per_label,
        p_value=_p_value(pool, copies, scoring, kernel, prior, rng) if scoring_is_held_out else None,
        ess=effective_sample_size(weights) if n_selected.any() else 0.0,
        duality_gap=largest_gap,
        witness=_witness(pool, copies, reference, kernel),
    )


def _score(
    pool: Rows, copies: IntArray, scoring: Rows, population: Rows, kernel: Kernel, prior: FloatArray,
    n_selected: IntArray, alpha: float, rng: np.random.Generator,
) -> Score | None:  # fmt: skip
    total = int(n_selected.sum())
    if total == 0:
        return None
    real_weights = _label_weights(scoring.label, prior)
    present = prior > 0
    selected = copies > 0
    aligned = mmd2_to_population(
        pool.X[selected], scoring.X, kernel, syn_weights=copies[selected] / total,
        real_weights=real_weights, real_strata=scoring.label,
    )  # fmt: skip
    shares = n_selected / total
    raw = mmd2_to_population(
        pool.X, scoring.X, kernel, syn_weights=_label_weights(pool.label, shares),
        real_weights=real_weights, real_strata=scoring.label,
    )  # fmt: skip
    # The pool is larger than the selection. A random selection of n of its m rows is on average farther away by exactly
    # this much: drawing without replacement moves 1/m of the within-label diagonal to 1/n.
    for label in np.flatnonzero(n_selected).tolist():
        X = pool.of(label).X
        if n_selected[label] < len(X):
            raw += shares[label] ** 2 * (1 - mean_kernel(X, kernel)) * (1 / n_selected[label] - 1 / len(X))
    counted = {int(label): float(max(n_selected[label], 1)) for label in np.flatnonzero(present)}
    n_scoring = {int(label): float((scoring.label == label).sum()) for label in np.flatnonzero(present)}
    inside = np.isin(population.label, list(counted))
    floor = real_floor(
        population.X[inside], kernel, n_syn=counted, n_real=n_scoring, rng=rng, strata=population.label[inside],
        masses={int(label): float(prior[label]) for label in np.flatnonzero(present)}, alpha=alpha,
    )  # fmt: skip
    return Score(
        raw, aligned, floor.mean, floor.quantile,
        mean_kernel(scoring.X, kernel, weights=real_weights, strata=scoring.label),
    )  # fmt: skip


def _p_value(
    pool: Rows, copies: IntArray, scoring: Rows, kernel: Kernel, prior: FloatArray, rng: np.random.Generator
) -> float | None:
    if copies.max(initial=0) != 1 or set(pool.label[copies > 0]) != set(scoring.label):
        return None  # the test holds for distinct rows of the same labels
    present = np.unique(scoring.label)
    return permutation_p_value(
        pool.X[copies == 1], scoring.X, kernel, rng=rng, syn_strata=pool.label[copies == 1], real_strata=scoring.label,
        masses={int(label): float(prior[label]) for label in present},
    )  # fmt: skip


def _witness(pool: Rows, copies: IntArray, reference: Rows, kernel: Kernel) -> FloatArray:
    values = np.zeros(len(reference.X))
    for label in np.unique(reference.label):
        rows = np.flatnonzero(reference.label == label)
        X = reference.X[rows]
        chosen = (pool.label == label) & (copies > 0)
        if chosen.any():
            values[rows] = witness(X, X, pool.X[chosen], kernel, syn_weights=copies[chosen] / copies[chosen].sum())
        else:
            values[rows] = kernel(X, X).mean(axis=1)
    return values


def _label_weights(labels: IntArray, masses: FloatArray) -> FloatArray:
    """Spread each label's mass evenly over its rows; masses of labels without rows are lost, so scale to sum 1."""
    counts = np.bincount(labels, minlength=len(masses))
    weights: FloatArray = masses[labels] / counts[labels]
    normalised: FloatArray = weights / weights.sum()
    return normalised
