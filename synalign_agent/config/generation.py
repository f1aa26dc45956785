"""From real rows to new ones: exploration, attributes, generation, and the gates before the pool."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from synalign_agent.config.section import OPERATIONAL, Section, Share, added


class ExploreConfig(Section):
    """Which real rows become demonstrations."""

    strategy: Literal["ivr", "ivr_gap", "gp", "gp_gap", "random", "kmeans", "farthest"] = Field(
        "ivr_gap",
        description="`ivr`: the row that lowers the mean posterior variance of all rows most; `ivr_gap`: the same, the mean "
        "weighted by what the synthetic data misses; `gp`, `gp_gap`: greatest posterior variance, as in the paper; `random`, "
        "`kmeans` and `farthest` (point) for comparison.",
    )
    kernel: Literal["rbf", "matern12", "matern32", "matern52", "rq"] = Field(
        "rbf", description="GP kernel: RBF, Matern (nu = 1/2, 3/2, 5/2) or rational quadratic."
    )
    device: str | None = Field(
        None,
        description="torch device for `gp` and `gp_gap`, e.g. cuda (null = this processor, which picks the same).",
        json_schema_extra=OPERATIONAL,
    )
    cluster_size: int = Field(5, ge=1, description="Demonstrations per cluster: a row and its nearest neighbours.")
    lengthscale_factor: float = Field(
        0.7, gt=0, description="GP lengthscale as a multiple of the label's median pairwise distance (0.5 to 1 works)."
    )
    noise: float = Field(1e-4, gt=0, description="GP noise variance (the kernel's variance is 1).")
    focus: list[str] | None = Field(
        None,
        description="Ids of real reference rows: explore only them and their neighbours, as the report's gaps do (null = all).",
        json_schema_extra=added(None),
    )
    gap_floor: float = Field(0.1, ge=0, description="Weight of rows without a gap, relative to the largest gap.")


class AttributesConfig(Section):
    """The latent attributes that the LLM reads off each cluster."""

    enabled: bool = Field(True, description="Summarise clusters into attributes before generating.")
    dimensions: dict[str, str] | None = Field(
        None,
        description="Dimension name -> what it means, e.g. {tone: 'mood of the writer'} (null = see `propose`).",
    )
    propose: bool | None = Field(
        None,
        description="Have the LLM propose the dimensions once, which are frozen then; otherwise they are topic, tone and style "
        "(null = profile).",
        json_schema_extra=added(True),
    )
    n_dimensions: int = Field(4, ge=1, le=12, description="How many dimensions to propose.")


class GenerateConfig(Section):
    """How new rows are written."""

    samples_per_call: int | None = Field(None, ge=1, le=100, description="Texts per call (null = profile).")
    calls_per_cluster: int | None = Field(
        None, ge=1, le=1000, description="Calls per cluster and round (null = profile)."
    )
    demonstrations: Literal["none", "prompt", "chat"] | None = Field(
        None,
        description="Show the cluster's real rows to the writer: not at all, as a list, or as earlier chat turns "
        "(null = profile).",
    )


class LengthGateConfig(Section):
    """Length limits, in characters."""

    min_characters: int | None = Field(
        None, ge=1, description="Shortest text accepted (null = half the real 1 % quantile)."
    )
    max_characters: int | None = Field(
        None, ge=1, description="Longest text accepted (null = 1.5 times the real 99 % quantile)."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        low, high = self.min_characters, self.max_characters
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_characters {low} is above max_characters {high}: no text could pass")
        return self


class CopyGateConfig(Section):
    """Protection against copies of real rows (reference and hold-out)."""

    max_shared_words: int = Field(
        8, ge=3, description="A run of this many words in a row, shared with one real row, is a copy."
    )
    max_cosine: float = Field(0.95, gt=0, le=1, description="Cosine similarity to a real row above which it is a copy.")
    max_row_share: Share = Field(
        0.75,
        description="A text that repeats more than this share of the words of its nearest real row, in their order, is a copy "
        "(rows of 8 words or more; 1 = off, for rows that all follow a few templates).",
        json_schema_extra=added(1.0),
    )


class LabelGateConfig(Section):
    """Does the text carry the label that was asked for?"""

    method: Literal["nearest", "llm", "none"] = Field(
        "nearest",
        description="`nearest`: vote of the nearest real rows; `llm`: a judge prompt, one call for each text; a text for "
        "which a limit leaves no call is refused.",
    )
    neighbours: int = Field(
        10, ge=1, description="Real rows that vote, weighted by the inverse of their label's share."
    )
    min_vote: Share = Field(0.2, description="Least share of the vote for the label asked for.")


class GatesConfig(Section):
    """What a text must pass before it joins the pool."""

    length: LengthGateConfig = Field(default_factory=LengthGateConfig, description="Length limits.")
    max_repetition: Share = Field(
        0.35, description="Largest share of a text's word pairs that may repeat an earlier pair of the same text."
    )
    duplicate_cosine: float = Field(
        0.95, gt=0, le=1, description="Cosine similarity to an earlier sample above which a text is a near duplicate."
    )
    copy_check: CopyGateConfig = Field(default_factory=CopyGateConfig, description="Copies of real rows.")
    label_check: LabelGateConfig = Field(default_factory=LabelGateConfig, description="Label agreement.")
