from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ops_server import free_port, server_python, serving


@pytest.fixture(scope="session")
def phoenix_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Phoenix server that is started for these tests and ended after them."""
    python, folder, port = server_python("phoenix"), tmp_path_factory.mktemp("phoenix"), free_port()
    environment = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
    }
    command = [str(python), "-m", "phoenix.server.main", "serve"]
    with serving(command, folder, f"http://127.0.0.1:{port}", environment) as url:
        yield url


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an MLflow server that is started for these tests and ended after them."""
    python, folder, port = server_python("mlflow"), tmp_path_factory.mktemp("mlflow"), free_port()
    command = [
        str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", str(Path(folder) / "artifacts"),
    ]  # fmt: skip
    environment = {
        "PATH": f"{python.parent}:/usr/bin:/bin",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # ten more processes
    }
    with serving(command, folder, f"http://127.0.0.1:{port}", environment) as url:
        yield url
