"""No text is embedded twice for one model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from conftest import HashEncoder

from synalign_agent.embedding.cache import CachedEncoder


class Counting(HashEncoder):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str], progress: Any = None) -> Any:
        self.seen += texts
        return super().encode(texts)


def test_each_text_is_embedded_once_across_processes_and_in_order(tmp_path: Path) -> None:
    inner = Counting()
    first = CachedEncoder(inner, tmp_path / "cache.sqlite").encode(["a b", "c d", "a b"])
    again = CachedEncoder(inner, tmp_path / "cache.sqlite").encode(["e f", "c d", "a b"])
    assert inner.seen == ["a b", "c d", "e f"]
    assert np.array_equal(first[0], first[2])
    assert np.array_equal(again[1:], first[[1, 0]])
    assert np.array_equal(first, HashEncoder().encode(["a b", "c d", "a b"]))


def test_another_model_shares_nothing(tmp_path: Path) -> None:
    one, two = Counting(), Counting()
    two.model_id = "another"
    for inner in (one, two):
        CachedEncoder(inner, tmp_path / "cache.sqlite").encode(["a"])
    assert one.seen == two.seen == ["a"]


def test_no_texts_give_an_empty_matrix_of_the_right_width(tmp_path: Path) -> None:
    assert CachedEncoder(HashEncoder(), tmp_path / "cache.sqlite").encode([]).shape == (0, 64)


def test_many_texts_pass_the_lookup_limit(tmp_path: Path) -> None:
    inner = Counting()
    texts = [f"text number {n}" for n in range(1203)]
    encoder = CachedEncoder(inner, tmp_path / "cache.sqlite")
    assert np.array_equal(encoder.encode(texts), encoder.encode(texts))
    assert len(inner.seen) == 1203


def test_a_damaged_cache_is_done_without(tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"not a database" * 100)
    assert CachedEncoder(HashEncoder(), path).encode(["a"]).shape == (1, 64)
    assert "not usable" in caplog.text
