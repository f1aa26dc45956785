"""Choose rows of a synthetic pool, label by label: leave out, weigh, draw, exchange. Nothing is scored here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from synalign_agent.core.align import fit_weights
from synalign_agent.core.arrays import Array, BoolArray, FloatArray, IntArray
from synalign_agent.core.contrast import shrink_contrast
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.label_odds import doubtful_rows
from synalign_agent.core.objectives import objective as objective_of
from synalign_agent.core.resample import resample
from synalign_agent.core.swaps import improve_by_swaps
from synalign_agent.errors import InputError


class Rows(NamedTuple):
    """Embedded rows with integer labels."""

    X: Array
    """(n, d), unit norm; float32 is fast."""
    label: IntArray
    """(n,), 0 <= label < number of labels."""

    def of(self, label: int) -> Rows:
        """Return the rows of one label."""
        keep = self.label == label
        return Rows(self.X[keep], self.label[keep])


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceOptions:
    """How rows are weighed and drawn."""

    objective: str = "kernel"
    """How rows are weighed, see `objectives.objective`."""
    max_copies: int = 1
    """Largest number of copies of one row."""
    cap: float | None = None
    """Largest weight of a row, times the rows of its label in the result, >= 1; None for `max_copies`."""
    min_ess: float | None = None
    """Least effective sample size of the weights, shared among the labels like the rows; only for `kernel`."""
    swaps: bool = True
    """Whether to improve what `kernel` weights drew by exchanging rows (`swaps.improve_by_swaps`)."""
    contrast_shrinkage: bool = True
    """Whether `kernel` weights follow what tells labels apart only as far as the reference rows can tell it from chance
    (`contrast.shrink_contrast`)."""
    max_label_odds: float | None = 2.0
    """Rows whose label is less probable than another by more than this factor, judged by the reference, are not selected
    (`label_odds.doubtful_rows`), as far as enough others are left; >= 1, None for no such bound. `none` draws from all rows."""
    tolerance: float = 1e-6
    """Duality gap of the weights."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            InputError: naming the option.
        """
        objective_of(self.objective)
        if self.min_ess is not None and self.objective != "kernel":
            raise InputError(f"min_ess bounds the weights of the objective kernel, not those of {self.objective}.")
        if self.cap is not None and not self.cap >= 1.0:
            raise InputError(f"cap must be >= 1, got {self.cap!r}: n rows of a weight below 1 / n do not add up to 1.")
        if self.max_label_odds is not None and not self.max_label_odds >= 1.0:
            raise InputError(
                f"max_label_odds must be >= 1, got {self.max_label_odds!r}: 1 is what the most probable label has."
            )

    @property
    def largest_weight(self) -> float:
        """Largest weight of a row, times the rows of its label in the result."""
        return self.cap or self.max_copies


DEFAULT_OPTIONS = ChoiceOptions()


@dataclass(frozen=True, slots=True)
class PoolChoice:
    """Which rows of a pool were chosen, and by what weights."""

    weights: FloatArray
    """(m,) sampling weights over the whole pool, sum 1; of a label, as much as it has of the rows chosen."""
    copies: IntArray
    """(m,) how often each row was chosen."""
    duality_gap: float
    """The largest of the labels' gaps."""
    doubtful: BoolArray
    """(m,) rows that could not be chosen because the reference speaks against their label (`label_odds.doubtful_rows`)."""
    contrast_kept: float | None
    """Share of the difference between labels that the weights follow (`contrast.shrink_contrast`); None where all is followed
    unasked: by other objectives, for a single label, or with the shrinkage off."""


def largest_min_ess(label: IntArray, quotas: IntArray, max_copies: int) -> float:
    """Return the largest `min_ess` that `choose_rows` can meet: a label's part of it is at most the label's rows.

    Args:
        label: (m,) labels of the pool's rows, 0 <= label < L.
        quotas: (L,) rows wanted per label.
        max_copies: largest number of copies of one row.
    """
    n_rows = np.bincount(label, minlength=len(quotas))
    n_selected = np.minimum(quotas, max_copies * n_rows)
    present = n_selected > 0
    return float((n_rows[present] * n_selected.sum() / n_selected[present]).min(initial=np.inf))


