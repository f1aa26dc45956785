"""The picture in the README is the graph, drawn by LangGraph."""

from pathlib import Path

from synalign_agent.graph import mermaid

README = Path(__file__).resolve().parents[2] / "README.md"


def test_readme_shows_the_graph_as_it_is() -> None:
    assert f"```mermaid\n{mermaid().strip()}\n```" in README.read_text(encoding="utf-8")
