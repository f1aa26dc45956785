"""Aligner: weigh and resample the pool, measure it against held-out real rows, and decide whether to go on."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from synalign_agent.core.alignment import Alignment, Rows, Score, align_pool
from synalign_agent.core.coverage import radius_coverage
from synalign_agent.core.kernels import median_distance
from synalign_agent.core.plan import Progress, stop_reason
from synalign_agent.core.pool_choice import ChoiceOptions, largest_min_ess
from synalign_agent.deps import Deps
from synalign_agent.observe.events import AlignmentResult, RoundResult
from synalign_agent.observe.spans import alignment_attributes
from synalign_agent.records import Choice
from synalign_agent.state import RoundSummary, State

_STREAM = 5
_RANDOM_CHOICES = 5


def align(state: State, deps: Deps) -> State:
    """Fit weights, choose the result, score it, and keep the round."""
    round, config = state["round"], deps.config
    # A thread that is rewound to an earlier round finds the samples of later ones in the store already.
    ids, pool = deps.pool_rows(before_round=round + 1)
    # Early pools may have too few rows of a label for weights as even as asked.
    most_ess = largest_min_ess(pool.label, deps.quotas, config.align.max_copies)
    started = time.monotonic()
    with deps.observers.spans.span("align_pool", "alignment") as span:
        alignment = align_pool(
            pool,
            deps.real.reference(),
            deps.real.scoring(),
            deps.real.everything(),
            deps.kernel,
            prior=deps.prior,
            quotas=deps.quotas,
            scoring_is_held_out=deps.real.scored_on == "holdout",
            # The same stream every round: the floor is one number per session, not a new draw each time.
            rng=deps.rng(_STREAM),
            options=ChoiceOptions(
                objective=config.align.objective,
                max_copies=config.align.max_copies,
                min_ess=None if config.align.min_ess is None else min(config.align.min_ess, most_ess),
                swaps=config.align.swaps,
                contrast_shrinkage=config.align.contrast_shrinkage,
                max_label_odds=config.align.max_label_odds,
                tolerance=config.align.tolerance,
            ),
            alpha=config.target.alpha,
        )
        seconds = time.monotonic() - started
        target = _target(deps, alignment.score)
        metrics = _metrics(deps, round, pool, alignment, target)
        result = AlignmentResult.of(deps.thread_id, metrics, seconds=seconds)
        span.set(alignment_attributes(result))
    deps.observers.alignment_ended(result)
    choices = [
        Choice(id, float(weight), int(copies))
        for id, weight, copies in zip(ids, alignment.weights, alignment.copies, strict=True)
    ]
    # Kept every round: a process that is killed cannot write it at its end.
    deps.store.set_meta("active_seconds", str(deps.active_seconds()))
    deps.store.add_round(round, metrics, alignment.witness.astype(np.float32).tobytes(), choices)
    summary = RoundSummary(
        round=round,
        n_pool=len(ids),
        n_selected=metrics["n_selected"],
        mmd2=metrics["mmd2"]["aligned"],
        target=target,
    )
    history = [*state.get("history", []), summary]
    reason = stop_reason(
        [Progress(entry["n_pool"], entry["n_selected"], entry["mmd2"], entry["target"]) for entry in history],
        n_samples=config.n_samples,
        pool_target=config.pool_target,
        limits_hit=state.get("limits_hit", []),
        max_rounds=config.limits.max_rounds,
        patience_rounds=config.limits.patience_rounds,
        min_gain=config.limits.min_gain,
    )
    deps.observers.round_ended(
        RoundResult.of(deps.thread_id, metrics, priced=config.llm.prices.known, stop_reason=reason)
    )
    return {"history": [summary], "stop_reason": reason}


def _metrics(deps: Deps, round: int, pool: Rows, alignment: Alignment, target: float | None) -> dict[str, Any]:
    """Return every number of a round, as JSON values; what could not be measured is None."""
    totals = deps.store.call_totals()
    n_selected = np.bincount(pool.label, weights=alignment.copies, minlength=len(deps.prior))
    n_pool = np.bincount(pool.label, minlength=len(deps.prior))
    return {
        "round": round,
        "n_pool": len(pool.X),
        "n_selected": int(alignment.copies.sum()),
        "n_distinct": int((alignment.copies > 0).sum()),
        "scored_on": deps.real.scored_on,
        **_distances(alignment.score, target),
        "ess": alignment.ess,
        "p_value": alignment.p_value,
        "duality_gap": alignment.duality_gap,
        "contrast_kept": alignment.contrast_kept,
        "n_doubtful": int(alignment.doubtful.sum()),
        "per_label": {
            label: {
                "n_requested": int(deps.quotas[code]),
                "n_selected": int(n_selected[code]),
                "n_pool": int(n_pool[code]),
                **_distances(alignment.per_label.get(code), None),
            }
            for code, label in enumerate(deps.real.labels)
        },
        "coverage": _coverage(deps, round),
        "calls": {"done": totals.done, "failed": totals.failed},
        "tokens": {"prompt": totals.prompt_tokens, "completion": totals.completion_tokens},
        "cost_usd": totals.cost_usd,
        "seconds": deps.active_seconds(),
        "rejections": deps.store.rejection_counts(),
    }


def _distances(score: Score | None, target: float | None) -> dict[str, Any]:
    if score is None:
        return {
            "mmd2": dict.fromkeys(("raw", "aligned", "floor", "floor_quantile", "target")),
            "n_eq": {"raw": None, "aligned": None},
        }
    return {
        "mmd2": {
            "raw": score.raw,
            "aligned": score.aligned,
            "floor": score.floor_mean,
            "floor_quantile": score.floor_quantile,
            "target": target,
        },
        "n_eq": {"raw": score.n_eq_raw, "aligned": score.n_eq_aligned},
    }


def _coverage(deps: Deps, round: int) -> dict[str, float | None]:
    """Return the share of reference rows within a GP lengthscale of a demonstration, and the same for a random choice."""
    reference = deps.real.reference()
    place = {deps.real.rows[row].id: at for at, row in enumerate(np.flatnonzero(~deps.real.held_out).tolist())}
    used = sorted(
        {place[id] for cluster in deps.store.clusters() if cluster.round <= round for id in cluster.member_ids}
    )
    rng = deps.rng(_STREAM, 1)
    radius = deps.config.explore.lengthscale_factor * median_distance(reference.X, rng)
    by_chance = [
        radius_coverage(reference.X, rng.choice(len(reference.X), size=len(used), replace=False), radius)
        for _ in range(_RANDOM_CHOICES)
    ]
    return {
        "explored": radius_coverage(reference.X, used, radius),
        "random": float(np.mean(by_chance)),
        "n_demonstrations": len(used),
    }


def _target(deps: Deps, score: Score | None) -> float | None:
    config = deps.config.target
    if score is None:
        return None
    if config.n_equivalent is not None:
        return (1 - score.mean_kernel) / config.n_equivalent
    return score.floor_quantile if config.mmd2 == "auto" else float(config.mmd2)
