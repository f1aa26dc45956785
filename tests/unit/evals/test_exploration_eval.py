"""The exploration eval on a tiny benchmark and a hash instead of an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("evals.exploration", reason="the evals are not part of the source distribution")
pytest.importorskip("matplotlib", reason="the picture needs the extra `eval`")

from evals import exploration
from evals.exploration import Settings, _Label, pick
from evals.results import EvalResult, matching
from synalign_agent.errors import InputError
from synalign_agent.toolkit.progress import silent

TINY = Settings(
    datasets=("tiny",), strategies=("ivr", "gp", "gp_density_0.5", "kmeans", "farthest", "random"), picks=(4, 8, 50),
    lengthscales=(0.5,), n_seeds=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def result(shared_data_dir: Path, word_encoder: Any) -> EvalResult:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("evals.embeddings.default_encoder", lambda: word_encoder)
        return exploration.run(TINY, silent, shared_data_dir)


def test_every_strategy_has_every_score_and_gaps_have_their_reason(result: EvalResult) -> None:
    for strategy in TINY.strategies:
        for metric in ("hull", "nearest", "radius", "macro_f1"):
            found = matching(result.measurements, metric, {"strategy": strategy, "picks": 8, "lengthscale": 0.7})
            assert [entry.seed for entry in found if entry.value is not None] == [0, 1], (strategy, metric)
    missing = matching(result.measurements, "hull", {"picks": 50})
    assert missing and all(entry.value is None and "fewer than 50" in (entry.reason or "") for entry in missing)


def test_more_picks_are_never_farther_away(result: EvalResult) -> None:
    for strategy in ("ivr", "random"):
        few, many = (
            matching(result.measurements, "nearest", {"strategy": strategy, "picks": n, "lengthscale": 0.7})
            for n in (4, 8)
        )
        for one, other in zip(few, many, strict=True):
            assert one.value is not None and other.value is not None and other.value < one.value


def test_tables_figure_and_targets_come_from_a_saved_result(result: EvalResult, tmp_path: Path) -> None:
    loaded = EvalResult.load(result.save(tmp_path))
    assert [table.row_count for table in exploration.tables(loaded)] == [6, 6, 6, 6, 8]
    exploration.figure(loaded).savefig(tmp_path / "exploration.png")
    found = {wanted: (met, figure) for wanted, met, figure in exploration.targets(loaded)}
    assert found["tiny: hull of 50 picks covers what that of 100 random ones does"] == (None, "not measured")
    assert found["tiny: 8 picks a label are no farther from the rows than 8 random ones"][0] in (True, False)


def test_picks_are_distinct_and_a_prefix_is_what_fewer_picks_are() -> None:
    X = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    label = _Label(0, X / np.linalg.norm(X, axis=1, keepdims=True), X[:1], 1.4)
    for strategy in TINY.strategies:
        found = pick(label, strategy, 0.7, (5, 20, 90), seed=0)
        assert sorted(found) == [5, 20] and len(set(found[20].tolist())) == 20
        assert strategy == "kmeans" or found[5].tolist() == found[20][:5].tolist()
    with pytest.raises(InputError, match="unknown"):
        pick(label, "best", 0.7, (5,), seed=0)
