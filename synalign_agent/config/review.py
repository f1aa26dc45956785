"""What people look at before the loop goes on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from synalign_agent.config.section import OPERATIONAL, Section, added

ReviewPolicy = Literal["never", "first_round", "every_round", "flagged"]


class ReviewConfig(Section):
    """Review by people: the run waits (`synalign review`) until every item that a policy picks is decided."""

    attributes: ReviewPolicy = Field(
        "never",
        description="Whether a person approves, edits or drops the attributes of each cluster before texts are written from "
        "them. `flagged`: those that are missing, or equal to those of another cluster of the label.",
        json_schema_extra=added("never"),
    )
    samples: ReviewPolicy = Field(
        "never",
        description="Whether a person approves, edits or rejects the texts that passed the gates. `flagged`: those that "
        "passed a gate by less than `margin`.",
        json_schema_extra=added("never"),
    )
    margin: float = Field(
        0.05,
        ge=0,
        le=1,
        description="How near to the threshold of a gate (cosines, share of the label vote, of a real row's words, of repeated "
        "word pairs) a text is flagged.",
        json_schema_extra=added(0.05),
    )
    items_per_batch: int = Field(
        50,
        ge=1,
        description="Most items that are shown before their decisions take effect; the next ones follow.",
        json_schema_extra=OPERATIONAL,
    )
