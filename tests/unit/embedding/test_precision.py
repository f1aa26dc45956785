"""The choice of an encoder's arithmetic, with encoders that agree with float32 as far as a test wants."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from synalign_agent.embedding import precision as module
from synalign_agent.embedding.precision import LEAST_COSINE, PROBE_TEXTS, Encode, choose_precision, least_cosine


class Opener:
    """Opens encoders whose vectors make, for one probe text, a given cosine with those of float32."""

    def __init__(self, cosine: float) -> None:
        self.cosine = cosine
        self.opened: list[str] = []

    def __call__(self, precision: str) -> Encode:
        self.opened.append(precision)
        vectors = np.tile(np.array([1.0, 0.0], dtype=np.float32), (len(PROBE_TEXTS), 1))
        if precision != "float32":
            vectors[3] = (self.cosine, np.sqrt(1 - self.cosine**2))
        return lambda texts: 2 * vectors[: len(texts)]


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "native_bfloat16", lambda: True)


@pytest.fixture
def only_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "native_bfloat16", lambda: False)
    monkeypatch.setattr(module, "onnx_installed", lambda: True)
    # What is remembered depends on the versions installed; the test needs none of them.
    monkeypatch.setattr(module.importlib.metadata, "version", lambda name: "1")


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize(("cosine", "chosen"), [(0.99995, "bfloat16"), (LEAST_COSINE - 0.001, "float32")])
def test_bfloat16_is_taken_where_its_vectors_agree(tmp_path: Path, cosine: float, chosen: str) -> None:
    opener = Opener(cosine)
    assert choose_precision("model", "cpu", opener, tmp_path / "precision.json") == chosen
    assert opener.opened == ["float32", "bfloat16"]


@pytest.mark.usefixtures("only_onnx")
@pytest.mark.parametrize(("cosine", "chosen"), [(1.0, "onnx"), (0.9, "float32")])
def test_onnx_is_taken_where_the_cpu_lacks_bfloat16(tmp_path: Path, cosine: float, chosen: str) -> None:
    assert choose_precision("model", "cpu", Opener(cosine), tmp_path / "precision.json") == chosen


def test_float32_is_taken_without_a_check_where_nothing_else_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = Opener(1.0)
    assert choose_precision("model", "cuda:0", opener, tmp_path / "precision.json") == "float32"
    monkeypatch.setattr(module, "native_bfloat16", lambda: False)
    monkeypatch.setattr(module, "onnx_installed", lambda: False)
    assert choose_precision("model", "cpu", opener, tmp_path / "precision.json") == "float32"
    assert opener.opened == [] and not list(tmp_path.iterdir())


@pytest.mark.usefixtures("bfloat16")
def test_the_outcome_is_remembered_by_model(tmp_path: Path) -> None:
    memory = tmp_path / "folder" / "precision.json"
    assert choose_precision("bad", None if module.runs_on_cpu(None) else "cpu", Opener(0.5), memory) == "float32"
    again = Opener(1.0)
    assert choose_precision("bad", "cpu", again, memory) == "float32" and again.opened == []
    assert choose_precision("good", "cpu", again, memory) == "bfloat16" and again.opened != []
    assert sorted(json.loads(memory.read_text(encoding="utf-8")).values()) == ["bfloat16", "float32"]
    assert [file.name for file in memory.parent.iterdir()] == ["precision.json"]


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("damaged", ["", "{", "[]", "null"])
def test_a_damaged_memory_is_written_anew(tmp_path: Path, damaged: str) -> None:
    memory = tmp_path / "precision.json"
    memory.write_text(damaged, encoding="utf-8")
    assert choose_precision("model", "cpu", Opener(1.0), memory) == "bfloat16"
    assert list(json.loads(memory.read_text(encoding="utf-8")).values()) == ["bfloat16"]


@pytest.mark.usefixtures("bfloat16")
def test_a_memory_that_names_nothing_known_is_not_believed(tmp_path: Path) -> None:
    memory = tmp_path / "precision.json"
    choose_precision("model", "cpu", Opener(1.0), memory)
    (key,) = json.loads(memory.read_text(encoding="utf-8"))
    memory.write_text(json.dumps({key: "int8"}), encoding="utf-8")
    assert choose_precision("model", "cpu", Opener(1.0), memory) == "bfloat16"


@pytest.mark.usefixtures("bfloat16")
def test_a_folder_that_cannot_be_written_only_costs_the_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert choose_precision("model", "cpu", Opener(1.0), tmp_path / "file" / "precision.json") == "bfloat16"
    assert "cannot be remembered" in caplog.text


@pytest.mark.usefixtures("only_onnx")
def test_a_runtime_that_fails_leaves_float32(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    right = Opener(1.0)

    def opener(precision: str) -> Encode:
        if precision == "onnx":
            raise RuntimeError("no such operator")
        return right(precision)

    assert choose_precision("model", "cpu", opener, tmp_path / "precision.json") == "float32"
    assert "no such operator" in caplog.text


def test_the_least_cosine_is_that_of_the_worst_row() -> None:
    one = np.array([[1, 0], [0, 3]], dtype=np.float32)
    other = np.array([[5, 0], [1, 1]], dtype=np.float32)
    assert least_cosine(one, other) == pytest.approx(np.sqrt(0.5))


def test_this_machine_can_be_asked() -> None:
    assert module.native_bfloat16() in (True, False)
    assert module.runs_on_cpu("cpu") and not module.runs_on_cpu("cuda:1")
    assert len(PROBE_TEXTS) == len(set(PROBE_TEXTS)) and min(map(len, PROBE_TEXTS)) < 5 < 200 < max(
        map(len, PROBE_TEXTS)
    )
