"""Ways to weigh a synthetic pool so that it matches real rows in MMD.

All minimise, or are scored by, w'K_ss w - 2 w'k_sr over the simplex with the same kernel. All get k_sr from the same fast code
and it is part of their time. The dense methods hold K_ss, m x m, in float32 where their library takes it.
"""

from __future__ import annotations

import math
import time
from functools import partial

import numpy as np

from evals.bench.spec import OURS, Alignment, Method, NotRunError, Spec, uniform
from evals.methods.thinning import thin_towards
from synalign_agent.core.align import fit_weights
from synalign_agent.core.arrays import Array, FloatArray
from synalign_agent.core.baselines.herding import herd
from synalign_agent.core.baselines.projection import match_mean
from synalign_agent.core.block_sums import BLOCK_ROWS, weighted_means
from synalign_agent.core.resample import copies_within
from synalign_agent.core.simplex import linear_minimum, project_capped_simplex

_ADAM_STEPS = 2000
_ADAM_RATE = 0.05
_FISTA_CHECK_EVERY = 25
_POWER_ITERATIONS = 20
_PROJECTED_DIMENSIONS = 8 * 32
"""As many as `core.baselines.projection` has: 8 projections to 32 dimensions."""


def ours(syn: Array, real: Array, spec: Spec, deadline: float) -> Alignment:
    """Column generation with an active-set method (`synalign_agent.core.align.fit_weights`)."""
    fit = fit_weights(
        syn,
        real,
        spec.kernel,
        cap=spec.cap,
        tolerance=spec.tolerance,
        min_ess=spec.min_ess,
        rng=np.random.default_rng(spec.seed),
    )
    return Alignment(fit.w, fit.duality_gap, fit.n_iterations, fit.objective_error, fit.sampling_excess)


def adam_softmax(syn: Array, real: Array, spec: Spec, deadline: float) -> Alignment:
    """Dense K, weights = softmax(logits), 2,000 Adam steps by torch autograd."""
    import torch

    K = torch.from_numpy(spec.kernel(syn, syn))
    k_sr = torch.from_numpy(_k_sr(syn, real, spec).astype(np.float32))
    logits = torch.zeros(spec.m, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=_ADAM_RATE)
    n_steps = 0
    while n_steps < _ADAM_STEPS and time.perf_counter() < deadline:
        optimizer.zero_grad()
        w = torch.softmax(logits, dim=0)
        loss = w @ (K @ w) - 2.0 * (w @ k_sr)
        loss.backward()
        optimizer.step()
        n_steps += 1
    with torch.no_grad():
        weights = torch.softmax(logits.double(), dim=0).numpy()
    return Alignment(weights, None, n_steps, is_finished=n_steps == _ADAM_STEPS)


def fista(syn: Array, real: Array, spec: Spec, deadline: float, *, n_iterations: int) -> Alignment:
    """Dense K, accelerated projected gradient (Beck and Teboulle, 2009) with gradient restarts (O'Donoghue and Candes, 2015).

    Stops at the duality gap or after the given number of iterations.
    """
    K, k_sr = spec.kernel(syn, syn), _k_sr(syn, real, spec)

    def gradient_at(w: FloatArray) -> FloatArray:
        return 2.0 * ((K @ w.astype(K.dtype)).astype(np.float64) - k_sr)

    step = 1.0 / _smoothness(K)
    w = y = uniform(spec.m)
    momentum, gap = 1.0, math.inf
    for iteration in range(1, n_iterations + 1):
        new = project_capped_simplex(y - step * gradient_at(y), spec.cap)
        if (y - new) @ (new - w) > 0.0:
            momentum = 1.0
        following = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * momentum**2))
        y = new + (momentum - 1.0) / following * (new - w)
        w, momentum = new, following
        if iteration % _FISTA_CHECK_EVERY == 0:
            gradient = gradient_at(w)
            gap = float(gradient @ w) - linear_minimum(gradient, spec.cap)
            if gap <= spec.tolerance or time.perf_counter() > deadline:
                break
    return Alignment(w, gap, iteration, is_finished=gap <= spec.tolerance or iteration == n_iterations)


