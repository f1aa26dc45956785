"""The rows that are measured on: embedded texts, given vectors or a Gaussian mixture; more rows than there are by bootstrap."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synalign_agent.core.arrays import Array
from synalign_agent.core.kernels import median_distance

_MAX_TEXTS = 24_000
"""Of each file; more rows are bootstrapped anyway."""
_MOST_MIXED = 0.35
_JITTER = 0.02
_BLOCK = 65_536
_HELD_OUT_SHARE = 0.2
_MIXTURE_ROWS, _MIXTURE_DIMENSIONS, _MIXTURE_CENTRES = 12_000, 384, 40


@dataclass(frozen=True, slots=True)
class Dataset:
    """Base rows, in random order, and what they are."""

    description: str
    real: Array
    synthetic: Array
    held_out: Array
    """Real rows that only score."""

    @property
    def fingerprint(self) -> str:
        """Hash the rows (12 hex digits)."""
        digest = hashlib.sha256()
        for rows in (self.real, self.synthetic, self.held_out):
            digest.update(rows.tobytes())
        return digest.hexdigest()[:12]

    def median_distance(self) -> float:
        """Return the median distance of real rows, the usual scale of a kernel."""
        return median_distance(self.real, np.random.default_rng(0))


def from_embeddings(paths: Sequence[Path], seed: int) -> Dataset:
    """Read REAL.npy, SYN.npy and, if given, HELDOUT.npy; without it a fifth of the real rows are held out."""
    real, synthetic, *rest = (np.load(path).astype(np.float32, copy=False) for path in paths)
    names = ", ".join(path.stem for path in paths)
    return _shuffled(f"given embeddings ({names})", real, synthetic, rest[0] if rest else None, seed)


def from_texts(folder: Path, cache: Path, seed: int) -> Dataset:
    """Embed `ref`, `pool` and `test`.jsonl.gz of a folder, objects with a field `text`, with the packaged encoder, once."""
    from synalign_agent.config import EncoderConfig
    from synalign_agent.embedding.encoder import SentenceEncoder

    encoder = SentenceEncoder(EncoderConfig())
    rows: dict[str, Array] = {}
    for name in ("ref", "pool", "test"):
        source = folder / f"{name}.jsonl.gz"
        digest = hashlib.sha256(source.read_bytes() + encoder.model_id.encode()).hexdigest()[:12]
        stored = cache / f"{folder.name}-{name}-{digest}.npy"
        if not stored.exists():
            with gzip.open(source, "rt", encoding="utf-8") as stream:
                texts = [json.loads(line)["text"] for line in stream]
            drawn = np.random.default_rng(seed).permutation(len(texts))[:_MAX_TEXTS]
            np.save(stored, encoder.encode([texts[row] for row in drawn]))
        rows[name] = np.load(stored)
    return _shuffled(f"{folder.name}, packaged encoder", rows["ref"], rows["pool"], rows["test"], seed)


def gaussian_mixture(seed: int) -> Dataset:
    """Draw 40 clusters on the sphere; the synthetic rows have the clusters in other shares, so there is something to align."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((_MIXTURE_CENTRES, _MIXTURE_DIMENSIONS), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)

    def draw(n: int) -> Array:
        labels = rng.choice(_MIXTURE_CENTRES, n, p=rng.dirichlet(np.full(_MIXTURE_CENTRES, 2.0)))
        noise = rng.standard_normal((n, _MIXTURE_DIMENSIONS), dtype=np.float32) * np.float32(_MIXTURE_DIMENSIONS**-0.5)
        rows: Array = centres[labels] + noise
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    return _shuffled("Gaussian mixture on the sphere", draw(_MIXTURE_ROWS), draw(2 * _MIXTURE_ROWS), None, seed)


def write_rows(path: Path, base: Array, n: int, seed: int) -> None:
    """Write n rows as .npy: the base rows and, where they are too few, a smoothed bootstrap of them.

    A bootstrapped row mixes two base rows (0 to 35 % of the second), adds N(0, 0.02^2) to each dimension and is scaled to
    norm 1. That is right for time and memory, and no evidence of quality.
    """
    if n <= len(base):
        np.save(path, base[:n])
        return
    rng = np.random.default_rng(seed)
    partial = path.with_suffix(".partial")
    out = np.lib.format.open_memmap(partial, "w+", np.float32, (n, base.shape[1]))
    for start in range(0, n, _BLOCK):
        size = min(_BLOCK, n - start)
        first, second = rng.integers(len(base), size=(2, size))
        share = rng.uniform(0.0, _MOST_MIXED, (size, 1)).astype(np.float32)
        mixed = (1.0 - share) * base[first] + share * base[second]
        mixed += rng.standard_normal(mixed.shape, dtype=np.float32) * np.float32(_JITTER)
        out[start : start + size] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    out.flush()
    partial.replace(path)


def read_rows(path: Path, n: int) -> Array:
    """Read the first n rows of a .npy file into memory of this process, without a map of the file."""
    with path.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        assert version == (1, 0), version
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        rows: Array = np.fromfile(stream, dtype, n * shape[1]).reshape(n, shape[1])
    return rows


def _shuffled(description: str, real: Array, synthetic: Array, held_out: Array | None, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    real, synthetic = real[rng.permutation(len(real))], synthetic[rng.permutation(len(synthetic))]
    if held_out is None:
        cut = int(len(real) * _HELD_OUT_SHARE)
        real, held_out = real[cut:], real[:cut]
    return Dataset(description, real, synthetic, held_out)
