from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.pool_choice import ChoiceOptions, PoolChoice, Rows, choose_rows, largest_min_ess
from synalign_agent.errors import InputError

QUOTAS = np.array([4, 3])


def choose(pool: Rows, *, min_ess: float, max_copies: int) -> PoolChoice:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((20, 4))
    real = Rows(X / np.linalg.norm(X, axis=1, keepdims=True), np.arange(20) % 2)
    options = ChoiceOptions(min_ess=min_ess, max_copies=max_copies, max_label_odds=None, contrast_shrinkage=False)
    return choose_rows(
        pool, real, RBFMixture((1.0,)), prior=np.array([0.5, 0.5]), quotas=QUOTAS, rng=rng, options=options
    )


@given(n=st.tuples(st.integers(0, 9), st.integers(1, 9)), max_copies=st.integers(1, 3))
def test_the_largest_effective_sample_size_can_be_had_and_no_larger_one(n: tuple[int, int], max_copies: int) -> None:
    rng = np.random.default_rng(n)
    X = rng.standard_normal((sum(n), 4))
    pool = Rows(X / np.linalg.norm(X, axis=1, keepdims=True), np.repeat([0, 1], n))
    most = largest_min_ess(pool.label, QUOTAS, max_copies)
    choice = choose(pool, min_ess=most, max_copies=max_copies)
    # As even as can be in the label that has fewest rows for what it gives.
    assert 1.0 / (choice.weights**2).sum() >= most * (1 - 1e-6)
    with pytest.raises(InputError, match="min_ess"):
        choose(pool, min_ess=1.01 * most, max_copies=max_copies)


def test_an_empty_pool_sets_no_bound() -> None:
    assert largest_min_ess(np.zeros(0, dtype=np.intp), QUOTAS, 1) == np.inf
