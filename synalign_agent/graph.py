"""The loop as a LangGraph graph: nodes, edges and the functions that route between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphInterrupt
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send

from synalign_agent.deps import Deps, DepsProvider
from synalign_agent.event_loop import to_its_end
from synalign_agent.nodes.align import align
from synalign_agent.nodes.explore import explore
from synalign_agent.nodes.finish import finish
from synalign_agent.nodes.generate import generate, generate_tasks
from synalign_agent.nodes.review_attributes import apply_attribute_review, review_attributes
from synalign_agent.nodes.review_samples import apply_sample_review, review_samples
from synalign_agent.nodes.screen import screen
from synalign_agent.nodes.summarize_attributes import frozen_dimensions, propose_dimensions, summarize_attributes
from synalign_agent.state import Context, Input, Output, State

SyncNode = Callable[[Any, Deps], State]
AsyncNode = Callable[[Any, Deps], Awaitable[State]]
Around = Callable[[str], AbstractAsyncContextManager[object]]
"""thread id -> what is entered before a node or a route asks for its handles, and left when it ended, failed or was cancelled."""


def build_graph(
    provider: DepsProvider, *, context_schema: type[Context] = Context, around: Around = nullcontext, again: bool = True
) -> StateGraph[State, Context, Input, Output]:
    """Return the uncompiled graph.

    explore -> summarize_attributes (one task a cluster) -> plan_calls -> generate (one task a block of calls) -> screen ->
    align, and back to explore until `align` gives a reason to stop. By the policies of `review`, people look at the
    attributes before plan_calls and at the samples before align. Compile it with a checkpointer, or let a LangGraph server
    do so.

    Args:
        provider: opens the handles of a session, by thread id and context.
        context_schema: what a run is given each time it starts.
        around: see `Around`.
        again: whether any input begins another pass over a finished thread; if not, only one that resets `stop_reason` does.
    """
    on = _OpenedSessions(provider, around)
    graph: StateGraph[State, Context, Input, Output] = StateGraph(
        State, context_schema=context_schema, input_schema=Input, output_schema=Output
    )
    graph.add_node("explore", on.node(explore))
    graph.add_node("propose_dimensions", on.async_node(propose_dimensions))
    graph.add_node("summarize_attributes", on.async_node(summarize_attributes))
    graph.add_node("review_attributes", on.waiting_node(review_attributes))
    graph.add_node("apply_attribute_review", on.node(apply_attribute_review))
    graph.add_node("plan_calls", plan_calls)
    graph.add_node("generate", on.async_node(generate))
    graph.add_node("screen", on.async_node(screen))
    graph.add_node("review_samples", on.waiting_node(review_samples))
    graph.add_node("apply_sample_review", on.node(apply_sample_review))
    graph.add_node("align", on.node(align))
    graph.add_node("finish", on.async_node(finish_and_close))
    if again:
        graph.add_edge(START, "explore")
    else:
        graph.add_conditional_edges(START, route_unless_finished, ["explore", END])
    graph.add_conditional_edges(
        "explore", on.route_after_explore, ["propose_dimensions", "summarize_attributes", "plan_calls"]
    )
    graph.add_conditional_edges("propose_dimensions", route_to_summaries, ["summarize_attributes", "plan_calls"])
    # Routed, not passed through: a session without reviews has the steps, and the checkpoints, that it always had.
    graph.add_conditional_edges("summarize_attributes", on.route_after_summaries, ["review_attributes", "plan_calls"])
    graph.add_edge("review_attributes", "apply_attribute_review")
    graph.add_conditional_edges(
        "apply_attribute_review", route_after_attribute_review, ["review_attributes", "plan_calls"]
    )
    graph.add_conditional_edges("plan_calls", on.route_to_generation, ["generate", "screen"])
    graph.add_edge("generate", "screen")
    graph.add_conditional_edges("screen", on.route_after_screen, ["review_samples", "align"])
    graph.add_edge("review_samples", "apply_sample_review")
    graph.add_conditional_edges("apply_sample_review", route_after_sample_review, ["review_samples", "align"])
    graph.add_conditional_edges("align", route_after_align, ["explore", "finish"])
    graph.add_edge("finish", END)
    return graph


class _OpenedSessions:
    """Nodes and routes that are given the open handles of the session."""

    def __init__(self, provider: DepsProvider, around: Around) -> None:
        self._provider = provider
        self._around = around

    @asynccontextmanager
    async def opened(self, config: RunnableConfig, runtime: Runtime[Context]) -> AsyncIterator[Deps]:
        async with self._around(_thread_id(config)):
            yield await self._provider(_thread_id(config), runtime.context or Context())

    @asynccontextmanager
    async def in_use(self, state: Any, config: RunnableConfig, runtime: Runtime[Context]) -> AsyncIterator[Deps]:
        node = str(config["metadata"]["langgraph_node"])
        async with self.opened(config, runtime) as deps:
            # Tasks of a fan-out are given no round; the explorer begins one.
            round = state.get("round", 0) + 1 if node == "explore" else state.get("round")
            with deps.observers.node(node, round):
                yield deps

    def node(self, function: SyncNode) -> Any:
        """Run a node without calls in a thread: numpy and SQLite block."""

        async def run(state: State, config: RunnableConfig, runtime: Runtime[Context]) -> State:
            async with self.in_use(state, config, runtime) as deps:
                return await to_its_end(function, state, deps)

        return run

    def async_node(self, function: AsyncNode) -> Any:
        async def run(state: State, config: RunnableConfig, runtime: Runtime[Context]) -> State:
            async with self.in_use(state, config, runtime) as deps:
                return await function(state, deps)

        return run

    def waiting_node(self, function: AsyncNode) -> Any:
        """Run a node that may wait for a person: what was opened for this run alone is released meanwhile."""

        async def run(state: State, config: RunnableConfig, runtime: Runtime[Context]) -> State:
            async with self.in_use(state, config, runtime) as deps:
                try:
                    return await function(state, deps)
                except GraphInterrupt:
                    await deps.model.aclose()
                    await to_its_end(deps.pause)
                    raise

        return run

    async def route_after_summaries(self, state: State, config: RunnableConfig, runtime: Runtime[Context]) -> str:
        async with self.opened(config, runtime) as deps:
            return "plan_calls" if deps.config.review.attributes == "never" else "review_attributes"

    async def route_after_screen(self, state: State, config: RunnableConfig, runtime: Runtime[Context]) -> str:
        async with self.opened(config, runtime) as deps:
            return "align" if deps.config.review.samples == "never" else "review_samples"

    async def route_after_explore(
        self, state: State, config: RunnableConfig, runtime: Runtime[Context]
    ) -> str | list[Send]:
        async with self.opened(config, runtime) as deps:
            if not deps.config.attributes.enabled:
                return "plan_calls"
            if await to_its_end(frozen_dimensions, deps.config, deps.store) is None:
                return "propose_dimensions"
            return route_to_summaries(state)

    async def route_to_generation(
        self, state: State, config: RunnableConfig, runtime: Runtime[Context]
    ) -> str | list[Send]:
        async with self.opened(config, runtime) as deps:
            if state.get("limits_hit"):
                return "screen"
            n_draws = deps.config.generate.calls_per_cluster or 1
            return [Send("generate", task) for task in generate_tasks(state["cluster_ids"], n_draws)]


def _thread_id(config: RunnableConfig) -> str:
    return str(config["configurable"]["thread_id"])


async def finish_and_close(state: State, deps: Deps) -> State:
    """Write the outputs and release what was opened for this run alone."""
    # Only what came to its end is closed as finished: what failed or was cancelled here is for whoever runs the graph.
    ended = await to_its_end(finish, state, deps)
    await deps.model.aclose()
    await to_its_end(deps.close)
    return ended


def plan_calls(state: State) -> State:
    """Wait for all summaries; the edge behind this node fans out into calls."""
    return {}


def route_unless_finished(state: State) -> str:
    """Begin a pass, unless an earlier one came to its end."""
    return "explore" if state.get("stop_reason") is None else END


def route_to_summaries(state: State) -> str | list[Send]:
    """Summarise every cluster of the round in a task of its own."""
    if state.get("limits_hit"):
        return "plan_calls"
    return [Send("summarize_attributes", {"cluster_id": cluster_id}) for cluster_id in state["cluster_ids"]]


def route_after_attribute_review(state: State) -> Literal["review_attributes", "plan_calls"]:
    """Go on reviewing until every item is settled."""
    return "review_attributes" if state.get("to_review") else "plan_calls"


def route_after_sample_review(state: State) -> Literal["review_samples", "align"]:
    """Go on reviewing until every item is settled."""
    return "review_samples" if state.get("to_review") else "align"


def route_after_align(state: State) -> Literal["explore", "finish"]:
    """Go on exploring unless `align` gave a reason to stop."""
    return "explore" if state.get("stop_reason") is None else "finish"


def mermaid(provider: DepsProvider | None = None) -> str:
    """Return the graph as Mermaid text, drawn by LangGraph."""

    async def unopened(thread_id: str, context: Context) -> Deps:
        raise NotImplementedError("the drawing opens no session")

    drawn: str = build_graph(provider or unopened).compile().get_graph().draw_mermaid()
    return drawn
