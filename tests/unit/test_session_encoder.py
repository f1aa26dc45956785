"""A session keeps the encoder that it was made with: the weights and the precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import HashEncoder

from synalign_agent import wiring
from synalign_agent.config import EncoderConfig, SessionConfig
from synalign_agent.embedding import encoder as encoder_module
from synalign_agent.errors import SessionError
from synalign_agent.session import Session
from synalign_agent.stores.memory import MemorySessionStore


@pytest.fixture
def config(tmp_path: Path) -> SessionConfig:
    """Return a configuration whose encoder is a folder with weights, which nothing loads."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"one")
    base = SessionConfig.parse(
        {"data": {"path": "example:customer_messages"}, "task": "messages", "llm": {"model": "m"}}, source="test"
    )
    return base.model_copy(update={"encoder": EncoderConfig(model=str(tmp_path / "model"))})


def choose(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "choose_precision", lambda *_: precision)


@pytest.mark.parametrize(("here", "elsewhere"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("onnx", "float32")])
def test_a_resumed_session_embeds_in_the_precision_it_was_made_with(
    config: SessionConfig, tmp_path: Path, here: str, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "onnx_installed", lambda: True)
    store = MemorySessionStore()
    choose(here, monkeypatch)
    made = wiring.session_encoder(tmp_path, store, config).model_id
    assert made.endswith(f":{here}")
    choose(elsewhere, monkeypatch)  # another machine, or another torch
    assert wiring.make_encoder(config).model_id.endswith(f":{elsewhere}")
    assert wiring.session_encoder(tmp_path, store, config).model_id == made
    assert wiring.session_encoder(tmp_path, MemorySessionStore(), config).model_id.endswith(f":{elsewhere}")


def test_other_weights_in_the_same_folder_are_refused(
    config: SessionConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose("float32", monkeypatch)
    store = MemorySessionStore()
    made = wiring.session_encoder(tmp_path, store, config).model_id
    (tmp_path / "model" / "model.safetensors").write_bytes(b"two")
    with pytest.raises(SessionError, match=f"was made with the encoder {made}.*Put the former model back"):
        wiring.session_encoder(tmp_path, store, config)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"one")
    assert wiring.session_encoder(tmp_path, store, config).model_id == made


def test_a_session_that_goes_on_with_another_encoder_is_refused(
    hash_encoder: HashEncoder, make_config: Callable[..., SessionConfig]
) -> None:
    config = make_config()
    with Session.create(config, thread_id="t") as session:
        session.run()
    hash_encoder.model_id = "hash-65"
    with Session.open("t", runs_dir=config.runs_dir) as session:
        with pytest.raises(SessionError, match="made with the encoder hash-64"):
            session.export()
        hash_encoder.model_id = "hash-64"
        session.export()
