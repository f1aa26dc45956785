"""A tiny benchmark on disk: two labels, two generators, texts of a few words."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import HashingVectorizer

WORDS = {
    "sport": ["goal", "match", "league", "coach", "striker", "derby", "cup", "penalty"],
    "trade": ["stocks", "market", "bank", "profit", "shares", "merger", "bonds", "oil"],
}


def texts(label: str, n: int, seed: int, shift: int = 0) -> list[str]:
    rng = np.random.default_rng([seed, len(label), shift])
    # A shift of 3 leaves three of the words out.
    return [f"{' '.join(rng.choice(WORDS[label][shift:], 4))} {seed} {row}" for row in range(n)]


class WordEncoder:
    """Embeds texts by their words, hashed to 64 dimensions."""

    model_id = "words-64"

    def encode(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Any:
        hashed = HashingVectorizer(n_features=64, norm="l2").transform([f"{text} ." for text in texts])
        return hashed.toarray().astype(np.float32)


def write_tiny(data_dir: Path) -> Path:
    """Write the benchmark `tiny` into a folder and return the folder."""
    folder = data_dir / "tiny"
    folder.mkdir(parents=True)
    for part, seed, n in (("ref", 1, 40), ("test", 2, 40), ("pool", 3, 120)):
        rows = [
            {"text": text, "label": label} | ({"generator": f"model-{shift}"} if part == "pool" else {})
            for label in WORDS
            for shift in ((0, 3) if part == "pool" else (0,))
            for text in texts(label, n, seed, shift)
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return data_dir


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "data")


@pytest.fixture(scope="module")
def shared_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for tests that leave it as it is."""
    return write_tiny(tmp_path_factory.mktemp("shared") / "data")


@pytest.fixture
def open_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sessions keep what the scripted writer writes: it is about none of the labels, and longer."""
    gates = {"label_check": {"method": "none"}, "length": {"min_characters": 1, "max_characters": 400}}
    monkeypatch.setattr("evals.loop_arms._GATES", gates)


@pytest.fixture(scope="module")
def word_encoder() -> WordEncoder:
    return WordEncoder()
