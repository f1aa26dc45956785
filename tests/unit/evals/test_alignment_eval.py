"""The alignment eval from files to table and picture, on a tiny benchmark and a hash instead of an encoder."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("evals.alignment", reason="the evals are not part of the source distribution")
pytest.importorskip("matplotlib", reason="the picture needs the extra `eval`")

from evals import alignment, registry
from evals.alignment import Settings
from evals.output import markdown, write
from evals.results import EvalResult, matching
from synalign_agent.errors import InputError
from synalign_agent.toolkit.progress import silent

METHODS = ("random", "kernel", "session", "thinning", "dsir")
TINY = Settings(
    datasets=("tiny",), methods=METHODS, references=("10", "all"), n_selected=40, n_from_generator=20, pool_rows=300, n_seeds=2,
    generator_seeds=1, ess_shares=(2.0,), only_all_references=(),
)  # fmt: skip


def run(data_dir: Path, encoder: Any, settings: Settings = TINY) -> EvalResult:
    with pytest.MonkeyPatch.context() as patched:
        for module in ("alignment", "embeddings"):
            patched.setattr(f"evals.{module}.default_encoder", lambda: encoder)
        # As where the extra is not installed.
        patched.setitem(sys.modules, "goodpoints", None)
        return alignment.run(settings, silent, data_dir)


@pytest.fixture(scope="module")
def result(shared_data_dir: Path, word_encoder: Any) -> EvalResult:
    return run(shared_data_dir, word_encoder)


def test_a_run_has_all_scores_files_and_targets(result: EvalResult, tmp_path: Path) -> None:
    where = {"pool": "mixture", "reference": "all"}
    for metric in (
        "n_eq",
        "precision",
        "coverage",
        "c2st_auc",
        "near_duplicates",
        "distinct_2",
        "seconds",
        "mmd2_even_weights",
    ):
        if metric != "n_eq":
            assert len(matching(result.measurements, metric, {**where, "method": "kernel"})) == 2, metric
    means = {
        method: sum(entry.value or 0.0 for entry in matching(result.measurements, "mmd2", {**where, "method": method}))
        / 2
        for method in ("random", "kernel", "session", "dsir", "real")
    }
    # A quarter of the pool lacks three words of eight: what is chosen well has them again.
    assert 0.0 < means["kernel"] < means["random"]
    assert means["kernel"] != means["session"] < means["random"]
    assert {entry.condition["pool"] for entry in result.measurements} == {"mixture", "model-0", "model-3"}
    assert matching(result.measurements, "n_selected", {**where, "method": "kernel"})[0].value == 40

    missing = [
        entry for entry in result.measurements if entry.value is None and entry.condition["method"] == "thinning"
    ]
    assert missing and all("pip install '.[eval]'" in (entry.reason or "") for entry in missing)

    paths = write(alignment, result, tmp_path)
    assert EvalResult.load(Path(paths["json"])) == result
    table = Path(paths["table"]).read_text(encoding="utf-8")
    assert "kernel weights (ours)" in table and "| kernel thinning (goodpoints) | – |" in table
    assert "| mmd2 | goodpoints is not installed: pip install '.[eval]' | 6 |" in table
    assert Path(paths["figure"]).read_bytes().startswith(b"\x89PNG")
    met = {wanted: is_met for wanted, is_met, _ in alignment.targets(result)}
    assert met["tiny, selected rows: MMD² below kernel thinning (goodpoints)"] is None
    assert str(tmp_path) not in Path(paths["json"]).read_text(encoding="utf-8")


def test_weights_are_compared_where_ours_are_as_even(result: EvalResult) -> None:
    for entry in matching(result.measurements, "ess_even_weights", {}):
        assert entry.value is not None and entry.value >= 40 * 0.999
        ours = matching(result.measurements, "ess_ours_as_even_weights", entry.condition)[entry.seed]
        # Fitted to the effective sample size in whole rows, label by label.
        assert ours.value is not None and ours.value >= entry.value - 1.0


def test_a_run_alone_measures_what_it_measures_among_others(
    result: EvalResult, shared_data_dir: Path, word_encoder: Any
) -> None:
    settings = replace(TINY, methods=("kernel",), references=("all",), n_seeds=1, generator_seeds=0)
    alone = run(shared_data_dir, word_encoder, settings)
    timing = ("seconds", "peak_mb")
    found = [entry for entry in alone.measurements if entry.metric not in timing]
    assert len(found) > 30 and all(entry in result.measurements for entry in found)
    assert alone.fingerprint != result.fingerprint and alone.digests == result.digests


def test_no_row_of_the_data_is_in_what_is_written(result: EvalResult, shared_data_dir: Path) -> None:
    written = markdown(alignment, result) + repr(result)
    for path in (shared_data_dir / "tiny").iterdir():
        for line in path.read_text(encoding="utf-8").splitlines():
            assert line.split('"text": "')[1].split('"')[0] not in written


def test_unknown_methods_are_refused(data_dir: Path) -> None:
    with pytest.raises(InputError, match="oracle"):
        alignment.run(replace(TINY, methods=("oracle",)), silent, data_dir)


def test_settings_are_set_by_field() -> None:
    settings = registry.settings_of(alignment, "short", ["references=[20, all]", "n_seeds=1", "datasets=sst2"])
    assert (settings.references, settings.n_seeds, settings.datasets) == (("20", "all"), 1, ("sst2",))
    for wrong in ("seeds=1", "n_seeds", "n_seeds=many", "n_seeds=[1"):
        with pytest.raises(InputError, match="--set"):
            registry.settings_of(alignment, "short", [wrong])
    with pytest.raises(InputError, match="alignment"):
        registry.load("nothing")


@pytest.mark.parametrize("name", registry.available())
def test_every_eval_has_what_the_frame_calls(name: str) -> None:
    module = registry.load(name)
    assert registry.available()[name].endswith((".", "?"))
    for preset in registry.PRESETS:
        assert registry.settings_of(module, preset, []) == module.Settings.preset(preset)
    assert all(callable(getattr(module, part)) for part in ("run", "tables", "figure", "targets"))
