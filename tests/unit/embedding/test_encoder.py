"""The packaged sentence encoder, for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synalign_agent.config import EncoderConfig
from synalign_agent.embedding import encoder as encoder_module
from synalign_agent.embedding.encoder import SentenceEncoder, weights_digest
from synalign_agent.errors import ConfigError, MissingExtraError

TEXTS = ["Where is my parcel?", "my package has not arrived", "The invoice lists VAT twice.", "ok"]


@pytest.mark.slow
def test_unit_vectors_in_input_order_that_know_what_texts_mean() -> None:
    encoder = SentenceEncoder(EncoderConfig(precision="float32"))
    calls: list[tuple[int, int]] = []
    X = encoder.encode(TEXTS, lambda done, total: calls.append((done, total)))
    assert X.shape == (4, 384) and X.dtype == np.float32
    assert np.allclose(np.linalg.norm(X, axis=1), 1, atol=1e-5)
    assert X[0] @ X[1] > X[0] @ X[2] + 0.2
    assert np.allclose(encoder.encode(TEXTS[::-1])[::-1], X, atol=1e-5)
    assert calls == [(4, 4)]
    assert encoder.encode([]).shape == (0, 384)

    fast = SentenceEncoder(EncoderConfig(precision="bfloat16")).encode(TEXTS)
    assert (fast * X).sum(axis=1).min() > 0.999


def test_the_id_depends_on_weights_and_precision(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    first = SentenceEncoder(EncoderConfig(model=str(tmp_path), precision="float32")).model_id
    assert first != SentenceEncoder(EncoderConfig(model=str(tmp_path), precision="bfloat16")).model_id
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert first != SentenceEncoder(EncoderConfig(model=str(tmp_path), precision="float32")).model_id
    assert len(weights_digest(tmp_path)) == 12


@pytest.mark.parametrize("asked", ["auto", "float32"])
def test_a_pinned_precision_replaces_auto_only(tmp_path: Path, asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "choose_precision", None)  # a pinned precision is not chosen again
    encoder = SentenceEncoder(EncoderConfig(model=str(tmp_path), precision=asked), "model@1:2:bfloat16")
    assert encoder.precision == ("bfloat16" if asked == "auto" else "float32")
    assert encoder.model_id.endswith(f":{encoder.precision}")


def test_an_id_of_another_kind_pins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "choose_precision", lambda *_: "float32")
    for like in ("hash-64", "model:int8", ""):
        assert SentenceEncoder(EncoderConfig(model=str(tmp_path)), like).precision == "float32"


def test_chunks_come_back_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "_CHUNK_TEXTS", 3)
    seen: list[list[str]] = []

    def embed(texts: list[str]) -> Any:
        seen.append(texts)
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)

    encoder = SentenceEncoder(EncoderConfig(model=str(tmp_path), precision="float32"))
    monkeypatch.setattr(encoder, "_open", lambda precision: embed)
    texts = ["x" * n for n in (4, 9, 1, 7, 3, 8, 2)]
    calls: list[int] = []
    X = encoder.encode(texts, lambda done, total: calls.append(done))
    assert [round(row[0] / row[1]) for row in X.tolist()] == [len(text) for text in texts]
    assert np.allclose(np.linalg.norm(X, axis=1), 1, atol=1e-6)
    assert [[len(text) for text in part] for part in seen] == [[9, 8, 7], [4, 3, 2], [1]]
    assert calls == [3, 6, 7]


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    encoder = SentenceEncoder(EncoderConfig(model=str(tmp_path), precision="float32"))
    with pytest.raises(ConfigError, match=r"encoder\.model"):
        encoder.encode(["x"])


def test_a_missing_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "onnx_installed", lambda: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'synalign-agent\[onnx\]'"):
        SentenceEncoder(EncoderConfig(model=str(tmp_path), precision="onnx"))
    monkeypatch.setattr(encoder_module, "PACKAGED_ENCODER", "no_such_package")
    with pytest.raises(MissingExtraError, match=r"pip install 'synalign-agent\[local\]'"):
        SentenceEncoder(EncoderConfig())
