"""The alignment graph: real and synthetic rows in, weights and a report out; no model is called."""

from __future__ import annotations

from typing import Annotated, Any, Required

from langgraph.channels import UntrackedValue
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from pydantic import Field
from typing_extensions import TypedDict

from synalign_agent.serving.public_errors import public_errors
from synalign_agent.serving.sources import RowsOrFile, check_given, checked_source
from synalign_agent.serving.tools import check_reply, in_thread, keep, public_report, serving_config, shared_encoder
from synalign_agent.toolkit import Objective
from synalign_agent.toolkit.align import AlignResult, align
from synalign_agent.toolkit.progress import Progress

_OPTIONS = (
    "n_samples", "objective", "text_column", "label_column", "max_copies", "cap", "min_ess", "swaps", "contrast_shrinkage",
    "max_label_odds", "holdout_fraction", "min_holdout_rows", "seed",
)  # fmt: skip


class AlignmentInput(TypedDict, total=False):
    """Rows and options of `synalign_agent.align`, whose defaults hold for what is left out."""

    # Untracked: no checkpoint keeps rows.
    real: Required[
        Annotated[RowsOrFile, UntrackedValue, Field(description="Rows to match, or the name of a file of them.")]
    ]
    synthetic: Required[Annotated[RowsOrFile, UntrackedValue, Field(description="Rows to choose from, or a file.")]]
    n_samples: Required[Annotated[int, Field(ge=1, description="Rows wanted.")]]
    objective: Annotated[Objective, Field(description="How rows are weighed; `none` draws at random.")]
    text_column: Annotated[str, Field(description="Field that holds the text.")]
    label_column: Annotated[
        str | None, Field(description="Field that holds the label; null treats all rows as one group.")
    ]
    max_copies: Annotated[int, Field(ge=1, description="How often one row may be selected.")]
    cap: Annotated[float | None, Field(description="Largest weight, times the mean weight of the selected rows.")]
    min_ess: Annotated[float | None, Field(description="Least effective sample size of the weights, in rows.")]
    swaps: Annotated[bool, Field(description="Exchange selected rows for others where that comes nearer.")]
    contrast_shrinkage: Annotated[
        bool, Field(description="Follow what tells labels apart only as far as the real rows can tell it from chance.")
    ]
    max_label_odds: Annotated[
        float | None,
        Field(description="Leave out rows for which another label is so many times as probable; null: none."),
    ]
    holdout_fraction: Annotated[float, Field(description="Share of each label's real rows kept for scoring only.")]
    min_holdout_rows: Annotated[int, Field(description="Least rows held out per label.")]
    seed: Annotated[int, Field(ge=0, description="Seed of the hold-out and of every draw.")]
    keep: Annotated[bool, Field(description="Keep dataset, pool and report on the server, under `result_id`.")]


class SelectedRow(TypedDict):
    """A synthetic row of the result."""

    row: int
    """Place in `synthetic`, from 0."""
    weight: float
    copies: int


class AlignmentOutput(TypedDict, total=False):
    """Numbers, and which rows they are about."""

    report: dict[str, Any]
    """See `synalign_agent.align`; what was not measured is null."""
    selected: list[SelectedRow]
    """In input order; empty if a reply cannot hold them."""
    result_id: str | None
    """Folder of the server's results that holds all of it, if asked to keep."""


class AlignmentState(AlignmentInput, AlignmentOutput, total=False):
    """One pass from rows to weights."""


def build_alignment() -> StateGraph[AlignmentState, None, AlignmentInput, AlignmentOutput]:
    """Return the uncompiled graph."""
    graph: StateGraph[AlignmentState, None, AlignmentInput, AlignmentOutput] = StateGraph(
        AlignmentState, input_schema=AlignmentInput, output_schema=AlignmentOutput
    )
    graph.add_node("align", align_rows)
    graph.add_edge(START, "align")
    graph.add_edge("align", END)
    return graph


async def align_rows(state: AlignmentState, runtime: Runtime[None]) -> AlignmentOutput:
    """Weigh and select; stream mode `custom` tells how far it is."""
    with public_errors():
        return await in_thread(lambda progress: _align(state, progress), runtime.stream_writer)


def _align(state: AlignmentState, progress: Progress) -> AlignmentOutput:
    serving = serving_config()
    with public_errors(serving):
        check_given(state, "real", "synthetic", "n_samples")
        kept = state.get("keep", False)
        check_reply(state["n_samples"], kept, serving, "n_samples")
        result = align(
            checked_source(state["real"], "real", serving),
            checked_source(state["synthetic"], "synthetic", serving),
            **{name: state[name] for name in _OPTIONS if name in state},  # type: ignore[literal-required]
            encoder=shared_encoder(),
            progress=progress,
        )
        chosen = _selected(result)
        return {
            "report": public_report(result.report, serving),
            "selected": chosen if len(chosen) <= serving.max_reply_rows else [],
            "result_id": keep(result.save, serving) if kept else None,
        }


def _selected(result: AlignResult) -> list[SelectedRow]:
    chosen = result.rows.loc[result.rows["selected"], ["weight", "copies"]]
    return [
        {"row": int(row), "weight": float(weight), "copies": int(copies)} for row, weight, copies in chosen.itertuples()
    ]
