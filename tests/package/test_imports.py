"""What importing the package costs, and what it leaves alone until it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import requires

# Of OpenTelemetry only the exporter: langsmith, which LangChain brings, imports the SDK where it finds it.
OPTIONAL = ("mlflow", "openinference", "opentelemetry.exporter", "langgraph_api", "onnxruntime", "xllamacpp", "psycopg")
HEAVY = ("torch", "langgraph", "numpy", "pydantic", "pandas", "typer")


def imported_by(code: str) -> list[str]:
    """Return the modules that are there after `code` ran in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return names


def test_importing_the_package_imports_nothing_else() -> None:
    imported = imported_by("import synalign_agent")
    assert not [name for name in (*HEAVY, *OPTIONAL) if name in imported]


def test_a_session_without_observability_imports_none_of_its_extras() -> None:
    imported = imported_by(
        "from synalign_agent.session import Session\n"
        "from synalign_agent.config import SessionConfig\n"
        "from synalign_agent.observation import open_observers\n"
        "open_observers('t', SessionConfig.parse({'data': {'path': 'x.jsonl'}}))"
    )
    assert not [name for name in OPTIONAL if name in imported]


def test_extras_are_not_among_the_dependencies() -> None:
    always = [line for line in requires("synalign-agent") or [] if "extra ==" not in line]
    for name in ("mlflow", "openinference", "opentelemetry", "psycopg", "langgraph-cli", "onnx"):
        assert not [line for line in always if line.startswith(name)]
