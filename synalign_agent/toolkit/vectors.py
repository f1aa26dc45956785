"""Unit vectors of the usable rows: from an encoder, or from the user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synalign_agent.config import EncoderConfig
from synalign_agent.core.arrays import unit_rows
from synalign_agent.embedding.base import Encoder, Progress, Vectors
from synalign_agent.embedding.cache import CachedEncoder
from synalign_agent.embedding.encoder import SentenceEncoder
from synalign_agent.errors import InputError
from synalign_agent.toolkit.findings import Finding, listed
from synalign_agent.toolkit.table import Table

Embeddings = str | Path | ArrayLike
"""(N, d) vectors of all rows as given, or the path of a `.npy` file with them."""

_BLOCK_ROWS = 16_384


def make_encoder(encoder: str | Encoder | None) -> Encoder:
    """Return an encoder behind the user's embedding cache; None is the packaged one, an object is taken as it is."""
    if encoder is None or isinstance(encoder, str):
        return CachedEncoder(SentenceEncoder(EncoderConfig(model=encoder)))
    return encoder


def encoded(table: Table, encoder: Encoder, progress: Progress) -> Vectors:
    """Return the (n, d) unit vectors of a table's usable rows."""
    return encoder.encode(table.texts, progress)


def given(embeddings: Embeddings, table: Table, name: str) -> Vectors:
    """Return the user's vectors of a table's usable rows, scaled to norm 1.

    A file is memory-mapped and read in blocks, so that a million rows need their float32 copy and no more.

    Args:
        embeddings: see `Embeddings`; any float type.
        table: the rows that they belong to, one vector for each row *before* anything was left out.
        name: what to call the argument in an error.

    Returns:
        (n, d) float32.

    Raises:
        InputError: the file cannot be read, the shape is wrong, or a usable row's vector is zero or not finite.
    """
    vectors = _opened(embeddings, name)
    if isinstance(embeddings, str | Path):
        name = f"{name}: {embeddings}"
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise InputError(f"{name}: expected a (rows, dimensions) array, found shape {vectors.shape}")
    if not np.issubdtype(vectors.dtype, np.floating):
        raise InputError(f"{name}: expected floating-point numbers, found {vectors.dtype}")
    if len(vectors) != len(table.frame):
        raise InputError(
            f"{name}: {len(vectors)} vectors for the {len(table.frame)} rows of {table.source}; there must be one for every "
            "row of the input, in its order, also for rows that are left out"
        )
    unit = np.empty((len(table.places), vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(unit), _BLOCK_ROWS):
        places = table.places[start : start + _BLOCK_ROWS]
        block = np.asarray(vectors[places])
        _check(block, places, name)
        # float16 would overflow in a norm, and wider types than float64 have no kernels.
        unit[start : start + _BLOCK_ROWS] = unit_rows(block.astype(np.float64))
    return unit


def alike_findings(X: Vectors) -> list[Finding]:
    """Say so if all (n, d) real vectors are the same; reads no further than to the first block that differs."""
    if len(X) < 2 or any((X[start : start + _BLOCK_ROWS] != X[0]).any() for start in range(0, len(X), _BLOCK_ROWS)):
        return []
    return [
        Finding(
            "real_rows_alike",
            "the vectors of all real rows are the same: there is no distribution to cover or to match, and no distance means "
            "anything; check the vectors, or what the text field holds",
        )
    ]


def _opened(embeddings: Embeddings, name: str) -> NDArray[np.floating]:
    if not isinstance(embeddings, str | Path):
        return np.asarray(embeddings)
    path = Path(embeddings).expanduser()
    try:
        opened = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{name}: {path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: {path}: not readable as a .npy array: {error}") from None
    if not isinstance(opened, np.ndarray):
        raise InputError(f"{name}: {path}: an archive of several arrays; save the one with the vectors by `numpy.save`")
    return opened


def _check(block: NDArray[np.floating], places: NDArray[np.int64], name: str) -> None:
    finite = np.isfinite(block).all(axis=1)
    for bad, what in ((~finite, "not finite"), (finite & ~block.any(axis=1), "all zeros")):
        if bad.any():
            rows = [int(place) for place in places[bad]]
            raise InputError(f"{name}: the vectors of {len(rows)} rows are {what}: rows {listed(rows)}, counted from 0")
