from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

import synalign_agent
from synalign_agent import align
from synalign_agent.errors import InputError
from synalign_agent.toolkit import Objective
from synalign_agent.toolkit.align import AlignResult

Records = list[dict[str, str]]


@pytest.fixture
def result(real: Records, pool: Records, encoder: Any) -> AlignResult:
    return align(real, pool, n_samples=80, label_column="label", encoder=encoder, seed=1)


def kinds(result: AlignResult) -> dict[str, dict[str, Any]]:
    return {finding["kind"]: finding for finding in result.report["findings"]}


def test_every_synthetic_row_comes_back_in_its_place_with_its_fields(result: AlignResult, pool: Records) -> None:
    frame = result.rows
    assert frame[["text", "label", "from"]].to_dict("records") == pool
    assert frame["weight"].sum() == pytest.approx(1.0) and frame["weight"].min() >= 0
    assert frame["selected"].sum() == frame["copies"].sum() == 80
    assert frame["left_out"].isna().all()


def test_selected_rows_have_the_labels_and_are_nearer_to_the_real_rows(result: AlignResult) -> None:
    chosen = result.dataset()
    assert chosen["label"].value_counts().to_dict() == {"animal": 40, "thing": 40}
    # In the pool, 40 of 180 animals are dogs; of the real ones half are.
    assert chosen["text"].str.startswith("dogs").sum() == pytest.approx(20, abs=5)
    mmd2, n_eq = result.report["mmd2"], result.report["n_eq"]
    assert mmd2["aligned"] < mmd2["raw"] and mmd2["floor"] < mmd2["floor_quantile"]
    assert n_eq["floor"] > n_eq["aligned"] > n_eq["raw"]


def test_the_missing_topic_is_the_gap(result: AlignResult) -> None:
    gap = result.report["gap_map"][0]
    assert gap["label"] == "thing" and gap["pool_mass"] == gap["synthetic_mass"] == 0
    assert all(text.startswith("tea real") for text in gap["examples"])
    assert sum(gap["mass"] for gap in result.report["gap_map"]) == pytest.approx(0.25, abs=0.1)


def test_examples_are_never_held_out_rows(result: AlignResult, real: Records) -> None:
    from synalign_agent.data.split import split_rows

    texts, labels = [row["text"] for row in real], [row["label"] for row in real]
    split = split_rows(texts, labels, holdout_fraction=0.2, min_holdout_rows=20, seed=1)
    held_out = {row.text for row in split if row.split == "holdout"}
    shown = {text for gap in result.report["gap_map"] for text in gap["examples"]}
    assert result.report["n_held_out"] == len(held_out) == 40
    assert shown and not shown & held_out


def test_the_report_is_plain_json_with_every_number(result: AlignResult) -> None:
    report = result.report
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["mmd2"].keys() == {"raw", "aligned", "floor", "floor_quantile"}
    assert report["n_eq"].keys() == {"raw", "aligned", "floor"}
    assert report["per_label"]["animal"]["n_requested"] == report["per_label"]["animal"]["n_selected"] == 40
    assert report["seconds"].keys() == {"read", "embed", "align", "gap_map", "total"}
    assert 0 <= report["p_value"] <= 1 and report["ess"] > 1 and 0 <= report["duality_gap"] <= 1e-5
    assert (report["scored_on"], report["encoder"], report["seed"]) == ("holdout", "topics", 1)
    assert report["findings"] == report["warnings"] == []


def test_the_same_seed_gives_the_same_rows_and_another_one_another_hold_out(
    result: AlignResult, real: Records, pool: Records, encoder: Any
) -> None:
    again = align(real, pool, n_samples=80, label_column="label", encoder=encoder, seed=1)
    pd.testing.assert_frame_equal(result.rows, again.rows)
    assert {**again.report, "seconds": 0} == {**result.report, "seconds": 0}
    other = align(real, pool, n_samples=80, label_column="label", encoder=encoder, seed=2)
    assert other.report["mmd2"]["raw"] != result.report["mmd2"]["raw"]


@pytest.mark.parametrize("objective", get_args(Objective))
def test_every_objective_selects_and_none_is_no_nearer_than_chance(
    objective: Any, real: Records, pool: Records, encoder: Any
) -> None:
    found = align(real, pool, n_samples=80, label_column="label", encoder=encoder, objective=objective)
    assert found.report["n_selected"] == 80 and found.report["objective"] == objective
    gain = found.report["mmd2"]["raw"] - found.report["mmd2"]["aligned"]
    assert abs(gain) < 0.02 if objective == "none" else gain > 0.01


def test_weights_keep_to_cap_and_effective_sample_size(real: Records, pool: Records, encoder: Any) -> None:
    options: dict[str, Any] = {"n_samples": 20, "encoder": encoder}
    narrow, wide = (align(real, pool, **options, max_copies=copies) for copies in (1, 20))
    assert narrow.rows["weight"].max() <= 1 / 20 + 1e-9 < wide.rows["weight"].max()
    capped = align(real, pool, **options, max_copies=20, cap=1.5)
    assert capped.rows["weight"].max() <= 1.5 / 20 + 1e-9
    spread = align(real, pool, **options, min_ess=100)
    assert spread.report["ess"] >= 100 * (1 - 1e-6) > narrow.report["ess"]


