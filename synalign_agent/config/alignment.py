"""From the pool to the result: weights, the target distance, and when to stop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from synalign_agent.config.section import Section, Share, added


class AlignConfig(Section):
    """How the pool is weighed and resampled."""

    oversampling: float = Field(
        2.0, ge=1.0, le=1000.0, description="Pool size, as a multiple of n_samples, before the first stop test."
    )
    label_prior: Literal["real", "uniform"] | dict[str, float] = Field(
        "real", description="Label shares of the result: as in the real data, uniform, or {label: share}."
    )
    objective: Literal["kernel", "projection", "herding", "thinning", "none"] = Field(
        "kernel",
        description="`kernel`: weights of least MMD; the others for comparison: the paper's random `projection`, kernel "
        "`herding`, kernel `thinning`, or uniform weights.",
    )
    max_copies: int = Field(1, ge=1, description="How often one text may appear in the result.")
    min_ess: float | None = Field(
        None, gt=0, description="Least effective sample size of the weights, of `kernel` (null = no limit)."
    )
    swaps: bool = Field(True, description="Exchange single rows of the result while that lowers the MMD, for `kernel`.")
    contrast_shrinkage: bool = Field(
        True,
        description="Follow what tells labels apart only as far as the reference rows can tell it from chance, for `kernel`.",
        json_schema_extra=added(False),
    )
    max_label_odds: float | None = Field(
        2.0,
        ge=1,
        allow_inf_nan=False,
        description="Do not select rows whose label is less probable than another by more than this factor, judged by the "
        "reference rows, as far as enough others are left (null = select them all the same).",
        json_schema_extra=added(None),
    )
    lengthscale_multipliers: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        [0.5, 1.0, 2.0],
        min_length=1,
        description="The MMD kernel is a mean of RBF kernels with these multiples of the median distance.",
    )
    tolerance: float = Field(1e-6, gt=0, description="Duality gap at which the weights count as solved.")


class TargetConfig(Section):
    """When the data are close enough."""

    mmd2: Literal["auto"] | Annotated[float, Field(allow_inf_nan=False)] = Field(
        "auto",
        description="Squared MMD to reach: a number, or `auto` = what real rows reach at the same sizes (quantile 1 - alpha).",
    )
    n_equivalent: float | None = Field(
        None, gt=0, description="Instead of mmd2: be worth this many real rows (null = use mmd2)."
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Tail probability of the `auto` target.")


class LimitsConfig(Section):
    """Where the run stops even if the target is not met. A limit is checked before each call and never passed."""

    max_rounds: int = Field(12, ge=1, description="Most rounds of explore, summarise, generate, align.")
    patience_rounds: int = Field(2, ge=1, description="Stop after this many rounds in a row without a gain.")
    min_gain: Share = Field(0.02, description="A smaller relative fall of MMD2 in a round is no gain.")
    max_calls: int | None = Field(None, ge=1, description="Most LLM calls (null = no limit).")
    max_tokens: int | None = Field(None, ge=1, description="Most prompt plus completion tokens (null = no limit).")
    max_usd: float | None = Field(
        None, gt=0, description="Most USD, by `llm.prices`, which it needs (null = no limit)."
    )
