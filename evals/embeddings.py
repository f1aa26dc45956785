"""Vectors of the evals' rows, by the product's default encoder, embedded once."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from evals.datasets import Rows
from synalign_agent.config import EncoderConfig
from synalign_agent.embedding.base import Encoder, Vectors
from synalign_agent.embedding.cache import CachedEncoder
from synalign_agent.embedding.encoder import SentenceEncoder
from synalign_agent.toolkit.progress import Progress, silent


def cache_folder() -> Path:
    """Return `$SYNALIGN_EVAL_CACHE`, by default a folder of the user's cache."""
    return Path(os.environ.get("SYNALIGN_EVAL_CACHE") or platformdirs.user_cache_path("synalign") / "evals")


def default_encoder() -> Encoder:
    """Return the product's default encoder behind the evals' cache, which keeps a vector by text and model."""
    return CachedEncoder(SentenceEncoder(EncoderConfig()), cache_folder() / "embeddings.sqlite")


def embed(rows: Rows, name: str, progress: Progress = silent, encoder: Encoder | None = None) -> Vectors:
    """Return the vectors of rows; what was embedded before is read, also if it was among other rows or in a killed run.

    Args:
        rows: what to embed.
        name: of the rows, for people: "agnews pool".
        progress: told (description, rows done, rows to embed).
        encoder: None for `default_encoder`.

    Returns:
        (n, 384) float32 of norm 1, with the default encoder.
    """
    progress(f"Embedding {name}", 0, 0)
    encoder = encoder or default_encoder()
    return encoder.encode(rows.texts, lambda done, total: progress(f"Embedding {name}", done, total))
