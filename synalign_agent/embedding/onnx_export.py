"""A sentence-transformers model whose transformer runs in ONNX Runtime, exported once per weights."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from synalign_agent.embedding.base import Vectors

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_FORMAT = 1  # raise when the exported graph changes


class OnnxEncoder:
    """Embeds texts by a loaded float32 model, with its first module, the transformer, replaced by an ONNX graph."""

    def __init__(self, model: Any, folder: Path) -> None:
        """Export the transformer of a sentence-transformers `model` to `folder`, unless it is there, and open it."""
        import onnxruntime
        import torch

        transformer = model[0].auto_model
        path = folder / f"{_state_digest(transformer)}-{_FORMAT}.onnx"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
            try:
                _export(model, transformer, temporary)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        self._model = model
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [given.name for given in self._session.get_inputs()]

    def encode(self, texts: list[str], batch_size: int) -> Vectors:
        """Return (len(texts), dimension) float32, len(texts) >= 1; batches are of the order given."""
        import torch

        parts: list[Vectors] = []
        with torch.inference_mode():
            for start in range(0, len(texts), batch_size):
                features = _tokenize(self._model, texts[start : start + batch_size])
                (hidden,) = self._session.run(None, {name: features[name].numpy() for name in self._inputs})
                features["token_embeddings"] = torch.from_numpy(hidden)
                for module in list(self._model)[1:]:
                    features = module(features)
                parts.append(features["sentence_embedding"].float().numpy())
        return np.concatenate(parts)


def _export(model: Any, transformer: Any, path: Path) -> None:
    import torch

    features = _tokenize(model, ["two texts", "of different lengths, so that one is padded"])
    names = [name for name in _INPUTS if name in features]

    class LastHiddenState(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, *given: Any) -> Any:
            return self.transformer(**dict(zip(names, given, strict=True))).last_hidden_state

    batch, tokens = (
        torch.export.Dim("batch", min=1, max=4096),
        torch.export.Dim("tokens", min=2, max=model.max_seq_length),
    )
    with warnings.catch_warnings():
        # It warns of names of axes, and of what its own parts deprecate.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            LastHiddenState().eval(),
            tuple(features[name] for name in names),
            str(path),
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_shapes=(tuple({0: batch, 1: tokens} for _ in names),),  # one entry: forward takes *given
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _tokenize(model: Any, texts: list[str]) -> Any:
    # sentence-transformers 6 renamed it.
    return (getattr(model, "preprocess", None) or model.tokenize)(texts)


def _state_digest(transformer: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(transformer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
