"""Real and synthetic rows whose vectors are known: topics on the axes of a small space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

TOPICS = ("cats", "dogs", "cars", "tea")


class TopicEncoder:
    """Places a text near the axis of its first word; the rest of the text moves it a little."""

    model_id = "topics"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def encode(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Any:
        self.calls.append(len(texts))
        X = np.stack([self._place(text) for text in texts]).astype(np.float32)
        if progress is not None:
            progress(len(texts), len(texts))
        return X / np.linalg.norm(X, axis=1, keepdims=True)

    def _place(self, text: str) -> Any:
        axis = TOPICS.index(text.split()[0])
        rng = np.random.default_rng(list(text.encode()))
        return np.eye(6)[axis] + 0.15 * rng.normal(size=6)


def rows(
    counts: dict[str, int], origin: str, label: Callable[[str], str] = lambda topic: "all"
) -> list[dict[str, str]]:
    """Return that many rows of each topic."""
    return [
        {"text": f"{topic} {origin} {number}", "label": label(topic), "from": origin}
        for topic, count in counts.items()
        for number in range(count)
    ]


def animal_or_thing(topic: str) -> str:
    return "animal" if topic in ("cats", "dogs") else "thing"


@pytest.fixture
def encoder() -> TopicEncoder:
    return TopicEncoder()


@pytest.fixture
def real() -> list[dict[str, str]]:
    """200 rows, a quarter of each topic."""
    return rows(dict.fromkeys(TOPICS, 50), "real", animal_or_thing)


@pytest.fixture
def pool() -> list[dict[str, str]]:
    """300 rows: mostly cats and cars, and no tea."""
    return rows({"cats": 140, "dogs": 40, "cars": 120}, "synthetic", animal_or_thing)