def test_swaps_come_nearer_to_the_real_rows_fitted_to(real: Records, pool: Records, encoder: Any) -> None:
    # Without a hold-out, what is scored is what was fitted.
    with_swaps, without = (
        align(real, pool, n_samples=20, encoder=encoder, holdout_fraction=0, swaps=swaps).report["mmd2"]["aligned"]
        for swaps in (True, False)
    )
    assert with_swaps < without


def test_own_vectors_stand_for_the_encoder(result: AlignResult, real: Records, pool: Records, encoder: Any) -> None:
    X, Z = (5 * encoder.encode([row["text"] for row in part]) for part in (real, pool))
    found = align(real, pool, n_samples=80, label_column="label", seed=1, embeddings=X, synthetic_embeddings=Z)
    assert found.report["encoder"] is None
    assert found.report["mmd2"]["raw"] == pytest.approx(result.report["mmd2"]["raw"], rel=1e-5)
    assert found.rows["weight"].to_numpy() == pytest.approx(result.rows["weight"].to_numpy(), abs=1e-2)


def test_without_labels_rows_are_one_group(real: Records, pool: Records, encoder: Any) -> None:
    found = align([row["text"] for row in real], [row["text"] for row in pool], n_samples=50, encoder=encoder)
    assert found.report["per_label"].keys() == {"all"} and found.report["n_selected"] == 50
    assert found.report["findings"] == []
    assert found.report["n_eq"]["floor"] == pytest.approx(50, rel=0.25)  # 50 real rows are worth 50 real rows
    assert list(found.rows.columns) == ["text", "weight", "selected", "copies", "left_out"]


def test_labels_that_are_not_used_are_mentioned(real: Records, pool: Records, encoder: Any) -> None:
    assert "labels_not_used" in kinds(align(real, pool, n_samples=10, encoder=encoder))


def test_a_label_that_the_pool_lacks_is_a_finding(real: Records, pool: Records, encoder: Any) -> None:
    animals = [row for row in pool if row["label"] == "animal"]
    found = align(real, animals, n_samples=60, label_column="label", encoder=encoder)
    assert kinds(found)["label_missing_in_pool"]["labels"] == {"thing": 0.5}
    assert kinds(found)["fewer_rows_than_asked"]["short"] == {"thing": 30}
    assert found.report["n_selected"] == 30 and found.report["p_value"] is None
    assert found.report["per_label"]["thing"]["mmd2"]["aligned"] is None
    assert sum(gap["mass"] for gap in found.report["gap_map"] if gap["label"] == "thing") == pytest.approx(0.5)


def test_a_label_that_is_not_real_is_left_out(real: Records, pool: Records, encoder: Any) -> None:
    strange = {"text": "cats in space", "label": "robot", "from": "synthetic"}
    found = align(real, [strange, *pool], n_samples=60, label_column="label", encoder=encoder)
    assert found.rows["left_out"].iloc[0] == "label_not_in_real" and found.rows["weight"].iloc[0] == 0
    assert kinds(found)["label_not_in_real"]["count"] == 1
    with pytest.raises(InputError, match=r"no label of synthetic \('robot'\) is one of real"):
        align(real, [strange], n_samples=60, label_column="label", encoder=encoder)


def test_more_rows_than_there_are(real: Records, pool: Records, encoder: Any) -> None:
    found = align(real, pool, n_samples=400, label_column="label", encoder=encoder)
    assert found.rows["copies"].tolist() == [1] * 300
    assert kinds(found)["fewer_rows_than_asked"] | {"message": ""} == {
        "kind": "fewer_rows_than_asked", "message": "", "n_requested": 400, "n_selected": 300,
        "short": {"animal": 20, "thing": 80},
    }  # fmt: skip
    assert kinds(found)["no_choice"]["labels"] == ["animal", "thing"]
    twice = align(real, pool, n_samples=400, label_column="label", encoder=encoder, max_copies=2)
    assert twice.report["n_selected"] == 400 == len(twice.dataset()) and twice.rows["copies"].max() == 2
    assert kinds(twice)["duplicates"]["count"] == 400 - twice.report["n_distinct"]


def test_one_synthetic_row(real: Records, encoder: Any) -> None:
    found = align(real, ["cats are fine"], n_samples=5, encoder=encoder)
    assert found.rows["copies"].tolist() == [1] and found.rows["weight"].tolist() == [1.0]
    assert found.report["mmd2"]["raw"] == pytest.approx(found.report["mmd2"]["aligned"])


def test_a_few_real_rows_are_scored_on_themselves_and_it_is_said(pool: Records, encoder: Any) -> None:
    found = align(["cats a", "cats b", "dogs c"], pool, n_samples=10, encoder=encoder)
    assert found.report["scored_on"] == "reference" and found.report["p_value"] is None
    assert kinds(found)["no_holdout"]["scored_on"] == "reference"


