"""The ONNX encoder against the model that it was exported from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")

from synalign_agent.config import EncoderConfig
from synalign_agent.embedding import encoder as encoder_module
from synalign_agent.embedding import onnx_export
from synalign_agent.embedding.encoder import SentenceEncoder
from synalign_agent.embedding.onnx_export import OnnxEncoder
from synalign_agent.embedding.precision import PROBE_TEXTS, least_cosine
from synalign_agent.errors import ConfigError

WORDS = [f"w{number}" for number in range(60)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a two-layer BERT of 20 kB with random weights and mean pooling."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]), "utf-8")
    torch.manual_seed(0)
    BertModel(
        BertConfig(vocab_size=65, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                   max_position_embeddings=24)
    ).save_pretrained(folder)  # fmt: skip
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    made = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    made.max_seq_length = 24
    return made


def texts(n: int, longest: int = 30) -> list[str]:
    """Return texts of 1 to `longest` words, some longer than the model reads."""
    rng = np.random.default_rng(4)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, longest + 1))) for _ in range(n)]


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the exported graph: an export takes seconds."""
    made = tmp_path_factory.mktemp("onnx")
    OnnxEncoder(model, made)
    return made


def test_vectors_are_those_of_the_model_in_every_batch_and_length(model: Any, folder: Path) -> None:
    given = texts(40)
    expected = model.encode(given, show_progress_bar=False)
    for batch_size in (1, 7, 64):
        found = OnnxEncoder(model, folder).encode(given, batch_size)
        assert found.dtype == np.float32 and found.shape == (40, 16)
        assert found == pytest.approx(expected, abs=1e-5)


def test_other_weights_are_exported_anew(model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    (exported,) = folder.iterdir()
    paths: list[Path] = []

    def export(model: Any, transformer: Any, path: Path) -> None:
        paths.append(path)
        path.write_bytes(exported.read_bytes())

    monkeypatch.setattr(onnx_export, "_export", export)
    OnnxEncoder(model, folder)
    assert paths == []
    weights = model[0].auto_model.embeddings.word_embeddings.weight
    before = weights.detach().clone()
    with torch.no_grad():
        weights[10] += 1
    OnnxEncoder(model, folder)
    with torch.no_grad():
        weights.copy_(before)
    assert len(paths) == 1 and len(list(folder.iterdir())) == 2


def test_an_export_that_dies_leaves_nothing_to_be_taken_for_a_graph(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(model: Any, transformer: Any, path: Path) -> None:
        path.write_bytes(b"half a graph")
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_export, "_export", dies)
    with pytest.raises(KeyboardInterrupt):
        OnnxEncoder(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_whose_vectors_differ_is_refused(
    model: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(OnnxEncoder):
        def __init__(self, model: Any, elsewhere: Path) -> None:
            super().__init__(model, folder)

        def encode(self, texts: list[str], batch_size: int) -> Any:
            return super().encode(texts, batch_size)[::-1]

    monkeypatch.setattr(encoder_module, "OnnxEncoder", Wrong)
    encoder = SentenceEncoder(EncoderConfig(model=str(tmp_path), precision="onnx"))
    monkeypatch.setattr(encoder, "_load", lambda precision, device: model)
    with pytest.raises(ConfigError, match="differ from its own"):
        encoder.encode(["w1"])


@pytest.mark.slow
def test_the_packaged_encoder_in_onnx_runtime_is_the_packaged_encoder() -> None:
    onnx = SentenceEncoder(EncoderConfig(precision="onnx"))
    assert onnx.model_id.endswith(":onnx")
    exact = SentenceEncoder(EncoderConfig(precision="float32"))
    assert least_cosine(exact.encode(PROBE_TEXTS), onnx.encode(PROBE_TEXTS)) > 0.99999