def choose_rows(
    pool: Rows,
    reference: Rows,
    kernel: Kernel,
    *,
    prior: FloatArray,
    quotas: IntArray,
    rng: np.random.Generator,
    options: ChoiceOptions = DEFAULT_OPTIONS,
    progress: Callable[[int, int], None] | None = None,
) -> PoolChoice:
    """Fit weights to the reference and draw the quotas by them.

    Args:
        pool: (m, d) synthetic rows.
        reference: (n, d) real rows that the weights are fitted to.
        kernel: with k(x, x) = 1.
        prior: (L,) label masses, sum 1.
        quotas: (L,) rows wanted per label; a label with fewer pool rows gives what it has.
        rng: of every draw.
        options: see there.
        progress: called with (labels done, labels).

    Returns:
        Weights and copies; fewer copies than the quota where the weights of a label have too few rows.

    Raises:
        InputError: `min_ess` cannot be met by the rows of a label.
    """
    by_kernel = options.objective == "kernel"
    n_selected = np.minimum(quotas, options.max_copies * np.bincount(pool.label, minlength=len(quotas)))
    doubtful = np.zeros(len(pool.X), dtype=np.bool_)
    # Of `none` a user expects a random draw, from all rows.
    if options.max_label_odds is not None and options.objective != "none":
        # Enough rows for the quota under the cap, and for weights that are as even as asked.
        at_least = np.maximum(
            n_selected / min(options.largest_weight, options.max_copies),
            (options.min_ess or 0.0) * n_selected / max(int(n_selected.sum()), 1),
        )
        doubtful = doubtful_rows(
            pool.X, pool.label, reference.X, reference.label, max_odds=options.max_label_odds,
            at_least=np.ceil(at_least).astype(np.int64), rng=rng,
        )  # fmt: skip
    weights, copies = np.zeros(len(pool.X)), np.zeros(len(pool.X), dtype=np.int64)
    largest_gap, labels = 0.0, np.flatnonzero(n_selected).tolist()
    contrast = None
    if options.contrast_shrinkage and by_kernel and len(labels) > 1:
        contrast = shrink_contrast(
            pool.X[~doubtful], pool.label[~doubtful], reference.X, reference.label, kernel, prior=prior, rng=rng
        )
    for done, label in enumerate(labels):
        rows, n = np.flatnonzero((pool.label == label) & ~doubtful), int(n_selected[label])
        X, real = pool.X[rows], reference.of(label).X
        cap = min(1.0, max(options.largest_weight / n, 1.0 / len(rows)))
        if by_kernel:
            floor = None if options.min_ess is None else options.min_ess * n / n_selected.sum()
            shift = None if contrast is None else contrast.shifts.get(label)
            fitted = fit_weights(
                X, real, kernel, cap=cap, tolerance=options.tolerance, min_ess=floor, target_shift=shift, rng=rng
            )
        else:
            weigh = objective_of(options.objective)
            fitted = weigh(X, real, n=n, cap=cap, kernel=kernel, rng=rng, tolerance=options.tolerance)
        chosen = resample(fitted.w, n, rng, max_copies=options.max_copies).copies
        if options.swaps and by_kernel and chosen.any():
            chosen = improve_by_swaps(X, chosen, kernel, fitted.k_sr, max_copies=options.max_copies).copies
        copies[rows] = chosen
        weights[rows] = fitted.w * n / n_selected.sum()
        largest_gap = max(largest_gap, fitted.duality_gap)
        if progress is not None:
            progress(done + 1, len(labels))
    return PoolChoice(weights, copies, largest_gap, doubtful, None if contrast is None else contrast.kept)