def test_repeats_and_empty_rows_keep_their_place_without_weight(real: Records, encoder: Any) -> None:
    found = align(real, ["cats a", "", "cats a", "dogs b", "tea c"], n_samples=2, encoder=encoder)
    assert found.rows["left_out"].tolist() == [None, "empty", "duplicate", None, None]
    assert (found.rows["copies"][[1, 2]] == 0).all() and found.report["n_selected"] == 2
    assert found.report["n_pool"] == 3 and found.report["n_synthetic"] == 5


def test_copies_of_real_rows_are_mentioned(real: Records, pool: Records, encoder: Any) -> None:
    found = align(real, [*pool, *real[:3], *real[150:153]], n_samples=100, label_column="label", encoder=encoder)
    copies = kinds(found)["copies_of_real_rows"]
    assert copies["count"] == 6
    assert copies["n_selected"] == found.rows["selected"].iloc[300:].sum() >= 3  # the only tea there is


def test_near_duplicates_among_the_selected_rows_are_counted() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 16)).astype(np.float32)
    X_pool = rng.normal(size=(12, 16)).astype(np.float32)
    X_pool[9:] = 3.0 * X_pool[:3] + 0.01  # nearly in the same direction
    found = align(
        [f"real {row}" for row in range(40)],
        [f"synthetic {row}" for row in range(12)],
        n_samples=12,
        embeddings=X,
        synthetic_embeddings=X_pool,
    )
    found_there = kinds(found)["near_duplicates"]
    assert (found_there["count"], found_there["count_real"], found_there["n"]) == (3, 0, 12)
    assert "near_duplicates" not in kinds(
        align(
            [f"real {row}" for row in range(40)],
            [f"synthetic {row}" for row in range(9)],
            n_samples=9,
            embeddings=X,
            synthetic_embeddings=X_pool[:9],
        )
    )


def test_columns_of_the_user_are_kept_beside_ours(real: Records, pool: Records, encoder: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame(pool).assign(weight=7, mixed=["a", 1] * 150, input_weight=8)
    found = align(real, frame, n_samples=20, label_column="label", encoder=encoder)
    assert (found.rows["input_input_weight"] == 7).all() and (found.rows["input_weight"] == 8).all()
    assert found.rows["weight"].sum() == pytest.approx(1.0)
    assert list(frame.columns[-3:]) == ["weight", "mixed", "input_weight"]  # the caller's frame is the caller's
    assert found.save(tmp_path).keys() == {"dataset", "pool", "report"}


def test_saved_files_hold_what_was_returned(result: AlignResult, tmp_path: Path) -> None:
    paths = result.save(tmp_path / "new" / "folder")
    pool = pd.read_parquet(paths["pool"])
    pd.testing.assert_frame_equal(pool, result.rows, check_dtype=False)
    lines = pd.read_json(tmp_path / "new" / "folder" / "pool.jsonl", lines=True)
    assert lines["weight"].to_numpy() == pytest.approx(result.rows["weight"].to_numpy(), rel=1e-12)
    assert len(pd.read_parquet(paths["dataset"])) == 80
    assert json.loads(Path(paths["report"]).read_text(encoding="utf-8")) == result.report
    assert not list(tmp_path.rglob("*.tmp"))


def test_progress_names_the_stages_in_order(real: Records, pool: Records, encoder: Any) -> None:
    seen: list[tuple[str, int, int]] = []
    align(real, pool, n_samples=10, encoder=encoder, progress=lambda *event: seen.append(event))
    stages = list(dict.fromkeys(what for what, _, _ in seen))
    assert stages[0] == "Reading rows" and stages[-1] == "Mapping gaps"
    assert ("Embedding synthetic rows", 300, 300) in seen and ("Embedding real rows", 200, 200) in seen


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_samples": 0}, "n_samples"),
        ({"max_copies": 0}, "max_copies"),
        ({"cap": 0.5}, "cap must be >= 1"),
        ({"objective": "best"}, "no objective 'best'"),
        ({"objective": "herding", "min_ess": 5.0}, "min_ess"),
        ({"holdout_fraction": 1.0}, "holdout_fraction"),
        ({"embeddings": np.ones((200, 3))}, "or for neither"),
        ({"embeddings": np.ones((200, 3)), "synthetic_embeddings": np.ones((300, 4))}, "3 dimensions .* 4"),
        ({"embeddings": np.ones((200, 3)), "synthetic_embeddings": np.ones((200, 3))}, "200 vectors for the 300 rows"),
        ({"label_column": "text"}, "single real row"),
    ],
)
def test_wrong_options_are_named(
    real: Records, pool: Records, encoder: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        align(real, pool, **{"n_samples": 10, "encoder": encoder, **options})


def test_the_functions_are_public_names() -> None:
    assert {"align", "explore"} <= set(synalign_agent.__all__)
    assert callable(synalign_agent.align) and callable(synalign_agent.explore)
    with pytest.raises(AttributeError, match="nothing"):
        _ = synalign_agent.nothing
