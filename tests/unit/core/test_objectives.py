from __future__ import annotations

from importlib import import_module
from typing import get_args

import numpy as np
import pytest

from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.mmd import mmd2_biased
from synalign_agent.core.objectives import ObjectiveName, objective
from synalign_agent.core.resample import resample
from synalign_agent.errors import InputError

KERNEL = RBFMixture((0.8, 1.6))
NAMES = get_args(ObjectiveName)


def world(dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Return a pool of which a third has the real law, and real rows."""
    rng = np.random.default_rng(3)
    return (
        np.concatenate([rng.normal(size=(60, 3)), rng.normal(1.5, 1.0, size=(120, 3))]).astype(dtype),
        rng.normal(size=(150, 3)).astype(dtype),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_weights_are_on_the_capped_simplex_and_scored_alike(name: str, dtype: type) -> None:
    syn, real = world(dtype)
    before = syn.copy()
    found = objective(name)(syn, real, n=40, cap=1 / 40, kernel=KERNEL, rng=np.random.default_rng(0), tolerance=1e-6)
    assert found.w.shape == (180,) and found.w.dtype == np.float64
    assert found.w.min() >= 0.0 and found.w.max() <= 1 / 40 + 1e-9 and found.w.sum() == pytest.approx(1.0)
    wide_syn, wide_real = syn.astype(np.float64), real.astype(np.float64)
    expected = found.w @ KERNEL(wide_syn, wide_syn) @ found.w - 2 * found.w @ KERNEL(wide_syn, wide_real).mean(axis=1)
    assert found.objective == pytest.approx(expected, abs=1e-6 if dtype is np.float32 else 1e-11)
    best = objective("kernel")(
        wide_syn, wide_real, n=40, cap=1 / 40, kernel=KERNEL, rng=np.random.default_rng(0), tolerance=1e-8
    )
    assert -1e-6 <= found.objective - best.objective <= found.duality_gap + 1e-6
    np.testing.assert_array_equal(syn, before)
    # What is drawn by these weights is distinct.
    assert resample(found.w, 40, np.random.default_rng(0)).copies.max() == 1


@pytest.mark.parametrize("name", NAMES)
def test_too_many_real_rows_are_sampled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("objectives", "baselines.herding", "baselines.thinning", "baselines.projection"):
        monkeypatch.setattr(import_module(f"synalign_agent.core.{module}"), "MAX_REAL_ROWS", 50)
    syn, real = world()
    found = [
        objective(name)(syn, real, n=40, cap=1 / 40, kernel=KERNEL, rng=np.random.default_rng(seed), tolerance=1e-6)
        for seed in (0, 0, 1)
    ]
    assert found[0].n_real == 50 and found[0].sampling_excess > 0.0
    assert found[0].objective == found[1].objective != found[2].objective


def test_they_rank_as_the_literature_has_them() -> None:
    syn, real = world()
    distance = {
        name: mmd2_biased(
            syn,
            real,
            KERNEL,
            x_weights=objective(name)(
                syn, real, n=40, cap=1 / 40, kernel=KERNEL, rng=np.random.default_rng(0), tolerance=1e-7
            ).w,
        )
        for name in NAMES
    }
    assert distance["kernel"] < distance["thinning"] < distance["herding"] < distance["none"]
    assert distance["kernel"] < distance["projection"] < distance["none"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_degenerate_pools_have_defined_weights(name: str, dtype: type) -> None:
    def run(syn: np.ndarray, real: np.ndarray, n: int) -> np.ndarray:
        return objective(name)(syn, real, n=n, cap=1 / n, kernel=KERNEL, rng=np.random.default_rng(0), tolerance=1e-6).w

    one = np.ones((1, 1), dtype)
    assert run(one, np.zeros((1, 1), dtype), 1).tolist() == [1.0]
    equal = run(np.ones((6, 2), dtype), np.ones((3, 2), dtype), 3)
    assert equal.sum() == pytest.approx(1.0) and equal.max() <= 1 / 3 + 1e-12
    line = run(np.arange(5.0, dtype=dtype)[:, None], np.array([[2.0]], dtype), 1)
    # The row that is the real one, but for methods that compare means or nothing.
    assert np.argmax(line) == 2 if name not in ("projection", "none") else line.sum() == pytest.approx(1.0)
    # As many as there are: everything is taken.
    np.testing.assert_allclose(run(np.arange(4.0, dtype=dtype)[:, None], line[:, None], 4), 0.25, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_is_refused(name: str) -> None:
    syn, real = world()
    broken = syn.copy()
    broken[7, 1] = np.nan

    def run(X: np.ndarray, Y: np.ndarray, n: int = 4) -> None:
        objective(name)(X, Y, n=n, cap=1 / n, kernel=KERNEL, rng=np.random.default_rng(0), tolerance=1e-6)

    with pytest.raises(InputError, match="row 7"):
        run(broken, real)
    with pytest.raises(InputError):
        run(syn, real[:0])
    with pytest.raises(InputError):
        run(syn[:3], real)  # 3 rows of weight 1/4 at most


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="kernel, projection, herding, thinning, none"):
        objective("mmd")
