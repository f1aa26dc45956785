"""The exploration graph: real rows in, demonstrations and how much of the data they cover out; no model is called."""

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
from synalign_agent.toolkit import Strategy
from synalign_agent.toolkit.explore import explore
from synalign_agent.toolkit.progress import Progress

_OPTIONS = (
    "n", "strategy", "cluster_size", "lengthscale_factor", "text_column", "label_column", "holdout_fraction",
    "min_holdout_rows", "seed",
)  # fmt: skip


class ExplorationInput(TypedDict, total=False):
    """Rows and options of `synalign_agent.explore`, whose defaults hold for what is left out."""

    # Untracked: no checkpoint keeps rows.
    real: Required[
        Annotated[RowsOrFile, UntrackedValue, Field(description="Rows to pick from, or the name of a file.")]
    ]
    n: Required[Annotated[int, Field(ge=1, description="Demonstrations wanted.")]]
    strategy: Annotated[Strategy, Field(description="How they are picked.")]
    cluster_size: Annotated[int, Field(ge=1, description="Demonstrations picked together, a row and its neighbours.")]
    lengthscale_factor: Annotated[float, Field(gt=0, description="Lengthscale and radius, times the median distance.")]
    text_column: Annotated[str, Field(description="Field that holds the text.")]
    label_column: Annotated[
        str | None, Field(description="Field that holds the label; null treats all rows as one group.")
    ]
    holdout_fraction: Annotated[float, Field(description="Share of each label's rows that is not picked from.")]
    min_holdout_rows: Annotated[int, Field(description="Least rows held out per label.")]
    seed: Annotated[int, Field(ge=0, description="Seed of the hold-out and of every draw.")]
    keep: Annotated[bool, Field(description="Keep demonstrations and report on the server, under `result_id`.")]


class ExplorationOutput(TypedDict, total=False):
    """Demonstrations and coverage."""

    report: dict[str, Any]
    """See `synalign_agent.explore`, without the demonstrations; what was not measured is null."""
    demonstrations: list[dict[str, Any]]
    """In the order picked: `pick`, `cluster`, `row`, `text`, `label`, `variance`, `coverage`; empty if a reply cannot hold
    them."""
    result_id: str | None
    """Folder of the server's results that holds all of it, if asked to keep."""


class ExplorationState(ExplorationInput, ExplorationOutput, total=False):
    """One pass from rows to demonstrations."""


def build_exploration() -> StateGraph[ExplorationState, None, ExplorationInput, ExplorationOutput]:
    """Return the uncompiled graph."""
    graph: StateGraph[ExplorationState, None, ExplorationInput, ExplorationOutput] = StateGraph(
        ExplorationState, input_schema=ExplorationInput, output_schema=ExplorationOutput
    )
    graph.add_node("explore", explore_rows)
    graph.add_edge(START, "explore")
    graph.add_edge("explore", END)
    return graph


async def explore_rows(state: ExplorationState, runtime: Runtime[None]) -> ExplorationOutput:
    """Pick rows; stream mode `custom` tells how far it is."""
    with public_errors():
        return await in_thread(lambda progress: _explore(state, progress), runtime.stream_writer)


def _explore(state: ExplorationState, progress: Progress) -> ExplorationOutput:
    serving = serving_config()
    with public_errors(serving):
        check_given(state, "real", "n")
        kept = state.get("keep", False)
        check_reply(state["n"], kept, serving, "n")
        result = explore(
            checked_source(state["real"], "real", serving),
            **{name: state[name] for name in _OPTIONS if name in state},  # type: ignore[literal-required]
            encoder=shared_encoder(),
            progress=progress,
        )
        report = public_report(result.report, serving)
        picked = report.pop("demonstrations")
        return {
            "report": report,
            "demonstrations": picked if len(picked) <= serving.max_reply_rows else [],
            "result_id": keep(result.save, serving) if kept else None,
        }
