"""A two-sample test without permutations: the studentised cross-MMD.

Shekhar, Kim and Ramdas, "A permutation-free kernel two-sample test" (NeurIPS 2022). Half of the rows of either side define
a witness function, g = mean embedding of the one less that of the other; the other halves are scored by it. Given g, these
scores are i.i.d. numbers, and the difference of their means is an ordinary one-sided t-test. Its expectation is MMD^2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr

from synalign_agent.core.arrays import Array, FloatArray, IntArray, as_rows
from synalign_agent.core.block_sums import BLOCK_ROWS, weighted_means
from synalign_agent.core.kernels import Kernel
from synalign_agent.core.strata import PerStratum, packed, same_strata, stratum_masses
from synalign_agent.errors import InputError

_ROUND_OFF = 1e-7
"""Of means of kernel values; float32 blocks of equal rows stay below it."""


class CrossTest(NamedTuple):
    """The outcome of a test whether two sets of rows share a distribution."""

    p_value: float
    statistic: float
    """`mmd2` in standard errors; about N(0, 1) if the distributions are equal, large if they differ."""
    mmd2: float
    """An unbiased estimate of MMD^2 from half of the pairs; may be negative."""
    standard_error: float
    """Of `mmd2`, given the witness."""


class _Side(NamedTuple):
    """The rows of one side, and which of them define the witness and which are scored by it."""

    rows: Array
    scored: IntArray
    scored_places: list[slice]
    """Where each stratum is in `scored`."""
    witness: IntArray
    witness_places: list[slice]


def cross_mmd_test(
    X_syn: ArrayLike,
    X_real: ArrayLike,
    kernel: Kernel,
    *,
    rng: np.random.Generator,
    syn_strata: ArrayLike | None = None,
    real_strata: ArrayLike | None = None,
    masses: PerStratum | None = None,
    block_rows: int = BLOCK_ROWS,
) -> CrossTest:
    """Test whether synthetic and real rows share a distribution within every stratum.

    With strata, the witness is sum_l p_l (mean embedding of synthetic less of real rows of l), and the statistic the same sum
    of differences of mean scores. Given the witness, the strata are independent, so their variances add up and the level
    holds whatever the proportions of the strata on either side. Degrees of freedom are Welch's, which keeps the level at
    a few dozen rows; with more it is the paper's normal limit.

    Against `mmd_null.permutation_p_value`: one pass over a quarter of the pairs instead of a matrix and its products, so memory
    is O(block_rows^2) and no row is left out, but power as if there were about 0.7 times as many rows. It holds under the same
    conditions: distinct, unweighted rows, none of them used to choose the others. Measured on AG News, 600 against 600 rows,
    500 runs, strata, level 5 %: real rows rejected 5.2 % (95 % interval 3.4 to 7.5), permutation 3.8 %; with 10 / 20 / 30 %
    synthetic rows 21 / 88 / 100 %, permutation 32 / 99 / 100 %; a quarter of its time.

    Args:
        X_syn: (m, d).
        X_real: (h, d).
        kernel: with k(x, x) = 1.
        rng: splits the rows; the p-value depends on the split, so fix the seed before looking.
        syn_strata: (m,) integer labels; None for one stratum.
        real_strata: (h,) integer labels, the same set; None for one stratum.
        masses: mass of each stratum, scaled to sum 1; None for its share of X_real.
        block_rows: rows of a kernel block.

    Returns:
        The p-value of the one-sided test and what it is made of. Sets without any spread under the witness are told apart
        by their means alone: p is 1 where these agree, else 0.

    Raises:
        InputError: if a shape is wrong, a stratum has rows on one side only, or one with mass has fewer than 3 on a side.
    """
    syn, real = as_rows(X_syn, "X_syn"), as_rows(X_real, "X_real")
    if block_rows < 1:
        raise InputError(f"block_rows must be >= 1, got {block_rows}.")
    syn_rows, real_rows = same_strata(syn_strata, len(syn), real_strata, len(real))
    p = dict(zip(real_rows, stratum_masses(masses, real_rows).tolist(), strict=True))
    labels = [label for label in real_rows if p[label] > 0]
    sides = [
        _halve(syn, {label: syn_rows[label] for label in labels}, "synthetic", rng),
        _halve(real, {label: real_rows[label] for label in labels}, "real", rng),
    ]
    scores = [_witness(side, sides, [p[label] for label in labels], kernel, block_rows) for side in sides]
    mmd2 = variance = welch = 0.0
    for stratum, label in enumerate(labels):
        for side, sign, values in zip(sides, (1.0, -1.0), scores, strict=True):
            inside = values[side.scored_places[stratum]]
            mmd2 += sign * p[label] * float(inside.mean())
            part = p[label] ** 2 * float(inside.var(ddof=1)) / len(inside)
            variance += part
            welch += part**2 / (len(inside) - 1)
    error = math.sqrt(variance)
    if error <= _ROUND_OFF:
        differ = mmd2 > _ROUND_OFF
        return CrossTest(0.0 if differ else 1.0, math.inf if differ else 0.0, mmd2, error)
    statistic = mmd2 / error
    return CrossTest(float(stdtr(variance**2 / welch, -statistic)), statistic, mmd2, error)


def _halve(rows: Array, strata: dict[int, IntArray], name: str, rng: np.random.Generator) -> _Side:
    scored, witness = {}, {}
    for label, found in strata.items():
        if len(found) < 3:
            raise InputError(
                f"The cross-MMD test needs 3 {name} rows of every stratum, and stratum {label} has {len(found)}: "
                "leave it out or merge it with another."
            )
        shuffled = rng.permutation(found)
        # The odd row is scored: a variance needs 2, a mean embedding 1.
        witness[label], scored[label] = np.split(shuffled, [len(found) // 2])
    return _Side(rows, *packed(scored), *packed(witness))


def _witness(side: _Side, sides: list[_Side], p: list[float], kernel: Kernel, block: int) -> FloatArray:
    """Return the scores of one side; rows are gathered block by block, so that no half is ever copied."""
    scores = np.zeros(len(side.scored))
    for other, sign in zip(sides, (1.0, -1.0), strict=True):
        weights = np.empty(len(other.witness))
        for mass, place in zip(p, other.witness_places, strict=True):
            weights[place] = sign * mass / (place.stop - place.start)
        for i in range(0, len(scores), block):
            Z = side.rows[side.scored[i : i + block]]
            for j in range(0, len(weights), block):
                X = other.rows[other.witness[j : j + block]]
                scores[i : i + block] += weighted_means(Z, X, weights[j : j + block], kernel, block)
    return scores
