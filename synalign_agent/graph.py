"""The loop as a LangGraph graph: nodes, edges and the functions that route between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send

from synalign_agent.deps import Deps, DepsProvider
from synalign_agent.nodes.align import align
from synalign_agent.nodes.explore import explore
from synalign_agent.nodes.finish import finish
from synalign_agent.nodes.generate import generate
from synalign_agent.nodes.screen import screen
from synalign_agent.nodes.summarize_attributes import frozen_dimensions, propose_dimensions, summarize_attributes
from synalign_agent.state import Context, Input, Output, State

SyncNode = Callable[[Any, Deps], State]
AsyncNode = Callable[[Any, Deps], Awaitable[State]]


def build_graph(provider: DepsProvider) -> StateGraph[State, Context, Input, Output]:
    """Return the uncompiled graph; `provider` opens the handles of a session, by thread id and context.

    explore -> summarize_attributes (one task a cluster) -> plan_calls -> generate (one task a call) -> screen -> align, and
    back to explore until `align` gives a reason to stop. Compile it with a checkpointer, or let a LangGraph server do so.
    """

    async def opened(config: RunnableConfig, runtime: Runtime[Context]) -> Deps:
        return await provider(str(config["configurable"]["thread_id"]), runtime.context or Context())

    def node(function: SyncNode) -> Any:
        """Run a node without calls in a thread: numpy and SQLite block."""

        async def run(state: State, config: RunnableConfig, runtime: Runtime[Context]) -> State:
            return await asyncio.to_thread(function, state, await opened(config, runtime))

        return run

    def async_node(function: AsyncNode) -> Any:
        async def run(state: State, config: RunnableConfig, runtime: Runtime[Context]) -> State:
            return await function(state, await opened(config, runtime))

        return run

    async def route_after_explore(state: State, config: RunnableConfig, runtime: Runtime[Context]) -> str | list[Send]:
        deps = await opened(config, runtime)
        if not deps.config.attributes.enabled:
            return "plan_calls"
        if await asyncio.to_thread(frozen_dimensions, deps) is None:
            return "propose_dimensions"
        return route_to_summaries(state)

    async def route_to_generation(state: State, config: RunnableConfig, runtime: Runtime[Context]) -> str | list[Send]:
        deps = await opened(config, runtime)
        if state.get("limits_hit"):
            return "screen"
        n_draws = deps.config.generate.calls_per_cluster or 1
        return [
            Send("generate", {"cluster_id": cluster_id, "draw": draw})
            for cluster_id in state["cluster_ids"]
            for draw in range(n_draws)
        ]

    graph: StateGraph[State, Context, Input, Output] = StateGraph(
        State, context_schema=Context, input_schema=Input, output_schema=Output
    )
    graph.add_node("explore", node(explore))
    graph.add_node("propose_dimensions", async_node(propose_dimensions))
    graph.add_node("summarize_attributes", async_node(summarize_attributes))
    graph.add_node("plan_calls", plan_calls)
    graph.add_node("generate", async_node(generate))
    graph.add_node("screen", async_node(screen))
    graph.add_node("align", node(align))
    graph.add_node("finish", async_node(finish_and_close))
    graph.add_edge(START, "explore")
    graph.add_conditional_edges(
        "explore", route_after_explore, ["propose_dimensions", "summarize_attributes", "plan_calls"]
    )
    graph.add_conditional_edges("propose_dimensions", route_to_summaries, ["summarize_attributes", "plan_calls"])
    graph.add_edge("summarize_attributes", "plan_calls")
    graph.add_conditional_edges("plan_calls", route_to_generation, ["generate", "screen"])
    graph.add_edge("generate", "screen")
    graph.add_edge("screen", "align")
    graph.add_conditional_edges("align", route_after_align, ["explore", "finish"])
    graph.add_edge("finish", END)
    return graph


async def finish_and_close(state: State, deps: Deps) -> State:
    """Write the outputs and release what was opened for this run alone."""
    try:
        return await asyncio.to_thread(finish, state, deps)
    finally:
        await deps.model.aclose()
        await asyncio.to_thread(deps.close)


def plan_calls(state: State) -> State:
    """Wait for all summaries; the edge behind this node fans out into calls."""
    return {}


def route_to_summaries(state: State) -> str | list[Send]:
    """Summarise every cluster of the round in a task of its own."""
    if state.get("limits_hit"):
        return "plan_calls"
    return [Send("summarize_attributes", {"cluster_id": cluster_id}) for cluster_id in state["cluster_ids"]]


def route_after_align(state: State) -> Literal["explore", "finish"]:
    """Go on exploring unless `align` gave a reason to stop."""
    return "explore" if state.get("stop_reason") is None else "finish"


def mermaid(provider: DepsProvider | None = None) -> str:
    """Return the graph as Mermaid text, drawn by LangGraph."""

    async def unopened(thread_id: str, context: Context) -> Deps:
        raise NotImplementedError("the drawing opens no session")

    drawn: str = build_graph(provider or unopened).compile().get_graph().draw_mermaid()
    return drawn
