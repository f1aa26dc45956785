"""Weigh, resample and score a pool of synthetic rows, label by label.

Within each label the weights minimise the MMD to the reference rows (`align.fit_weights`); the labels' masses are a prior.
Scores are taken to rows that the weights never saw, at the size of the result: every distance here is that of a set of
`n_selected` rows to the population that the scoring rows come from (`mmd.mmd2_to_population`), so that raw, aligned and
floor can be compared with each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from synalign_agent.core.arrays import FloatArray, IntArray
from synalign_agent.core.block_sums import BLOCK_ROWS, weighted_means
from synalign_agent.core.cross_mmd import cross_mmd_test
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.mmd import equivalent_rows, mean_kernel, mmd2_to_population, witness
from synalign_agent.core.mmd_null import permutation_p_value, real_floor
from synalign_agent.core.pool_choice import DEFAULT_OPTIONS, ChoiceOptions, PoolChoice, choose_rows
from synalign_agent.core.pool_choice import Rows as Rows
from synalign_agent.core.resample import effective_sample_size
from synalign_agent.core.strata import some_of_strata, some_rows

MOST_SCORED_ROWS = 20_000
_MOST_PERMUTED_ROWS = 3000
_LEAST_CROSS_ROWS = 3
_LEAST_WITNESS_ROWS = 2000
_MOST_WITNESS_PAIRS = 10**9


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
class Alignment(PoolChoice):
    """What was chosen of a pool, and how good it is."""

    score: Score | None
    """None while the pool is empty."""
    per_label: dict[int, Score]
    """Labels that have selected rows."""
    p_value: float | None
    """Permutation test of the selection against the scoring rows; None where its conditions fail."""
    ess: float
    """Effective sample size of the weights, in rows."""
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
    options: ChoiceOptions = DEFAULT_OPTIONS,
    alpha: float = 0.05,
    progress: Callable[[int, int], None] | None = None,
) -> Alignment:
    """Choose rows (`pool_choice.choose_rows`) and score them.

    Sets of more than 20,000 rows are scored by a random 20,000 of them, within labels: the held-out rows, and the pool for
    its raw distance. Time is then bounded by the fit.

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
        options: of the choice.
        alpha: tail probability of the floor's quantile.
        progress: called with (labels done, labels).

    Returns:
        Weights, copies and scores; labels without pool rows are absent from `per_label`, and their mass counts as missing.

    Raises:
        InputError: as `choose_rows`.
    """
    choice = choose_rows(
        pool, reference, kernel, prior=prior, quotas=quotas, rng=rng, options=options, progress=progress
    )
    copies = choice.copies
    # Fewer than asked for where the weights of a label have too few rows.
    n_selected = np.bincount(pool.label, weights=copies, minlength=len(quotas)).astype(np.int64)

    scoring = _at_most(scoring, MOST_SCORED_ROWS, rng)
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
        weights=choice.weights,
        copies=copies,
        score=score,
        per_label=per_label,
        p_value=_p_value(pool, copies, scoring, kernel, prior, rng) if scoring_is_held_out else None,
        ess=effective_sample_size(choice.weights) if n_selected.any() else 0.0,
        duality_gap=choice.duality_gap,
        doubtful=choice.doubtful,
        contrast_kept=choice.contrast_kept,
        witness=_witness(pool, copies, reference, kernel, rng),
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
    some = _at_most(pool, MOST_SCORED_ROWS, rng)
    raw = mmd2_to_population(
        some.X, scoring.X, kernel, syn_weights=_label_weights(some.label, shares),
        real_weights=real_weights, real_strata=scoring.label,
    )  # fmt: skip
    # The pool is larger than the selection. A random selection of n of its m rows is on average farther away by exactly
    # this much: drawing without replacement moves 1/m of the within-label diagonal to 1/n.
    for label in np.flatnonzero(n_selected).tolist():
        X = some.of(label).X
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
    chosen = copies == 1
    if copies.max(initial=0) != 1 or set(pool.label[chosen]) != set(scoring.label):
        return None  # the test holds for distinct rows of the same labels
    masses = {int(label): float(prior[label]) for label in np.unique(scoring.label)}
    counts = np.concatenate(
        [np.unique(labels, return_counts=True)[1] for labels in (pool.label[chosen], scoring.label)]
    )
    if chosen.sum() + len(scoring.X) > _MOST_PERMUTED_ROWS and counts.min() >= _LEAST_CROSS_ROWS:
        # The permutation test would leave rows out. This one is a little weaker for its size, and needs no permutations.
        return cross_mmd_test(
            pool.X[chosen], scoring.X, kernel, rng=rng, syn_strata=pool.label[chosen], real_strata=scoring.label,
            masses=masses,
        ).p_value  # fmt: skip
    return permutation_p_value(
        pool.X[chosen], scoring.X, kernel, rng=rng, syn_strata=pool.label[chosen], real_strata=scoring.label, masses=masses
    )  # fmt: skip


def _witness(pool: Rows, copies: IntArray, reference: Rows, kernel: Kernel, rng: np.random.Generator) -> FloatArray:
    values = np.zeros(len(reference.X))
    for label in np.unique(reference.label):
        rows = np.flatnonzero(reference.label == label)
        X = reference.X[rows]
        # All pairs of a million rows are out of reach; the mean over 2,000 has a standard error of a 45th of their spread.
        n_means = max(_LEAST_WITNESS_ROWS, _MOST_WITNESS_PAIRS // len(X))
        some = X[some_rows(np.arange(len(X)), n_means, rng)]
        chosen = (pool.label == label) & (copies > 0)
        if chosen.any():
            shares = copies[chosen] / copies[chosen].sum()
            values[rows] = witness(X, some, pool.X[chosen], kernel, syn_weights=shares)
        else:
            values[rows] = weighted_means(X, some, np.full(len(some), 1.0 / len(some)), kernel, BLOCK_ROWS)
    return values


def _at_most(rows: Rows, n: int, rng: np.random.Generator) -> Rows:
    if len(rows.X) <= n:
        return rows
    kept = some_of_strata(rows.label, n, rng)
    return Rows(rows.X[kept], rows.label[kept])


def _label_weights(labels: IntArray, masses: FloatArray) -> FloatArray:
    """Spread each label's mass evenly over its rows; masses of labels without rows are lost, so scale to sum 1."""
    counts = np.bincount(labels, minlength=len(masses))
    weights: FloatArray = masses[labels] / counts[labels]
    normalised: FloatArray = weights / weights.sum()
    return normalised