def clarabel_qp(syn: Array, real: Array, spec: Spec, deadline: float) -> Alignment:
    """Clarabel, an interior-point solver, on the dense quadratic program in float64."""
    import clarabel
    from scipy import sparse

    m = spec.m
    rows = syn.astype(np.float64)
    P = sparse.triu(2.0 * spec.kernel(rows, rows), format="csc")
    bounds = [sparse.csc_matrix(np.ones((1, m))), -sparse.identity(m, format="csc")]
    right = [np.ones(1), np.zeros(m)]
    if spec.cap < 1.0:
        bounds.append(sparse.identity(m, format="csc"))
        right.append(np.full(m, spec.cap))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    # Supernodal and threaded; the default factorises column by column.
    settings.direct_solve_method = "faer"
    settings.tol_gap_abs = spec.tolerance
    settings.time_limit = max(1.0, deadline - time.perf_counter())
    cones = [clarabel.ZeroConeT(1), clarabel.NonnegativeConeT(len(np.concatenate(right)) - 1)]
    solver = clarabel.DefaultSolver(
        P, -2.0 * _k_sr(syn, real, spec), sparse.vstack(bounds, format="csc"), np.concatenate(right), cones, settings
    )
    solution = solver.solve()
    if "Solved" not in str(solution.status):
        raise NotRunError(f"Clarabel stopped after {solution.iterations} iterations: {solution.status}")
    w = project_capped_simplex(np.asarray(solution.x), spec.cap)
    return Alignment(w, abs(solution.obj_val - solution.obj_val_dual), solution.iterations)


def goodpoints_thinning(syn: Array, real: Array, spec: Spec, deadline: float) -> Alignment:
    """Thin the pool by goodpoints' kernel thinning, refined towards the real rows; equal weights on what is kept."""
    kept = thin_towards(syn, _k_sr(syn, real, spec), spec.kernel, spec.halvings, seed=spec.seed, unique=spec.cap < 1.0)
    return Alignment(np.bincount(kept, minlength=spec.m) / len(kept), None, spec.halvings)


def random_projections(syn: Array, real: Array, spec: Spec, deadline: float) -> Alignment:
    """Match the mean of the real rows under random projections, the paper's alignment (`core.baselines.projection`)."""
    rng = np.random.default_rng(spec.seed)
    projections = rng.standard_normal((syn.shape[1], _PROJECTED_DIMENSIONS)) / math.sqrt(_PROJECTED_DIMENSIONS)
    projected = np.asarray(syn @ projections.astype(syn.dtype), dtype=np.float64)
    target = real.mean(axis=0, dtype=np.float64) @ projections
    w, n_iterations = match_mean(projected, target, spec.cap, spec.tolerance)
    return Alignment(w, None, n_iterations)


def kernel_herding(syn: Array, real: Array, spec: Spec, deadline: float) -> Alignment:
    """Pick rows one by one towards the real mean embedding (`core.baselines.herding`); equal weights on the picks."""
    n = spec.n_selected
    copies = herd(
        syn, _k_sr(syn, real, spec), np.zeros(spec.m, dtype=np.intp), n, spec.kernel, copies_within(spec.cap, n, spec.m)
    )
    return Alignment(copies / n, None, n)


def unweighted(syn: Array, real: Array, spec: Spec, deadline: float) -> Alignment:
    """Leave the pool as it is."""
    return Alignment(uniform(spec.m))


def _k_sr(syn: Array, real: Array, spec: Spec) -> FloatArray:
    return weighted_means(syn, real, uniform(len(real)), spec.kernel, BLOCK_ROWS)


def _smoothness(K: Array) -> float:
    """Return the largest curvature of w'Kw among directions of sum 0, by power iteration; 5 % are added for safety."""
    direction = np.random.default_rng(0).standard_normal(len(K)).astype(K.dtype)
    curvature = 1.0
    for _ in range(_POWER_ITERATIONS):
        direction -= direction.mean()
        direction /= np.linalg.norm(direction)
        pushed = K @ direction
        curvature = float(direction @ pushed)
        direction = pushed
    return 2.1 * curvature


METHODS = {
    OURS: Method("ours (column generation, exact)", ours, lambda s: 0.0),
    "adam": Method(
        f"dense K, torch Adam on softmax weights, {_ADAM_STEPS:,} steps", adam_softmax, lambda s: 4.0 * s.m**2
    ),
    "fista_300": Method("dense K, FISTA, 300 iterations", partial(fista, n_iterations=300), lambda s: 4.0 * s.m**2),
    "fista_1000": Method("dense K, FISTA, 1,000 iterations", partial(fista, n_iterations=1000), lambda s: 4.0 * s.m**2),
    # The program, its upper triangle as a sparse matrix, and the factor.
    "clarabel": Method("dense QP, Clarabel", clarabel_qp, lambda s: 24.0 * s.m**2),
    "goodpoints": Method("goodpoints kernel thinning", goodpoints_thinning, lambda s: 0.0),
    "projection": Method("random projections (the paper's)", random_projections, lambda s: 16.0 * s.m * 256),
    "herding": Method("kernel herding", kernel_herding, lambda s: 0.0),
    "uniform": Method("uniform weights", unweighted, lambda s: 0.0),
}
