"""The attributes eval: its two scores, and a run against a scripted endpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("evals.attributes", reason="the evals are not part of the source distribution")
pytest.importorskip("matplotlib", reason="the picture needs the extra `eval`")

from conftest import HashEncoder
from support.chat_server import ChatServer

from evals import attributes
from evals.attributes import Settings, Texts, drift, recovered
from evals.results import matching, start
from synalign_agent.errors import InputError
from synalign_agent.toolkit.progress import silent


def test_a_reading_is_recovered_where_the_true_value_is_the_nearest() -> None:
    values = np.eye(3)
    readings = np.array([[0.9, 0.1, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert recovered(readings, values, np.array([0, 1, 2, 1])) == 0.75


def test_drift_is_the_total_variation_distance_of_group_shares() -> None:
    groups = np.array([0, 0, 1, 1, 0, 2, 2, 2])
    is_real = np.array([True] * 4 + [False] * 4)
    assert drift(groups, is_real, 3) == pytest.approx(0.75)
    assert drift(groups[[0, 1, 4]], is_real[[0, 1, 4]], 3) == 0.0


def test_readings_that_say_what_was_stated_are_recovered_and_random_ones_only_by_chance(
    hash_encoder: HashEncoder,
) -> None:
    topics = ["sport on grass", "money and banks", "ships at sea", "bread from yesterday"]
    stated = [{"topic": topics[row % 4]} for row in range(80)]
    texts = Texts(
        {"topic": "what it is about"}, ["real"] * 80, ["text"] * 80, ["a", "b"] * 40, stated, np.arange(80) < 30
    )
    random = np.random.default_rng(0).permutation(80)
    for order, low, high in ((np.arange(80), 1.0, 1.0), (random, 0.2, 0.75)):
        result = start("attributes", Settings(n_seeds=1), {"tiny": "0"}, [0])
        readings = [stated[row] for row in order.tolist()] * 2
        attributes._score(result, "tiny", 0, texts, [*readings[:-1], None], hash_encoder, 4)
        [share], [chance] = (
            matching(result.measurements, metric, {"dimension": "topic"})
            for metric in ("recovered", "recovered_by_chance")
        )
        assert share.value is not None and low <= share.value <= high
        # Each label has two of the topics.
        assert chance.value == pytest.approx(0.5, abs=0.05)
        [moved] = matching(result.measurements, "drift", {"dimension": "topic"})
        assert moved.value is not None and moved.value < 0.05
        # Shares of fewer texts are farther apart by chance, so each drift has a chance of its own.
        by_chance = [
            matching(result.measurements, f"{metric}_by_chance", {})[0].value for metric in ("drift", "drift_aligned")
        ]
        assert by_chance[0] is not None and by_chance[1] is not None and by_chance[0] < by_chance[1]
        assert matching(result.measurements, "readable", {})[0].value == 159 / 160


def test_an_arm_without_attributes_is_refused() -> None:
    with pytest.raises(InputError, match=r"\+attributes"):
        attributes.run(Settings(arm="gp+alignment"), silent)


@pytest.mark.usefixtures("open_gates")
def test_a_session_is_written_and_read_and_a_second_run_asks_nothing(
    data_dir: Path, tmp_path: Path, chat_server: ChatServer, hash_encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evals.attributes.default_encoder", lambda: hash_encoder)
    monkeypatch.setattr("evals.attributes.cache_folder", lambda: tmp_path / "cache")
    settings = Settings(
        datasets=("tiny",), max_calls=14, n_samples=8, n_ref=60, clusters_per_label=2, calls_per_cluster=2, n_read=16, n_groups=2,
        n_seeds=1, model="scripted", base_url=chat_server.base_url, concurrency=4,
    )  # fmt: skip
    result = attributes.run(settings, silent, data_dir)
    n_sent = len(chat_server.requests)
    assert matching(result.measurements, "readable", {})[0].value == 1.0
    assert matching(result.measurements, "recovered", {}) and matching(result.measurements, "drift_by_chance", {})
    # What is read is read blind.
    blind = [str(body["messages"]) for body in chat_server.requests[-32:]]
    assert not any("with the label" in prompt for prompt in blind)
    attributes.run(settings, silent, data_dir)
    assert len(chat_server.requests) == n_sent
    attributes.figure(result).savefig(tmp_path / "attributes.png")
    assert attributes.tables(result)[0].row_count >= 2
    assert attributes.targets(result)[0][1] is None  # a single seed has no interval
