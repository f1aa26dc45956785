from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from synalign_agent import explore
from synalign_agent.core.coverage import radius_coverage
from synalign_agent.errors import InputError
from synalign_agent.toolkit import Strategy

Records = list[dict[str, str]]


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_picks_are_distinct_rows_with_rising_coverage(strategy: Any, real: Records, encoder: Any) -> None:
    found = explore(real, 12, strategy=strategy, encoder=encoder)
    frame = found.rows
    assert frame["pick"].tolist() == list(range(1, 13)) and frame["row"].nunique() == 12
    assert [real[row]["text"] for row in frame["row"]] == frame["text"].tolist()
    assert frame["coverage"].is_monotonic_increasing
    texts = encoder.encode([row["text"] for row in real])
    radius = found.report["coverage"]["radius"]
    assert frame["coverage"].iloc[4] == radius_coverage(texts, frame["row"].iloc[:5], radius)
    assert found.report["coverage"]["explored"] == frame["coverage"].iloc[-1]
    assert (strategy == "gp") == bool(frame["variance"].notna().all())


def test_variance_falls_and_starts_at_that_of_the_prior(real: Records, encoder: Any) -> None:
    variance = explore(real, 20, strategy="gp", encoder=encoder).rows["variance"]
    assert variance.iloc[0] == pytest.approx(1.0) and variance.is_monotonic_decreasing


def test_the_first_four_picks_are_of_four_topics(real: Records, encoder: Any) -> None:
    for strategy in ("ivr", "gp", "kmeans"):
        picks = explore(real, 4, strategy=strategy, encoder=encoder).rows["text"]
        assert picks.str.split().str[0].nunique() == 4


def test_labels_get_their_share_and_take_turns(real: Records, encoder: Any) -> None:
    found = explore(real[:150], 6, label_column="label", encoder=encoder)  # 100 animals, 50 things
    assert found.report["per_label"] == {
        "animal": {"n_selected": 4, "n_real": 100}, "thing": {"n_selected": 2, "n_real": 50},
    }  # fmt: skip
    assert found.rows["label"].tolist() == ["animal", "thing", "animal", "animal", "thing", "animal"]


def test_clusters_are_a_row_and_its_neighbours(real: Records, encoder: Any) -> None:
    found = explore(real, 8, strategy="gp", cluster_size=3, encoder=encoder)
    assert found.rows["cluster"].tolist() == [1, 1, 1, 2, 2, 2, 3, 3]  # the last one is cut
    assert found.rows["variance"].notna().tolist() == [True, False, False] * 2 + [True, False]
    assert found.rows.groupby("cluster")["text"].agg(lambda texts: texts.str.split().str[0].nunique()).tolist() == [
        1,
        1,
        1,
    ]


def test_held_out_rows_are_never_picked_and_align_holds_the_same_out(real: Records, encoder: Any) -> None:
    picked = explore(real, 1000, seed=3, encoder=encoder)
    assert picked.report["n_selected"] == 160 and picked.report["n_held_out"] == 40
    assert [finding["kind"] for finding in picked.report["findings"]] == ["labels_not_used", "fewer_rows_than_asked"]
    everything = explore(real, 1000, seed=3, encoder=encoder, holdout_fraction=0)
    assert everything.report["n_selected"] == 200
    held_out = set(everything.rows["row"]) - set(picked.rows["row"])
    other = explore(real, 1000, seed=4, encoder=encoder)
    assert held_out & set(other.rows["row"])


def test_the_same_seed_gives_the_same_picks(real: Records, encoder: Any) -> None:
    for strategy in ("random", "kmeans"):
        one, two, other = (
            explore(real, 9, strategy=strategy, encoder=encoder, seed=seed, holdout_fraction=0) for seed in (5, 5, 6)
        )
        pd.testing.assert_frame_equal(one.rows, two.rows)
        assert one.rows["row"].tolist() != other.rows["row"].tolist()


def test_the_report_is_plain_json(real: Records, encoder: Any) -> None:
    report = explore(real, 5, strategy="random", encoder=encoder).report
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert [row["pick"] for row in report["demonstrations"]] == [1, 2, 3, 4, 5]
    assert report["demonstrations"][0]["variance"] is None and "label" not in report["demonstrations"][0]
    assert 0 < report["coverage"]["random"] <= 1


def test_own_vectors_and_texts_only(real: Records, encoder: Any, tmp_path: Path) -> None:
    texts = [row["text"] for row in real] + ["", real[0]["text"]]
    X = np.vstack([encoder.encode(texts[:-2]), np.full((2, 6), np.nan)])
    np.save(tmp_path / "X.npy", X)
    found = explore(texts, 7, embeddings=tmp_path / "X.npy")
    assert found.rows["row"].tolist() == explore(real, 7, encoder=encoder).rows["row"].tolist()
    assert [finding["reason"] for finding in found.report["findings"]] == ["empty", "duplicate"]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet", ""])
def test_demonstrations_are_written_as_asked(real: Records, encoder: Any, tmp_path: Path, ending: str) -> None:
    found = explore(real, 5, encoder=encoder)
    paths = found.save(tmp_path / f"out{ending}")
    path = Path(paths["demonstrations"])
    readers: dict[str, Any] = {".jsonl": lambda path: pd.read_json(path, lines=True), ".csv": pd.read_csv}
    frame = readers.get(path.suffix, pd.read_parquet)(path)
    assert frame["row"].tolist() == found.rows["row"].tolist()
    assert ("report" in paths) == (ending == "")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n": 0}, "n must be a whole number, 1 or more, got 0"),
        ({"cluster_size": 1.5}, "cluster_size must be a whole number"),
        ({"seed": -1}, "seed must be a whole number, 0 or more"),
        ({"strategy": "best"}, "strategy must be one of ivr"),
        ({"lengthscale_factor": 0.0}, "lengthscale_factor"),
        ({"lengthscale_factor": float("nan")}, "lengthscale_factor"),
        ({"holdout_fraction": -1}, "holdout_fraction"),
    ],
)
def test_wrong_options_are_named(real: Records, encoder: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        explore(real, **{"n": 3, "encoder": encoder, **options})
